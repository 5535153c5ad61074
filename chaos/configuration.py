"""The nodes' TOML files, and the secrets beside them."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from chaos.plan import DEAD_AFTER_S, Plan, Target
from dlrproxy.demo.ports import LOOPBACK

OPERATOR: Final = "acme"
SYSTEM_ID: Final = "chaos"
# What nobody owns is parked after this: longer than any fault, several times over.
CLAIM_FOR_S: Final = 30.0
# An answer to the operator comes within this; the operator waits longer (`stage`).
OPERATOR_ANSWER_S: Final = 6.0
MIN_FREE_MB: Final = 16

_PASSWORD_FILE: Final = "acme.secret"  # noqa: S105 - a file's name
_SECRET_FILE: Final = "ring.secret"  # noqa: S105 - a file's name


@frozen
class Ports:
    """On loopback. Lines stand between: whoever dials does so at a line's port."""

    operator: int
    uplinks: Mapping[str, int]  # by node: the line to the operator
    gateways: Mapping[str, int]  # by node: where it listens for its gateway
    downlinks: Mapping[str, int]  # by node: the line that its gateway dials
    peers: Mapping[str, int]  # by node: where it listens for its peers
    links: Mapping[Target, int]  # by two nodes: the line that the first dials

    @classmethod
    def of(cls, plan: Plan, ports: Sequence[int]) -> "Ports":
        """From as many ports as `count` says."""
        taken = iter(ports)

        def by_name() -> dict[str, int]:
            return {name: next(taken) for name in plan.names}

        return cls(next(taken), by_name(), by_name(), by_name(), by_name(), {pair: next(taken) for pair in plan.pairs})

    @staticmethod
    def count(plan: Plan) -> int:
        return 1 + 4 * plan.nodes + len(plan.pairs)


class Configuration:
    """Writes the files, and writes them again when the table of nodes changes."""

    def __init__(self, directory: Path, plan: Plan, ports: Ports) -> None:
        """Raises OSError."""
        self.password = secrets.token_hex(4)  # SMPP allows eight characters
        self._directory = directory
        self._plan = plan
        self._ports = ports
        _write_secret(directory / _PASSWORD_FILE, self.password)
        _write_secret(directory / _SECRET_FILE, secrets.token_urlsafe(32))
        for name in plan.names:
            self.data_dir(name).mkdir(parents=True)
            self.write(name, plan.names)

    def file(self, name: str) -> Path:
        return self._directory / f"{name}.toml"

    def data_dir(self, name: str) -> Path:
        return self._directory / "data" / name

    def write(self, name: str, nodes: Sequence[str]) -> None:
        """The file of one node, in a ring of these. Raises OSError."""
        self.file(name).write_text("\n".join(self._lines(name, nodes)) + "\n", encoding="utf-8")

    def _lines(self, name: str, nodes: Sequence[str]) -> Iterator[str]:
        ports = self._ports
        yield from (
            "[node]",
            f'name = "{name}"',
            f'data_dir = "{self.data_dir(name)}"',
            f"min_free_mb = {MIN_FREE_MB}",
            "drain_s = 5",
            "[[operators]]",
            f'name = "{OPERATOR}"',
            f'host = "{LOOPBACK}"',
            f"port = {ports.uplinks[name]}",
            f'system_id = "{SYSTEM_ID}"',
            f'password_file = "{_PASSWORD_FILE}"',
            f'system_type = "{name}"',  # by it the operator tells nodes apart
            f'listen = "{LOOPBACK}:{ports.gateways[name]}"',
            "reconnect_min_s = 0.2",
            "reconnect_max_s = 2",
            "enquire_link_s = 2",
            "enquire_link_timeout_s = 2",
            "response_s = 10",
            "gateway_answer_s = 2",
            f"operator_answer_s = {OPERATOR_ANSWER_S}",
        )
        for number, gateway in self._plan.numbers.items():
            yield from ("[[mo.rules]]", f'destination = "{number}"', f'gateway = "{gateway}"')
        for peer in nodes:
            port = ports.links.get((name, peer), ports.peers[peer])
            yield from ("[[peers]]", f'name = "{peer}"', f'url = "wss://{LOOPBACK}:{port}"')
        yield from (
            "[ring]",
            'cluster = "chaos"',
            f'secret_file = "{_SECRET_FILE}"',
            f"claim_for_s = {CLAIM_FOR_S}",
            "lap_timeout_s = 2",
            "retry_min_s = 0.5",
            "retry_max_s = 2",
            "heartbeat_s = 0.5",
            "suspect_after_s = 1.5",
            f"dead_after_s = {DEAD_AFTER_S}",
            "[custody]",
            "retry_min_s = 0.2",
            "retry_max_s = 2",
            "settle_retry_s = 1",
        )


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n", encoding="utf-8")
