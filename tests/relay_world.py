"""A relay with nothing real around it: connections are lists, the store is memory, custody is the test's to decide."""

import struct
from collections.abc import Callable

import structlog

from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.config.tables import Mo
from dlrproxy.custody_port import Accepted
from dlrproxy.logs import RouteLog
from dlrproxy.mo.conversations import Conversations
from dlrproxy.mo.routing import MoRouting
from dlrproxy.relay import Relay
from dlrproxy.secret import Secret
from dlrproxy.sessions.links import Bind, GatewaySession
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import Store
from protocols.smpp import constants as c
from protocols.smpp.framing import split
from protocols.smpp.message_ids import Learner, Rule
from protocols.smpp.pdu import Message, pack


class Wire:
    """A connection's sending side: what was sent, PDU by PDU, and in how many writes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.writes = 0
        self.congested = False
        self.ended: str | None = None

    def send(self, data: bytes) -> None:
        if self.ended is None:
            frames, rest = split(data)
            assert not rest
            self.sent += frames
            self.writes += 1

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason

    def take(self) -> list[bytes]:
        sent, self.sent = self.sent, []
        return sent


class Custody:
    """Records what it is given; a test answers, unless `at_once` says how."""

    def __init__(self) -> None:
        self.at_once: bool | None = None
        self.accepted: list[Accepted] = []
        self.answers: list[Callable[[bool], None]] = []
        self.late: list[tuple[str, int | None]] = []
        self.held: set[tuple[str, bytes]] = set()
        self.bound: list[str] = []
        self.opened: list[bytes] = []
        self.watching = False
        self.wrap_up: Callable[[], None] = lambda: None  # the relay's, which follows every answer

    def holds(self, operator: str, message_id: bytes) -> bool:
        return (operator, message_id) in self.held

    def accept(self, report: Accepted, answer: Callable[[bool], None]) -> None:
        self.accepted.append(report)
        if self.at_once is None:
            self.answers.append(answer)
        else:
            answer(self.at_once)

    def answer(self, durable: bool = True) -> None:
        self.answers.pop(0)(durable)
        self.wrap_up()

    def answered(self, trace: str, status: int | None) -> None:
        self.late.append((trace, status))

    def gateway_bound(self, operator: str, gateway: str) -> None:
        self.bound.append(gateway)

    def gateway_gone(self, operator: str, gateway: str) -> None:
        self.bound.remove(gateway)

    def open_message(self, message) -> None:
        self.opened.append(message.message_id)


class World:
    """One operator, one node. `now` is moved by the test."""

    def __init__(
        self,
        *,
        auto_commit: bool = True,
        rule: Rule | None = Rule.EXACT,
        mo: Mo | None = None,
        alone: bool = True,
        roaming: bool = False,
        conversations: Conversations | None = None,
        store: Store | None = None,
        **settings,
    ) -> None:
        self.now = 1000.0
        settings = {"listen": {"gw1": Address("127.0.0.1", 0), "gw2": Address("127.0.0.1", 0)}, **settings}
        self.operator = Operator(name="acme", host="smsc", system_id="shop", password=Secret(b"secret"), **settings)
        self.store = MemoryStore(lambda: self.now, auto_commit=auto_commit) if store is None else store
        self.custody = Custody()
        self.learner = Learner(rule)
        mo = mo or Mo(conversation_s=0)
        self.conversations = Conversations(mo.conversation_s) if conversations is None else conversations
        self.relay = Relay(
            self.operator,
            self.store,
            self.custody,
            self.learner,
            routes=RouteLog("n1"),
            log=structlog.get_logger(),
            now=lambda: self.now,
            mo=MoRouting(self.operator, mo, self.conversations, alone=alone),
            roaming=roaming,
        )

        self.custody.wrap_up = self.relay.wrap_up

    @property
    def counters(self):
        return self.relay.counters

    def bind(self, name: str = "1", command: int = c.BIND_TRANSCEIVER_RESP) -> Bind:
        bind = self.relay.new_bind(Wire(), name)
        bind.session.responded(command, c.ESME_ROK)
        self.relay.bound(bind)
        return bind

    def session(self, gateway: str = "gw1", command: int = c.BIND_TRANSCEIVER_RESP) -> GatewaySession:
        session = self.relay.new_session(Wire(), gateway)
        session.session.responded(command, c.ESME_ROK)
        self.relay.bound(session)
        return session

    def submit(self, session: GatewaySession, *sequences: int, **fields) -> list[bytes]:
        """The gateway submits; what the proxy was given."""
        frames = [submit_sm(sequence, **fields) for sequence in sequences]
        self.relay.from_gateway(session, frames)
        return frames

    def deliver(self, gateway: str, message_id: bytes, pdu: bytes, done: Callable[[int | None], None]) -> bool:
        """As custody delivers."""
        taken = self.relay.hand_over.deliver(gateway, message_id, pdu, done)
        self.relay.wrap_up()
        return taken

    def open(self, session: GatewaySession, bind: Bind, message_id: bytes, sequence: int = 1, **fields) -> None:
        """An MT and its response, both done with."""
        self.submit(session, sequence, **fields)
        [request] = bind.connection.take()
        self.relay.from_operator(bind, [submit_sm_resp(sequence_of(request), message_id)])
        session.connection.take()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.relay.tick()

    async def look_up(self) -> None:
        await self.relay.look_up()


def sequence_of(frame: bytes) -> int:
    return struct.unpack_from(">I", frame, 12)[0]


def status_of(frame: bytes) -> int:
    return struct.unpack_from(">I", frame, 8)[0]


def command_of(frame: bytes) -> int:
    return struct.unpack_from(">I", frame, 4)[0]


def heads(frames: list[bytes]) -> list[tuple[str, int, int]]:
    """Command, status and sequence number of each."""
    return [(c.COMMAND_NAMES[command_of(f)], status_of(f), sequence_of(f)) for f in frames]


def submit_sm(sequence: int, destination: bytes = b"447700900001", **fields) -> bytes:
    fields = {"source": b"SHOP", "registered_delivery": 1, "short_message": b"hi", **fields}
    return pack(c.SUBMIT_SM, 0, sequence, Message(destination=destination, **fields).encode())


def submit_sm_resp(sequence: int, message_id: bytes = b"", status: int = 0) -> bytes:
    return pack(c.SUBMIT_SM_RESP, status, sequence, message_id + b"\0")


def receipt(sequence: int, message_id: bytes, stat: bytes = b"DELIVRD", source: bytes = b"447700900001") -> bytes:
    text = b"id:%b sub:001 dlvrd:001 submit date:2401010000 done date:2401010001 stat:%b err:000 text:" % (
        message_id,
        stat,
    )
    body = Message(source=source, destination=b"SHOP", esm_class=c.ESM_RECEIPT, short_message=text)
    return pack(c.DELIVER_SM, 0, sequence, body.encode())


def mo(sequence: int, text: bytes = b"WIN", **fields) -> bytes:
    fields = {"source": b"4477", "destination": b"7000", **fields}
    return pack(c.DELIVER_SM, 0, sequence, Message(short_message=text, **fields).encode())


def deliver_sm_resp(sequence: int, status: int = 0) -> bytes:
    return pack(c.DELIVER_SM_RESP, status, sequence, b"\0")
