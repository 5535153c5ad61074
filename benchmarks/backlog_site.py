"""The nodes of `make backlog`: their files, and a data directory that is full of what waits or is parked."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import trio
from attrs import frozen

from benchmarks import messages
from benchmarks.backlog_gateway import drained_id
from benchmarks.contestants import Started, free_ports, start
from dlrproxy.store.port import OpenMessage, Store, Table
from dlrproxy.store.rocks import open_rocks
from protocols.peer.frames import Envelope, EnvelopeKey
from ring.commands import Reason
from ring.rows import CustodyRow, Kind, ParkedRow, encode_key, encode_row

Waits = Literal["parked", "parked-node", "gateway", "node"]

SYSTEM_ID: Final = "backlog"
OTHER: Final = "other"
WAITED_FOR: Final = "waited-for"
START_S: Final = 900.0
WAITED_S: Final = 3600.0  # when it began
BATCH: Final = 20_000

_NODE: Final = """\
[node]
name = "{name}"
data_dir = "{data}"

[[operators]]
name = "bench"
host = "127.0.0.1"
port = {smsc}
system_id = "{system_id}"
password = "{password}"
listen = {{ other = "127.0.0.1:{other}", waited-for = "127.0.0.1:{waited_for}" }}
window = 100

[custody]
max_messages = {max_messages}
max_parked = 10000000

[log]
route_events = {route_events}

[ring]
secret_file = "{secret}"

[[peers]]
name = "gw1"
url = "wss://127.0.0.1:{first}"

[[peers]]
name = "gw2"
url = "wss://127.0.0.1:{second}"
"""


@frozen
class Site:
    """One node's files and ports."""

    name: str
    config: Path
    data: Path
    ports: dict[str, int]  # by gateway

    def start(self) -> Started:
        """Once it listens. Raises StartFailedError."""
        command = [sys.executable, "-m", "dlrproxy", "run", str(self.config)]
        return start(command, self.config.with_suffix(".log"), self.ports[OTHER], START_S)


def sites(work: Path, smsc: int, max_messages: int, *, route_events: bool) -> tuple[Site, Site]:
    """Two nodes of one ring, gw1 and gw2."""
    secret = work / "ring.secret"
    secret.write_text("a secret of the benchmark, long enough\n")
    secret.chmod(0o600)
    first, second = free_ports(2)

    def site(name: str) -> Site:
        ports = dict(zip((OTHER, WAITED_FOR), free_ports(2), strict=True))
        config, data = work / f"{name}.toml", work / name
        text = _NODE.format(
            name=name, data=data, smsc=smsc, system_id=SYSTEM_ID, password=messages.PASSWORD.decode(),
            other=ports[OTHER], waited_for=ports[WAITED_FOR], max_messages=max_messages, secret=secret, first=first,
            second=second, route_events=str(route_events).lower(),
        )  # fmt: skip
        config.write_text(text)
        config.chmod(0o600)
        return Site(name, config, data, ports)

    return site("gw1"), site("gw2")


def fill(site: Site, count: int, write: Callable[[Store, int, float], None]) -> None:
    """Make its store, with `count` of what `write` writes."""

    async def filling() -> None:
        store = await open_rocks(site.data, time.time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            for begin in range(0, count, BATCH):
                for number in range(begin, min(begin + BATCH, count)):
                    write(store, number, time.time() - WAITED_S)
                durable = trio.Event()
                store.after_durable(durable.set)
                await durable.wait()
            nursery.cancel_scope.cancel()
        await store.close()

    trio.run(filling)


def waiting(kind: Waits) -> Callable[[Store, int, float], None]:
    """Writes one, as custody does."""

    def write(store: Store, number: int, now: float) -> None:
        envelope = _envelope(store.store_id, number)
        if kind in ("parked", "parked-node"):
            table, value = Table.PARKED, encode_row(ParkedRow(envelope, Reason.UNCLAIMED.value, now, now))
        else:
            gateway = WAITED_FOR if kind == "gateway" else ""
            table, value = Table.CUSTODY, encode_row(CustodyRow(Kind.ORIGIN, envelope, now, gateway))
        store.put(table, encode_key(envelope.key), value)

    return write


def _envelope(store_id: bytes, number: int) -> Envelope:
    """A report of 193 bytes, as an operator sends it."""
    mark = _mark(number)
    pdu = messages.receipt(1, mark, b"%0*d" % (messages.STAMP_DIGITS, 0), drained_id(number))
    return Envelope(
        EnvelopeKey(store_id, number), "gw1", "bench", "dlr", drained_id(number), b"47901" + mark, pdu,
        f"{number:016x}", final=True,
    )  # fmt: skip


def owned(store: Store, number: int, now: float) -> None:
    """The message that it reports, at its owner's node."""
    store.put_open(
        OpenMessage(
            "bench", drained_id(number), WAITED_FOR, b"47901" + _mark(number), b"2000", 0, now, now + 7 * 86_400
        )
    )


def _mark(number: int) -> bytes:
    return b"%0*d" % (messages.MARK_DIGITS, number % 10**messages.MARK_DIGITS)
