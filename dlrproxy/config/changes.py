"""What differs between the configuration that runs and the one that is to. Pure."""

from collections.abc import Sequence

from attrs import evolve, fields, frozen

from dlrproxy.config import Config
from dlrproxy.config.operator import Operator

# Taken over while running; the rest of a changed configuration counts from the next start.
_LIVE = frozenset({"operators", "peers", "ring", "warnings"})
_LIVE_IN_RING = frozenset({"ca_file", "cert_file", "key_file", "secret_file", "secret"})
# Another value makes it another node: a file that has one is not meant for this process.
_IDENTITY = ("name", "mode", "data_dir")


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


def check_identity(running: Config, wanted: Config) -> None:
    """Raises ReloadRefusedError when `wanted` is the configuration of another node."""
    problems = [
        f"node.{key}: this process runs as {getattr(running.node, key)}; {getattr(wanted.node, key)} needs a restart"
        for key in _IDENTITY
        if getattr(running.node, key) != getattr(wanted.node, key)
    ]
    if problems:
        raise ReloadRefusedError(problems)


def taken_over(running: Config, wanted: Config) -> Config:
    """What is in force after a reload: `running`, with what of `wanted` counts at once, but for the operators."""
    live = {key: getattr(wanted.ring, key) for key in sorted(_LIVE_IN_RING)}
    return evolve(running, peers=wanted.peers, ring=evolve(running.ring, **live))


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
