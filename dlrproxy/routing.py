"""What to do with a report or an MO from the operator. Pure: every decision is a value, from values given to it.

report   unanswered earlier report of its message     queue behind it                    (reports/arrivals.py)
         its message is known here                    `matched`: PASS or SWALLOW
         it is, and its gateway is not bound here     `without_session`: ANSWER or KEEP
         it is not                                    `unmatched`: LOCAL or KEEP
         it names no message                          `placed_locally`: LOCAL or KEEP
MO                                                    `placed_locally`: LOCAL or KEEP
and when the gateway has answered, or has not         `after_answer`: RELAY, KEEP or RETRY
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Literal, Protocol, TypeVar

from protocols.smpp.constants import TEMPORARY


class Step(Enum):
    PASS = auto()  # to a session of the gateway that owns the message
    LOCAL = auto()  # to a session of a gateway of this node
    KEEP = auto()  # custody; the operator is answered ESME_ROK once it is durable
    SWALLOW = auto()  # answer ESME_ROK and deliver nothing: nothing intermediate follows a final report (promise 4)
    RELAY = auto()  # the gateway's answer to the operator, as it is
    RETRY = auto()  # the operator is answered retry_status
    ANSWER = auto()  # as when the gateway has not answered (`after_answer`)


def matched(*, final: bool, finished: bool) -> Step:
    """Its message is an open message of this node. `finished`: a final report of it was delivered."""
    return Step.SWALLOW if finished and not final else Step.PASS


def unmatched(*, observe: bool) -> Step:
    """No open message of this node is meant, and none is to come."""
    return Step.LOCAL if observe else Step.KEEP


def without_session(*, bound: bool, roaming: bool) -> Step:
    """No session takes it, and its gateway is `bound` here or not. `roaming`: it may be bound at another node."""
    return Step.KEEP if roaming and not bound else Step.ANSWER


def placed_locally(*, bound: bool) -> Step:
    """An MO, or a report that names no message: a gateway of this node takes it if one is bound to receive."""
    return Step.LOCAL if bound else Step.KEEP


def after_answer(status: int | None, on_temporary_error: Literal["custody", "retry_status"]) -> Step:
    """`status` None: no answer in time, no session, or none with window room."""
    if status is not None and status not in TEMPORARY:
        return Step.RELAY
    return Step.KEEP if on_temporary_error == "custody" else Step.RETRY


class Receiver(Protocol):
    """A session that may take a deliver_sm."""

    @property
    def gateway(self) -> str: ...

    @property
    def has_room(self) -> bool: ...


R = TypeVar("R", bound=Receiver)


def choose(gateway: str, submitter: R | None, receivers: Iterable[R]) -> R | None:
    """The session that a report of `gateway`'s goes to: the one that submitted, else the first with room.

    A session's number may be one of an earlier run's, so that it only counts with the gateway's name.
    """
    if submitter is not None and submitter.has_room and submitter.gateway == gateway:
        return submitter
    for session in receivers:
        if session.has_room:
            return session
    return None
