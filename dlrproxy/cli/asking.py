"""What the commands that ask a running node have in common: which node is meant, and what is said when it cannot be."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.config.problems import ConfigError, Problem
from dlrproxy.config.reading import Reader, toml
from dlrproxy.config.tables import Node

P = ParamSpec("P")


def asks_node(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """A command that names a node, by CONFIG or --data-dir, and is called with a client of it."""

    def alone(client: Client, _: tuple[str, ...], /, *args: P.args, **kwargs: P.kwargs) -> None:
        command(client, *args, **kwargs)

    return asks_node_about("")(functools.wraps(command)(alone))


def asks_node_about(
    what: str, least: int = 0, most: int = 0
) -> Callable[[Callable[Concatenate[Client, tuple[str, ...], P], None]], Callable[..., None]]:
    """The same with further words behind CONFIG, from `least` to `most`; they are the command's second argument.

    click could not tell an optional CONFIG from the word that follows it.
    """

    def decorate(command: Callable[Concatenate[Client, tuple[str, ...], P], None]) -> Callable[..., None]:
        @click.argument("words", metavar=f"[CONFIG] {what}".strip(), nargs=-1)
        @click.option("--data-dir", type=click.Path(path_type=Path), help="The node's data_dir, instead of CONFIG.")
        @functools.wraps(command)
        def wrapped(words: tuple[str, ...], data_dir: Path | None, *args: P.args, **kwargs: P.kwargs) -> None:
            if data_dir is not None:
                client = Client(data_dir)
            elif words:
                client, words = Client(data_dir_of(Path(words[0]))), words[1:]
            else:
                raise click.UsageError("Say which node is meant: its CONFIG.toml, or --data-dir DIR.")
            if not least <= len(words) <= most:
                wanted = (
                    f"{what} behind CONFIG or with --data-dir" if what else "CONFIG or --data-dir, and nothing else"
                )
                raise click.UsageError(f"Give {wanted}.")
            try:
                command(client, words, *args, **kwargs)
            except AdminError as error:
                raise click.ClickException(str(error)) from error

        return wrapped

    return decorate


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
