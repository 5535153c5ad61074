"""The synchronous core of the relay alone: no socket, no event loop, no disk.

What is timed is what the node does between a receive and a send: the four batches that messages make (submissions,
their responses, receipts, their responses). The store is one dict, durable at once. What the whole process uses beyond
this is system calls, the event loop and the embedded store.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import structlog

from benchmarks import messages
from dlrproxy.collector import tune_collector
from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.custody_port import Accepted, Custody
from dlrproxy.logs import RouteLog
from dlrproxy.relay import Relay
from dlrproxy.secret import Secret
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import OpenMessage
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, split
from protocols.smpp.message_ids import Learner, Rule

_GATEWAY = "gw1"
_BATCH_CEILING = 10_000


class _Sent:
    """A connection's sending side: keeps what is sent until it is taken."""

    congested = False

    def __init__(self) -> None:
        self._data: list[bytes] = []

    def send(self, data: bytes) -> None:
        self._data.append(data)

    def end(self, reason: str) -> None:
        raise RuntimeError(f"the relay ended a session: {reason}")

    def take(self) -> list[bytes]:
        frames, _ = split(b"".join(self._data))
        self._data.clear()
        return frames


class _InstantStore(MemoryStore):
    """As little as a store can cost on the path of a matched report."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self._kept: dict[tuple[str, bytes], OpenMessage] = {}

    def put_open(self, message: OpenMessage) -> None:
        self._kept[message.operator, message.message_id] = message

    def close_open(
        self,
        operator: str,
        message_id: bytes,
        final_at: float,
        expires_at: float,
        record: OpenMessage | None = None,
    ) -> None:
        del self._kept[operator, message_id]

    def recent(self, operator: str, message_id: bytes) -> OpenMessage | None:
        return self._kept.get((operator, message_id))

    def after_durable(self, callback: Callable[[], None]) -> None:
        callback()

    def after_opened(self, callback: Callable[[], None]) -> None:
        callback()


class _NoCustody:
    """Every report matches, so that custody has nothing; anything else fails the measurement."""

    watching = False

    def holds(self, operator: str, message_id: bytes) -> bool:
        return False

    def accept(self, report: Accepted, answer: Callable[[bool], None]) -> None:
        raise RuntimeError(f"a report went to custody: {report.message_id!r}")

    def answered(self, trace: str, status: int | None) -> None:
        raise RuntimeError(f"custody was told of {trace}: {status}")

    def gateway_bound(self, operator: str, gateway: str) -> None:
        """Nothing waits for it."""

    def gateway_gone(self, operator: str, gateway: str) -> None:
        """Nothing is on its way to it."""

    def open_message(self, message: OpenMessage) -> None:
        raise RuntimeError(f"custody watches: {message.message_id!r}")


def _sequences(frames: Sequence[bytes]) -> list[int]:
    return [HEADER.unpack_from(frame)[3] for frame in frames]


class _Core:
    """A relay with one bind and one gateway session, both transceivers."""

    def __init__(self) -> None:
        operator = Operator(
            name="bench",
            host="none",
            system_id="bench",
            password=Secret(messages.PASSWORD),
            listen={_GATEWAY: Address("127.0.0.1", 0)},
            window=_BATCH_CEILING,
            gateway_window=_BATCH_CEILING,
        )
        custody: Custody = _NoCustody()
        self._relay = Relay(
            operator,
            _InstantStore(),
            custody,
            Learner(Rule.EXACT),
            routes=RouteLog("bench"),
            log=structlog.get_logger(),
            now=time.monotonic,
        )
        self._operator_side, self._gateway_side = _Sent(), _Sent()
        self._bind = self._relay.new_bind(self._operator_side, "1")
        self._session = self._relay.new_session(self._gateway_side, _GATEWAY)
        for link in (self._bind, self._session):
            link.session.responded(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK)
            self._relay.bound(link)

    def batch_ns(self, size: int, first: int) -> int:
        """So many messages from the first to the last PDU, the n-th with the number `first` + n."""
        ids = [b"%0*d" % (messages.ID_DIGITS, number) for number in range(first, first + size)]
        submits = [messages.submit(number) for number in range(first, first + size)]
        taken = _timed(self._relay.from_gateway, self._session, submits)

        requests = _sequences(self._operator_side.take())
        answers = [messages.submit_response(number, one) for number, one in zip(requests, ids, strict=True)]
        taken += _timed(self._relay.from_operator, self._bind, answers)

        _expect(self._gateway_side.take(), size, "responses")
        stamp, mark = b"0" * messages.STAMP_DIGITS, b"0" * messages.MARK_DIGITS
        receipts = [messages.receipt(number, mark, stamp, one) for number, one in enumerate(ids, first)]
        taken += _timed(self._relay.from_operator, self._bind, receipts)

        delivered = _sequences(self._gateway_side.take())
        taken += _timed(
            self._relay.from_gateway, self._session, [messages.receipt_response(number) for number in delivered]
        )
        _expect(self._operator_side.take(), size, "answers to receipts")
        return taken


def _timed(step: Callable[..., None], *arguments: object) -> int:
    begin = time.thread_time_ns()  # not the wall's: others may have the core meanwhile
    step(*arguments)
    return time.thread_time_ns() - begin


def _expect(frames: Sequence[bytes], size: int, what: str) -> None:
    if len(frames) != size:
        raise RuntimeError(f"{len(frames)} {what} for {size} messages")


def core_ns(size: int, total: int) -> float:
    """Nanoseconds a message, in batches of `size`: the median batch of about `total` messages.

    Sets this process's collector as a node's is.
    """
    tune_collector()
    core = _Core()
    return median(core.batch_ns(size, 1 + number * size) / size for number in range(max(1, total // size)))
