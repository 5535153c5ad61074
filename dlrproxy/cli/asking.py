"""What the commands that ask a running node have in common: which node is meant, and what is said when it cannot be."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec

import click

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.admin.reach import Directory, Url, url
from dlrproxy.config.problems import ConfigError, Problem
from dlrproxy.config.reading import Reader, toml
from dlrproxy.config.tables import Node
from dlrproxy.secret import SecretError, from_file

P = ParamSpec("P")
_PATH: Final = click.Path(path_type=Path)


def asks_node(command: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """A command that names a node, by CONFIG or --data-dir, and is called with a client of it."""

    def alone(client: Client, _: tuple[str, ...], /, *args: P.args, **kwargs: P.kwargs) -> None:
        command(client, *args, **kwargs)

    return asks_node_about("")(functools.wraps(command)(alone))


def asks_node_about(
    what: str, least: int = 0, most: int = 0
) -> Callable[[Callable[Concatenate[Client, tuple[str, ...], P], None]], Callable[..., None]]:
    """The same with further words behind CONFIG, from `least` to `most`; they are the command's second argument.

    click could not tell an optional CONFIG from the word that follows it. A node elsewhere is named by --url.
    """

    def decorate(command: Callable[Concatenate[Client, tuple[str, ...], P], None]) -> Callable[..., None]:
        @click.argument("words", metavar=f"[CONFIG] {what}".strip(), nargs=-1)
        @click.option("--data-dir", type=_PATH, help="The node's data_dir, instead of CONFIG.")
        @click.option("--url", "where", help="A node elsewhere, by its admin.listen: https://gw2.example:7380.")
        @click.option("--ca-file", type=_PATH, help="With --url: whom to trust; without it the system's authorities.")
        @click.option("--cert-file", type=_PATH, help="With --url: our certificate, where the node asks for one.")
        @click.option("--key-file", type=_PATH, help="With --url: its key.")
        @click.option("--token-file", type=_PATH, help="With --url: the node's admin.token_file, or a copy.")
        @functools.wraps(command)
        def wrapped(
            words: tuple[str, ...],
            data_dir: Path | None,
            where: str | None,
            ca_file: Path | None,
            cert_file: Path | None,
            key_file: Path | None,
            token_file: Path | None,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> None:
            named = [option for option in (data_dir, where) if option is not None]
            if len(named) > 1:
                raise click.UsageError("Give only one of --data-dir and --url.")
            if where is None and any((ca_file, cert_file, key_file, token_file)):
                raise click.UsageError("--ca-file, --cert-file, --key-file and --token-file go with --url.")
            if where is not None:
                client = Client(_elsewhere(where, ca_file, cert_file, key_file, token_file))
            elif data_dir is not None:
                client = Client(Directory(data_dir))
            elif words:
                client, words = Client(Directory(data_dir_of(Path(words[0])))), words[1:]
            else:
                raise click.UsageError("Say which node is meant: its CONFIG.toml, --data-dir DIR or --url URL.")
            if not least <= len(words) <= most:
                wanted = (
                    f"{what} behind CONFIG or with --data-dir or --url"
                    if what
                    else "CONFIG, --data-dir or --url, and nothing else"
                )
                raise click.UsageError(f"Give {wanted}.")
            try:
                command(client, words, *args, **kwargs)
            except AdminError as error:
                raise click.ClickException(str(error)) from error

        return wrapped

    return decorate


def _elsewhere(
    where: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None, token_file: Path | None
) -> Url:
    """Raises click's errors."""
    if (cert_file is None) != (key_file is None):
        raise click.UsageError("--cert-file and --key-file go together.")
    try:
        token = None if token_file is None else from_file(token_file)
        certificate = None if cert_file is None or key_file is None else (cert_file, key_file)
        return url(where, ca_file=ca_file, certificate=certificate, token=token)
    except (ValueError, SecretError) as error:
        raise click.ClickException(str(error)) from error


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
