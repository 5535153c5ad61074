"""What the commands that ask a running node have in common: which node is meant, and what is said when it cannot be."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.config_problems import ConfigError, Problem
from dlrproxy.config_reading import Reader, toml
from dlrproxy.config_tables import Node

P = ParamSpec("P")


def asks_node(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """A command with [CONFIG] as its last argument so far, and --data-dir; it is called with a client of that node."""

    @click.argument("config_file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
    @click.option("--data-dir", type=click.Path(path_type=Path), help="The node's data_dir, instead of CONFIG.")
    @functools.wraps(command)
    def wrapped(config_file: Path | None, data_dir: Path | None, *args: P.args, **kwargs: P.kwargs) -> None:
        if config_file is not None and data_dir is None:
            client = Client(data_dir_of(config_file))
        elif data_dir is not None and config_file is None:
            client = Client(data_dir)
        else:
            raise click.UsageError("Say which node is meant: its CONFIG.toml, or --data-dir DIR.")
        try:
            command(client, *args, **kwargs)
        except AdminError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


def data_dir_of(path: Path) -> Path:
    """Read from [node] alone: whatever else is wrong with the file is no reason not to ask. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Problem(f"byte {error.start}", "TOML is UTF-8, and this is not")]) from error
    reader = Reader(toml(text, str(path)), path.parent)
    node = reader.table(Node, "node")
    if node is None:
        raise ConfigError(str(path), reader.problems)
    return node.data_dir
