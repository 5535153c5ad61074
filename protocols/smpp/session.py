"""The states of an SMPP session, and which requests each side may send in them (SMPP 3.4 2.2 and 2.3).

`Session` does not know which side it plays: it is shown what passes, whoever sent it, and asked whether the ESME or the
SMSC may send a request now.

    OPEN        connected, not bound
    BOUND_TX    the ESME may submit
    BOUND_RX    the SMSC may deliver
    BOUND_TRX   both
    UNBOUND     one side has unbound; nothing but the end of the connection follows
    CLOSED      the connection is gone

         bind_*_resp ok             unbind_resp             closed()
    OPEN --------------> BOUND_* ----------------> UNBOUND ----------> CLOSED      (closed() from any state)
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from protocols.smpp import constants as c


class State(Enum):
    OPEN = "open"
    BOUND_TX = "bound_tx"
    BOUND_RX = "bound_rx"
    BOUND_TRX = "bound_trx"
    UNBOUND = "unbound"
    CLOSED = "closed"


class Side(Enum):
    """Who sends a request."""

    ESME = "esme"
    SMSC = "smsc"


class LocalProtocolError(Exception):
    """We sent, or said that we had seen, what the session's state rules out: a bug of ours."""


_NEVER: Final[frozenset[State]] = frozenset()
_OPEN: Final = frozenset({State.OPEN})
_TRANSMITTING: Final = frozenset({State.BOUND_TX, State.BOUND_TRX})
_RECEIVING: Final = frozenset({State.BOUND_RX, State.BOUND_TRX})
BOUND: Final = _TRANSMITTING | _RECEIVING

# States in which the ESME, and in which the SMSC, may send a request. An unknown command (vendors have their own) may
# be sent by either while bound.
_MAY_SEND: Final[Mapping[int, tuple[frozenset[State], frozenset[State]]]] = MappingProxyType(
    {
        c.BIND_TRANSMITTER: (_OPEN, _NEVER),
        c.BIND_RECEIVER: (_OPEN, _NEVER),
        c.BIND_TRANSCEIVER: (_OPEN, _NEVER),
        c.OUTBIND: (_NEVER, _OPEN),
        c.UNBIND: (BOUND, BOUND),
        c.ENQUIRE_LINK: (BOUND | _OPEN, BOUND | _OPEN),  # SMPP 5.0 2.4 allows it before the bind
        c.SUBMIT_SM: (_TRANSMITTING, _NEVER),
        c.SUBMIT_MULTI: (_TRANSMITTING, _NEVER),
        c.DATA_SM: (_TRANSMITTING, _RECEIVING),
        c.QUERY_SM: (_TRANSMITTING, _NEVER),
        c.CANCEL_SM: (_TRANSMITTING, _NEVER),
        c.REPLACE_SM: (_TRANSMITTING, _NEVER),
        c.BROADCAST_SM: (_TRANSMITTING, _NEVER),
        c.QUERY_BROADCAST_SM: (_TRANSMITTING, _NEVER),
        c.CANCEL_BROADCAST_SM: (_TRANSMITTING, _NEVER),
        c.DELIVER_SM: (_NEVER, _RECEIVING),
        c.ALERT_NOTIFICATION: (_NEVER, _RECEIVING),
    }
)
_UNKNOWN: Final = (BOUND, BOUND)

_BINDS_TO: Final = MappingProxyType(
    {
        c.BIND_TRANSMITTER_RESP: State.BOUND_TX,
        c.BIND_RECEIVER_RESP: State.BOUND_RX,
        c.BIND_TRANSCEIVER_RESP: State.BOUND_TRX,
    }
)

# Requests that no response follows (SMPP 3.4 4.1.7 and 4.12).
WITHOUT_RESPONSE: Final = frozenset({c.ALERT_NOTIFICATION, c.OUTBIND})


def response_to(command: int) -> int:
    """The command_id that answers a request; also for one that we do not know."""
    return command | c.RESPONSE_BIT


class Session:
    """One connection's state. `transmits` and `receives` say what the bound ESME may do; both are False unbound."""

    __slots__ = ("receives", "state", "transmits")

    def __init__(self) -> None:
        self.state = State.OPEN
        self.transmits = False
        self.receives = False

    @property
    def bound(self) -> bool:
        return self.transmits or self.receives

    def refusal(self, sender: Side, command: int) -> int:
        """ESME_ROK if `sender` may send this request now, else the status that answers it."""
        by_esme, by_smsc = _MAY_SEND.get(command, _UNKNOWN)
        if self.state in (by_esme if sender is Side.ESME else by_smsc):
            return c.ESME_ROK
        if command in c.BINDS and self.state in BOUND:
            return c.ESME_RALYBND
        return c.ESME_RINVBNDSTS

    def responded(self, command: int, status: int) -> None:
        """A bind_*_resp or unbind_resp has passed. Raises LocalProtocolError for a bind_resp in any state but OPEN."""
        if command in _BINDS_TO:
            if self.state is not State.OPEN:
                raise LocalProtocolError(f"{c.COMMAND_NAMES[command]} in state {self.state.value}")
            if status == c.ESME_ROK:
                self._enter(_BINDS_TO[command])
        elif command == c.UNBIND_RESP and self.state in BOUND:
            self._enter(State.UNBOUND)

    def closed(self) -> None:
        """The connection is gone."""
        self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        self.state = state
        self.transmits = state in _TRANSMITTING
        self.receives = state in _RECEIVING
