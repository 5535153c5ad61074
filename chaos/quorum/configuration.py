"""The nodes' TOML files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from dlrproxy.demo.ports import LOOPBACK

NODES: Final = ("gw1", "gw2", "gw3")  # and each one's gateway
NUMBERS: Final = {f"700{number}": name for number, name in enumerate(NODES, 1)}  # that MO are for, and their gateways
OPERATOR: Final = "acme"
SYSTEM_ID: Final = "shop"
PASSWORD: Final = "secret"  # noqa: S105 - nobody else is there
ACCOUNT: Final = "dlrproxy"  # of the nodes, at their servers
# Short, so that a schedule is; in the proportions of the defaults.
HEARTBEAT_S: Final = 0.5
FENCE_AFTER_S: Final = 5.0
TAKEOVER_AFTER_S: Final = 8.0
LEASE_S: Final = 3.0
ANSWER_S: Final = 8.0  # to the operator: the default


@frozen
class Ports:
    """On loopback."""

    operator: int
    listen: Mapping[str, Mapping[str, int]]  # by node: where it listens for each gateway
    turnstiles: Mapping[str, int]  # by gateway
    links: Mapping[str, int]  # by node: where its peers dial
    databases: Mapping[str, int]  # by node: where it dials its server, if it does so over a line

    @classmethod
    def of(cls, ports: list[int]) -> "Ports":
        """From `COUNT` of them."""
        free = iter(ports)

        def each() -> dict[str, int]:
            return {name: next(free) for name in NODES}

        return cls(next(free), {node: each() for node in NODES}, each(), each(), each())


COUNT: Final = 1 + len(NODES) * len(NODES) + 3 * len(NODES)


Settings = Mapping[str, Mapping[str, str | int]]  # of [quorum], by node


def write(directory: Path, ports: Ports, sockets: Mapping[str, str], settings: Settings) -> None:
    """The file of each node, and its data directory. Raises OSError.

    `sockets`: by node, of its database server; a node that has none there dials it over a line.
    """
    for name in NODES:
        data_dir(directory, name).mkdir(parents=True)
        lines = _lines(name, data_dir(directory, name), ports, sockets.get(name), settings)
        file(directory, name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def file(directory: Path, name: str) -> Path:
    return directory / f"{name}.toml"


def data_dir(directory: Path, name: str) -> Path:
    return directory / "data" / name


def _lines(name: str, data: Path, ports: Ports, socket: str | None, settings: Settings) -> Iterator[str]:
    listen = ", ".join(f'{gateway} = "{LOOPBACK}:{port}"' for gateway, port in ports.listen[name].items())
    yield from (
        "[node]",
        f'name = "{name}"',
        'mode = "quorum"',
        f'data_dir = "{data}"',
        "min_free_mb = 16",
        "drain_s = 5",
        "[[operators]]",
        f'name = "{OPERATOR}"',
        f'host = "{LOOPBACK}"',
        f"port = {ports.operator}",
        f'system_id = "{SYSTEM_ID}"',
        f'password = "{PASSWORD}"',
        f'system_type = "{name}"',  # by it the operator tells nodes apart
        f"listen = {{ {listen} }}",
        "reconnect_min_s = 0.1",
        "reconnect_max_s = 0.5",
        f"operator_answer_s = {ANSWER_S}",
    )
    for peer, port in ports.links.items():
        yield from ("[[peers]]", f'name = "{peer}"', f'url = "ws://{LOOPBACK}:{port}"')
    for number, gateway in NUMBERS.items():
        yield from ("[[mo.rules]]", f'destination = "{number}"', f'gateway = "{gateway}"')
    yield from (
        "[ring]",
        'cluster = "chaos"',
        "lap_timeout_s = 2",
        "retry_min_s = 0.5",
        "retry_max_s = 1",
        "[custody]",
        "retry_min_s = 0.2",
        "retry_max_s = 1",
        "[database]",
        *([f'host = "{LOOPBACK}"', f"port = {ports.databases[name]}"] if socket is None else [f'socket = "{socket}"']),
        f'user = "{ACCOUNT}"',
        f'password = "{PASSWORD}"',
        "connect_timeout_s = 2.0",
        "[quorum]",
        f"heartbeat_s = {HEARTBEAT_S}",
        f"fence_after_s = {FENCE_AFTER_S}",
        f"takeover_after_s = {TAKEOVER_AFTER_S}",
        f"lease_s = {LEASE_S}",
    )
    for key, by_node in settings.items():
        yield f"{key} = {{ {', '.join(f'{node} = {json.dumps(value)}' for node, value in by_node.items())} }}"
