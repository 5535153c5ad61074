"""One connection with an operator, from its first byte to its end: bind, hand on what arrives, unbind.

Who made the connection makes no difference here: `operators.py` dials, `outbind.py` is dialled.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

import trio
from attrs import define
from structlog.typing import FilteringBoundLogger

from dlrproxy.config.operator import Operator
from dlrproxy.relay import Relay
from dlrproxy.sessions.connection import Connection, Incoming, converse
from dlrproxy.sessions.last_binds import LastBinds
from dlrproxy.sessions.links import Bind
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, FramingError
from protocols.smpp.pdu import Bind as BindBody
from protocols.smpp.pdu import pack, response_id
from protocols.smpp.session import WITHOUT_RESPONSE, Side, response_to

UNBIND_S: Final = 3.0  # how long the operator has to answer unbind, and what is outstanding before it

# The account is wrong, blocked, or bound too often: trying again soon makes it worse.
REFUSALS: Final = frozenset({c.ESME_RBINDFAIL, c.ESME_RINVPASWD, c.ESME_RINVSYSID, c.ESME_RALYBND})


# After a crash or a cut line the operator holds our dead session until its own timers, of a minute or two as a rule.
HELD_WAIT_S: Final = 30.0
HELD_TRIES: Final = 3


class Ending(Enum):
    """How one attempt at a bind ended."""

    UNREACHABLE = auto()
    REFUSED = auto()  # by one of REFUSALS
    HELD = auto()  # refused with ESME_RALYBND: it may be a session of ours that the operator has not given up yet
    FAILED = auto()  # connected, and not bound
    LOST = auto()  # was bound


@define(eq=False)
class Slot:
    """One bind that is to be up, and what is known of its attempts."""

    name: str
    command: int
    host: int = 0  # index of the address to try next
    failures: int = 0  # attempts in a row that ended in no stable bind
    held: int = 0  # ESME_RALYBND in a row
    not_before: float = 0.0  # trio's clock: rebind_wait_s after the last bind ended
    address: str = ""  # bound at, or tried last
    bind: Bind | None = None  # while it is up
    since: float | None = None  # trio's clock: when it came up, or was last up
    why: str = "not tried yet"  # it is not up


def refused_wait_s(operator: Operator, ending: Ending) -> float:
    """The least wait after REFUSED or HELD."""
    if ending is Ending.HELD:
        return min(operator.refused_bind_s, max(operator.rebind_wait_s, HELD_WAIT_S))
    return operator.refused_bind_s


# What precedes our bind on a connection: gives the PDUs that came behind it in one receive; None: it was refused, and
# the connection has been ended.
Introduction = Callable[[Bind, Incoming], Awaitable[Sequence[bytes] | None]]


class Attempt:
    """Run it once."""

    def __init__(
        self,
        relay: Relay,
        slot: Slot,
        connection: Connection,
        log: FilteringBoundLogger,
        last_binds: LastBinds | None,
        introduction: Introduction | None = None,
    ) -> None:
        """Without `last_binds` nobody waits after the end of this one."""
        self._relay = relay
        self._operator = relay.operator
        self._slot = slot
        self._connection = connection
        self._log = log
        self._last_binds = last_binds
        self._introduction = introduction
        self._bind = relay.new_bind(connection, slot.name)
        self._incoming = Incoming(connection)
        self._ending = Ending.FAILED
        self._refusal = ""

    async def run(self) -> Ending:
        """Until the connection is gone. Cancelled, it unbinds first, in a bounded time."""
        slot = self._slot
        slot.why = "not bound yet"
        try:
            await converse(self._connection, self._read, partial(self._relay.lost, self._bind))
        finally:
            reason = self._connection.ended or "node_stops"
            if slot.bind is not None:
                slot.bind, slot.since = None, trio.current_time()
                if self._last_binds is not None:
                    self._last_binds.ended(slot.name)
            slot.why = self._refusal or reason
            self._log.warning("operator.bind_ended", reason=reason)
        return self._ending

    async def _read(self) -> None:
        bind, connection = self._bind, self._connection
        try:
            behind = await self._introduction(bind, self._incoming) if self._introduction is not None else ()
            if behind is None:
                return
            bind.put(self._request())
            self._relay.wrap_up()
            frames = await self._until_bound(behind)
            while frames or (frames := await self._incoming.next()):
                self._relay.from_operator(bind, frames)
                frames = []
        except FramingError as error:
            self._relay.counters.unreadable_stream += 1
            self._log.warning("operator.unreadable_stream", error=str(error))
            bind.put(pack(c.GENERIC_NACK, c.ESME_RINVCMDLEN, 0))
            bind.flush()
            connection.end("unreadable_stream")
        except trio.Cancelled:
            if connection.ended is None and bind.session.bound:
                await self._unbind()
            raise

    def _request(self) -> bytes:
        operator = self._operator
        body = BindBody(
            operator.system_id.encode(),
            operator.password.reveal(),
            operator.system_type.encode(),
            operator.interface_version_octet,
            operator.addr_ton,
            operator.addr_npi,
            operator.address_range.encode(),
        )
        return pack(self._slot.command, c.ESME_ROK, self._bind.window.next_sequence(), body.encode())

    async def _until_bound(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Wait for the bind_resp, first in `frames`. What came behind it in one receive; nothing when all is over."""
        expected = response_to(self._slot.command)
        while frames or (frames := await self._incoming.next()):
            for at, frame in enumerate(frames):
                _, command, status, sequence = HEADER.unpack_from(frame)
                if command == expected and status == c.ESME_ROK:
                    self._bound(frame, command)
                    return frames[at + 1 :]
                if command in (expected, c.GENERIC_NACK):
                    self._refused(status)
                    return ()
                if self._bind.control(Side.SMSC, command, status, sequence) or command & c.RESPONSE_BIT:
                    continue
                self._relay.counters.refused_state += 1
                if command not in WITHOUT_RESPONSE:
                    self._bind.put(pack(response_to(command), c.ESME_RINVBNDSTS, sequence))
            self._relay.wrap_up()
            frames = ()
        return ()

    def _bound(self, frame: bytes, command: int) -> None:
        self._ending = Ending.LOST
        # The body may be missing or have TLVs that do not parse: only its start is looked at.
        self._relay.system_id = response_id(frame)[:15]
        self._bind.session.responded(command, c.ESME_ROK)
        self._relay.bound(self._bind)
        slot = self._slot
        slot.bind, slot.since, slot.why, slot.held = self._bind, trio.current_time(), "", 0
        if self._last_binds is not None:
            self._last_binds.up([slot.name])
        self._log.info("operator.bound", as_=c.COMMAND_NAMES[self._slot.command])

    def _refused(self, status: int) -> None:
        name = c.STATUS_NAMES.get(status, f"{status:#010x}")
        self._refusal = self._slot.why = f"refused: {name}"
        if status in REFUSALS:
            self._ending = self._judge(status)
            self._relay.counters.bind_refusals += 1
            self._log.error("operator.bind_refused", status=name, wait_s=refused_wait_s(self._operator, self._ending))
        else:
            self._log.warning("operator.bind_failed", status=name)
        self._connection.end("bind_refused")

    def _judge(self, status: int) -> Ending:
        slot = self._slot
        slot.held = slot.held + 1 if status == c.ESME_RALYBND else 0
        return Ending.HELD if 0 < slot.held <= HELD_TRIES else Ending.REFUSED

    async def _unbind(self) -> None:
        """The bounded goodbye of a bind that is released: what the operator still sends is handled."""
        bind = self._bind
        with trio.CancelScope(shield=True, deadline=trio.current_time() + UNBIND_S):
            bind.retiring = True
            bind.put(pack(c.UNBIND, c.ESME_ROK, bind.window.next_sequence()))
            self._relay.wrap_up()
            try:
                while self._connection.ended is None and (frames := await self._incoming.next()):
                    self._relay.from_operator(bind, frames)
            except FramingError:
                self._connection.end("unreadable_stream")
