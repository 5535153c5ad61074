"""Everything that an operator and gateways can send, in any order: the relay's synchronous core, `dlrproxy.relay`.

The world is that of the relay's own tests (tests/relay_world.py): connections are lists, the store is memory. Time
passes, commits are made, custody answers and links end when the input says so.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from relay_world import Wire, World, deliver_sm_resp, receipt, sequence_of, submit_sm, submit_sm_resp

from dlrproxy.config.tables import Mo, MoRule
from dlrproxy.sessions.links import Bind, GatewaySession
from dlrproxy.store.port import Lookup, OpenMessage
from fuzz import pdus
from protocols.smpp import constants as c
from protocols.smpp.framing import split_until_error
from protocols.smpp.message_ids import Rule
from protocols.smpp.pdu import pack
from protocols.smpp.session import WITHOUT_RESPONSE

# What a step does; the low three bits of its first byte, the rest says to which link. What a link receives comes as it
# is, or as PDUs whose headers are made right, so that not every change to an input ends in a bad length.
STREAM, PDU, TICK, COMMIT, CUSTODY, LOSE, DELIVER, LOOK_UP = range(8)

_MOST_STEPS: Final = 100
_RULES: Final = (Rule.EXACT, None, Rule.HEX_DECIMAL, Rule.ZEROS)
_COMMANDS: Final = (*sorted(c.COMMAND_NAMES), 0x00010201, 0x80010201)
# A bind and a session of every kind. With an odd second byte the first bind is a transmitter.
_BINDS: Final = (c.BIND_TRANSCEIVER_RESP, c.BIND_RECEIVER_RESP)
_SESSIONS: Final = (
    ("gw1", c.BIND_TRANSCEIVER_RESP),
    ("gw1", c.BIND_RECEIVER_RESP),
    ("gw2", c.BIND_TRANSMITTER_RESP),
    ("gw2", c.BIND_TRANSCEIVER_RESP),
)
# With the second byte's highest bit: MO go by rule and conversation, too, and reports by the id that was submitted.
_RING: Final = {
    "mo": Mo(
        rules=(MoRule(destination="7000", keyword="WIN", gateway="gw2"), MoRule(destination="7001", gateway="gw3"))
    ),
    "alone": False,
    "receipt_id": "as-submitted",
}
_ROUNDS: Final = 20  # of settling; more than a report can need


def check(data: bytes) -> None:
    """Whatever arrives: no error, only whole PDUs go out, and every request is answered once and never twice.

    Two bytes choose the settings. Then steps: what to do and to which link, a length of two bytes, and as many bytes.
    """
    if len(data) < 2:
        return
    scene = _Scene(data[0], data[1])
    rest = data[2:]
    for _ in range(_MOST_STEPS):
        if len(rest) < 3:
            break
        size = int.from_bytes(rest[1:3], "big")
        scene.step(rest[0], rest[3 : 3 + size])
        rest = rest[3 + size :]
    scene.finish(binds_first=bool(data[1] & 64))


class _End:
    """A link's other end: what it sent, and what is left of its last receive. One that has ended comes up again."""

    def __init__(self, receive: Callable[..., None], open_link: Callable[[], Bind | GatewaySession]) -> None:
        self._receive = receive
        self._open_link = open_link
        self.come_up()

    def come_up(self) -> None:
        self.link = self._open_link()
        self.wire: Wire = self.link.connection
        self.asked: Counter[int] = Counter()
        self._rest = b""

    def send(self, data: bytes) -> None:
        """As the readers in operators.py and gateways.py handle it."""
        frames, self._rest, error = split_until_error(self._rest + data)
        if frames:
            self.asked.update(sequence_of(frame) for frame in frames if _wants_answer(frame))
            self._receive(self.link, frames)
        if error is not None and self.wire.ended is None:
            assert str(error)
            self.link.put(pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0))
            self.link.flush()
            self.wire.end("unreadable_stream")

    def check(self) -> None:
        """Nothing was answered that was not asked, nor twice; and all was, if there is somebody to be answered."""
        given = Counter(sequence_of(frame) for frame in self.wire.sent if _is_answer(frame))
        assert given <= self.asked, (given, self.asked)
        assert given == self.asked or self.wire.ended is not None, (given, self.asked)


def _wants_answer(frame: bytes) -> bool:
    command = int.from_bytes(frame[4:8], "big")
    return not command & c.RESPONSE_BIT and command not in WITHOUT_RESPONSE


def _is_answer(frame: bytes) -> bool:
    command, status = frame[4:8], frame[8:12]
    our_nack = pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0)
    return bool(command[0] & 0x80) and command + status + frame[12:] != our_nack[4:]


class _Scene:
    """A relay, its operator and its gateways."""

    def __init__(self, settings: int, more: int) -> None:
        world = self.world = World(
            auto_commit=bool(settings & 1),
            rule=_RULES[settings >> 1 & 3],
            receipt_text=bool(settings & 8),
            observe=bool(settings & 16),
            on_temporary_error="retry_status" if settings & 32 else "custody",
            track="requested" if settings & 64 else "all",
            no_bind="close" if settings & 128 else "status",
            window=1 if more & 2 else 10,
            gateway_window=1 if more & 4 else 100,
            max_per_s=5.0 if more & 8 else None,
            response_s=10.0 if more & 16 else 60.0,
            **(_RING if more & 128 else {}),
        )
        self.relay = world.relay
        world.store.find = self._find
        world.custody.watching = bool(more & 32)
        binds = (c.BIND_TRANSMITTER_RESP, c.BIND_RECEIVER_RESP) if more & 1 else _BINDS
        self.binds = [self._bind(command) for command in binds]
        self.sessions = [self._session(*session) for session in _SESSIONS]
        self._durable: list[bool] = []  # custody's answers, in the order of what it was given
        self._deliveries: list[list[int | None]] = []

    def _bind(self, command: int) -> _End:
        return _End(self.relay.from_operator, lambda: self.world.bind("1", command))

    def _session(self, gateway: str, command: int) -> _End:
        return _End(self.relay.from_gateway, lambda: self.world.session(gateway, command))

    async def _find(self, lookups: Sequence[Lookup]) -> list[list[OpenMessage]]:
        """The store's `find`, which does not give way to other tasks, for there are none."""
        store = self.world.store
        return [store._find(lookup, self.world.now) for lookup in lookups]

    # Steps

    def step(self, code: int, data: bytes) -> None:
        ends = self.binds + self.sessions
        end = ends[(code >> 3) % len(ends)]
        match code & 7:
            case 0 | 1 as kind:
                if not end.link.alive:
                    end.come_up()
                end.send(data if kind == STREAM else _packed(data))
            case 2:
                self.world.tick((data[0] if data else 1) / 16)
            case 3:
                self.world.store.commit()
            case 4:
                self._answer_custody(durable=not data)
            case 5:
                self._lose(end)
            case 6:
                self._deliver(_SESSIONS[len(data) % len(_SESSIONS)][0], data)
            case _:
                self._look_up()
        for each in ends:
            if each.wire.ended is not None:
                self._lose(each)

    def _answer_custody(self, *, durable: bool) -> None:
        if self.world.custody.answers:
            self._durable.append(durable)
            self.world.custody.answer(durable)

    def _lose(self, end: _End) -> None:
        if end.link.alive:
            end.wire.end("lost")
            self.relay.lost(end.link)
            end.check()

    def _deliver(self, gateway: str, message_id: bytes) -> None:
        heard: list[int | None] = []
        if self.relay.hand_over.deliver(gateway, message_id, receipt(1, message_id[:60]), heard.append):
            self._deliveries.append(heard)
        else:
            assert not heard

    def _look_up(self) -> None:
        looking = self.relay.look_up()
        try:
            looking.send(None)
        except StopIteration:
            return
        raise AssertionError("it waits for something")

    # The end

    def finish(self, *, binds_first: bool) -> None:
        """Lose one side, and everything else is answered; lose the other, and nothing is left."""
        sides = (self.binds, self.sessions) if binds_first else (self.sessions, self.binds)
        for lost, left in (sides, reversed(sides)):
            for end in lost:
                self._lose(end)
            self._settle()
            for end in left:
                if end.link.alive:
                    end.check()
        self._check_nothing_left()

    def _settle(self) -> None:
        """Everything that takes time happens: the disk, custody, lookups, the race window."""
        for _ in range(_ROUNDS):
            self.world.store.commit()
            while self.world.custody.answers:
                self._answer_custody(durable=True)
            self._look_up()
            self.world.tick(0.3)
            if not self.relay.in_flight:
                return

    def _check_nothing_left(self) -> None:
        relay, custody = self.relay, self.world.custody
        assert relay.in_flight == 0
        arrivals = relay._arrivals
        assert not arrivals._lines
        assert not arrivals._next
        assert not arrivals.seeking._awaited
        assert not relay._responses._following
        assert not custody.bound
        assert all(len(heard) == 1 for heard in self._deliveries), self._deliveries
        expected = [
            accepted.trace
            for accepted, durable in zip(custody.accepted, self._durable, strict=True)
            if durable and accepted.session is not None
        ]
        assert sorted(trace for trace, _ in custody.late) == sorted(expected)


def _packed(data: bytes) -> bytes:
    """PDUs from compact ones: which command, status, sequence number, the body's length, the body."""
    frames = []
    while len(data) >= 4:
        command, status, sequence, size = data[:4]
        frames.append(pack(_COMMANDS[command % len(_COMMANDS)], status, sequence, data[4 : 4 + size]))
        data = data[4 + size :]
    return b"".join(frames)


# Seeds

_BIND, _RECEIVER_BIND, _SESSION, _RECEIVER, _TRANSMITTER, _OTHER = range(6)


def _step(kind: int, end: int = 0, data: bytes = b"") -> bytes:
    return bytes((kind | end << 3,)) + len(data).to_bytes(2, "big") + data


def _stream(end: int, *frames: bytes) -> bytes:
    return _step(STREAM, end, b"".join(frames))


def seeds() -> Iterator[bytes]:
    opened = _stream(_SESSION, submit_sm(9)) + _stream(_BIND, submit_sm_resp(1, b"id1"))
    report, answer = _stream(_BIND, receipt(5, b"id1")), _stream(_SESSION, deliver_sm_resp(1))
    yield b"\1\0" + opened + report + answer
    yield b"\1\1" + _stream(_TRANSMITTER, submit_sm(9)) + opened + report + _step(TICK, 0, b"\2") + answer
    yield b"\0\0" + opened + report + _step(COMMIT) + answer
    yield (
        b"\1\0" + _stream(_SESSION, submit_sm(9)) + report + _step(LOOK_UP) + _stream(_BIND, submit_sm_resp(1, b"id1"))
    )
    yield b"\1\0" + opened + report + _step(TICK, 0, b"\x40") + _step(CUSTODY) + answer
    yield b"\1\0" + opened + report + _stream(_SESSION, deliver_sm_resp(1, c.ESME_RX_T_APPN)) + _step(CUSTODY)
    yield b"\1\0" + opened + report + _step(LOSE, _SESSION) + _step(CUSTODY, 0, b"no") + opened
    yield b"\3\0" + opened + _stream(_BIND, receipt(5, b"ID1")) + _step(LOOK_UP) + _step(CUSTODY)
    yield b"\1\2" + _stream(_SESSION, *(submit_sm(n) for n in range(3))) + _step(LOSE, _BIND)
    yield b"\1\6" + _stream(_RECEIVER_BIND, receipt(1, b"x"), receipt(2, b"x"), receipt(3, b"y")) + _step(LOOK_UP)
    yield b"\1\0" + _step(DELIVER, 0, b"id1") + opened + _step(DELIVER, 0, b"id1") + answer
    yield b"\x09\0" + b"".join(_stream(_BIND, frame) for frame in list(pdus.deliveries())[-10:]) + _step(LOOK_UP)
    mobile = b"".join(_stream(_BIND, frame) for frame in list(pdus.deliveries())[-23:])
    yield b"\1\x80" + mobile + _step(CUSTODY) + _step(LOOK_UP)
    hexadecimal = _stream(_SESSION, submit_sm(9)) + _stream(_BIND, submit_sm_resp(1, b"38601fa"))
    yield b"\5\x80" + hexadecimal + _stream(_BIND, receipt(5, b"0059113978")) + _step(LOOK_UP) + answer
    every = bytes(range(len(_COMMANDS)))
    for end in (_BIND, _SESSION):
        yield b"\1\0" + _step(PDU, end, b"".join(bytes((command, 0, command, 0)) for command in every))
    for frame, response_id in pdus.receipts():
        yield (
            b"\5\0"
            + _stream(_SESSION, submit_sm(1))
            + _stream(_BIND, submit_sm_resp(1, response_id), frame)
            + _step(LOOK_UP)
            + _step(CUSTODY)
        )
