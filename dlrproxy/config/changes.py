"""What differs between the configuration that runs and the one that is to. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from attrs import evolve, fields, frozen

from dlrproxy.config import Config
from dlrproxy.config.keys import key_of
from dlrproxy.config.operator import Operator

# Taken over while running; the rest of a changed configuration counts from the next start.
_LIVE_TABLES: Final = frozenset({"operators", "peers", "warnings"})
LIVE_KEYS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "ring": frozenset({"ca_file", "cert_file", "key_file", "secret_file", "secret"}),
        "join": frozenset({"ca_file", "cert_file", "key_file", "secret_file", "secret"}),
        "mo": frozenset({"rules"}),
    }
)
# Another value makes it another node: a file that has one is not meant for this process.
IDENTITY: Final = ("name", "mode", "data_dir")


class ReloadRefusedError(ValueError):
    """A configuration is not taken over, and nothing has changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@frozen
class Changes:
    added: tuple[Operator, ...]
    changed: tuple[Operator, ...]  # as they are to be
    removed: tuple[str, ...]
    peers: bool  # the table of nodes is another one
    mo_rules: bool
    needs_restart: tuple[str, ...]  # paths of keys whose new value counts from the next start


def changes(running: Config, wanted: Config) -> Changes:
    before = {operator.name: operator for operator in running.operators}
    after = {operator.name: operator for operator in wanted.operators}
    return Changes(
        added=tuple(operator for name, operator in after.items() if name not in before),
        changed=tuple(operator for name, operator in after.items() if name in before and before[name] != operator),
        removed=tuple(name for name in before if name not in after),
        peers=running.peers != wanted.peers,
        mo_rules=running.mo.rules != wanted.mo.rules,
        needs_restart=_needs_restart(running, wanted),
    )


def check_identity(running: Config, wanted: Config) -> None:
    """Raises ReloadRefusedError when `wanted` is the configuration of another node."""
    problems = [
        f"node.{key}: this process runs as {getattr(running.node, key)}; {getattr(wanted.node, key)} needs a restart"
        for key in IDENTITY
        if getattr(running.node, key) != getattr(wanted.node, key)
    ]
    if problems:
        raise ReloadRefusedError(problems)


def taken_over(running: Config, wanted: Config) -> Config:
    """What is in force after a reload: `running`, with what of `wanted` counts at once, but for the operators."""
    tables = {
        name: evolve(getattr(running, name), **{key: getattr(getattr(wanted, name), key) for key in keys})
        for name, keys in LIVE_KEYS.items()
    }
    return evolve(running, peers=wanted.peers, **tables)


def _needs_restart(running: Config, wanted: Config) -> tuple[str, ...]:
    paths: dict[str, None] = {}  # each once, in order
    for table in fields(Config):
        if table.name in _LIVE_TABLES:
            continue
        before, after = getattr(running, table.name), getattr(wanted, table.name)
        if before is None or after is None:
            if before is not after:
                paths[table.name] = None  # the whole of it came, or went
            continue
        for key in fields(type(after)):
            if key.name not in LIVE_KEYS.get(table.name, ()) and getattr(before, key.name) != getattr(after, key.name):
                # What is read from a file, a secret, stands under that key.
                paths[f"{table.name}.{key.name}" if key_of(key) else f"{table.name}.{key.name}_file"] = None
    own_before, own_after = running.own_peer, wanted.own_peer
    if own_before is not None and own_after is not None and own_before.url != own_after.url:
        paths["peers.url"] = None  # this node's own: where it listens
    return tuple(paths)
