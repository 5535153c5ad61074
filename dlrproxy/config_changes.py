"""What differs between the configuration that runs and the one that is to. Pure."""

from attrs import fields, frozen

from dlrproxy.config import Config
from dlrproxy.config_operator import Operator

# Taken over while running; the rest of a changed configuration counts from the next start.
_LIVE = frozenset({"operators", "peers", "ring", "warnings"})
_LIVE_IN_RING = frozenset({"ca_file", "cert_file", "key_file", "secret_file", "secret"})


@frozen
class Changes:
    added: tuple[Operator, ...]
    changed: tuple[Operator, ...]  # as they are to be
    removed: tuple[str, ...]
    peers: bool  # the table of nodes is another one
    needs_restart: tuple[str, ...]  # paths of keys whose new value counts from the next start


def changes(running: Config, wanted: Config) -> Changes:
    before = {operator.name: operator for operator in running.operators}
    after = {operator.name: operator for operator in wanted.operators}
    return Changes(
        added=tuple(operator for name, operator in after.items() if name not in before),
        changed=tuple(operator for name, operator in after.items() if name in before and before[name] != operator),
        removed=tuple(name for name in before if name not in after),
        peers=running.peers != wanted.peers,
        needs_restart=_needs_restart(running, wanted),
    )


def _needs_restart(running: Config, wanted: Config) -> tuple[str, ...]:
    paths = []
    for table in fields(Config):
        if table.name in _LIVE - {"ring"}:
            continue
        before, after = getattr(running, table.name), getattr(wanted, table.name)
        live = _LIVE_IN_RING if table.name == "ring" else frozenset[str]()
        paths += [
            f"{table.name}.{key.name}"
            for key in fields(type(after))
            if key.name not in live and getattr(before, key.name) != getattr(after, key.name)
        ]
    return tuple(paths)
