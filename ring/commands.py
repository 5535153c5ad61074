"""What the custody machine asks of whoever drives it. Values only: a test asserts on them, a driver carries them out.

The driver carries the commands out in the order in which they were given. What it answers with is a call on
`ring.custody.Custody` (named in each docstring), now or at any later time.
"""

from enum import Enum, StrEnum
from typing import Literal

import msgspec

from protocols.peer.frames import Envelope, EnvelopeKey, Frame


class Table(StrEnum):
    """The two tables of rows that the machine keeps."""

    CUSTODY = "custody"
    PARKED = "parked"


class Row(msgspec.Struct, frozen=True, gc=False):
    """One change of one row; `value` None deletes it.

    In a cluster a row of custody may go into the `inbox` of another node, and is taken out of this node's own.
    """

    table: Table
    key: bytes
    value: bytes | None
    inbox: str = ""  # the node


class Write(msgspec.Struct, frozen=True, gc=False):
    """Make these rows durable, all or none; then call `durable(ticket)`. Writes become durable in the order given."""

    rows: tuple[Row, ...]
    ticket: int


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send the frame to that node if the link is up. It may be lost: the machine repeats what matters."""

    to: str
    frame: Frame


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Look for the owner at this node; then call `asked(key, finding)`.

    `inexact` allows a match by a rule that has not been learned yet. What is not sought (`Envelope.is_sought`: an MO,
    or what a person sends to this node) goes to its `envelope.gateway` if that is bound here; without one, to the bound
    gateway in conversation with its sender, or with `inexact` to any bound one.
    """

    envelope: Envelope
    inexact: bool
    only_finished: bool = False  # in a cluster, of an intermediate report whose owner is known: has a final one been?


class Finding(msgspec.Struct, frozen=True, gc=False):
    """The answer to `Ask`."""

    gateway: str  # its owner is this gateway of ours
    exact: bool  # by the exact id, or by a pinned or learned rule
    finished: bool = False  # a final report has been delivered already
    taking: bool = True  # False: the store takes no writes now


class Recall(msgspec.Struct, frozen=True, gc=False):
    """Read the parked row of this key; then call `recalled(key, row)`."""

    key: EnvelopeKey


class Collect(msgspec.Struct, frozen=True, gc=False):
    """Read the inbox of this node; then call `arrived(rows)`."""


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Write it to a session of that gateway, and later call `answered(key, status)`.

    Or at once: `unsent(key)`, `put_off(key)`, `superseded(key)`.
    """

    envelope: Envelope
    gateway: str
    reported_at: float  # when its operator brought it, or before; seconds on the node's clock


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The row is durable: answer the operator ESME_ROK."""

    key: EnvelopeKey


class Closed(msgspec.Struct, frozen=True, gc=False):
    """A final report was delivered: the open message is finished, but not another one that has its id since."""

    envelope: Envelope
    reported_at: float  # when its operator brought it; seconds on the node's clock


class Reason(Enum):
    """Why something was parked. The same words in events, counters and documents (promise 7)."""

    UNCLAIMED = "unclaimed"  # every node has answered after claim_for_s: nobody owns it
    OWNER_UNREACHABLE = (
        "owner_unreachable"  # time is over, and some node has not answered, or its gateway was not bound
    )
    REFUSED = "refused"  # the gateway answered with a permanent error
    ORIGIN_LOST = "origin_lost"  # it waited for a grant, and its origin came back with another data directory
    ORIGIN_REMOVED = "origin_removed"  # it was claimed from a node that is configured no more, before that let go
    NO_MESSAGE_ID = "no_message_id"  # a report that names no message, with no gateway to take it
    MAYBE_DELIVERED = "maybe_delivered"  # its node was taken over from while a gateway had it, or was about to get it


EventName = Literal[
    "received",
    "forwarded",
    "crossed",
    "waiting",
    "claimed",
    "claim_refused",
    "settled",
    "handed_on",
    "inherited",
    "delivered",
    "superseded",
    "retried",
    "parked",
    "parking_full",
    "replayed",
    "dropped",
    "busy",
    "gathered",
    "split",
    "moved",
    "arrived",
    "arrived_again",
    "stood_in",
]


class Note(msgspec.Struct, frozen=True, gc=False):
    """A route event. `fields` are JSON values."""

    event: EventName
    envelope: Envelope
    lap: int = 0
    hop: int = 0
    fields: tuple[tuple[str, str | int | float | bool], ...] = ()


Command = Write | Send | Ask | Recall | Collect | Deliver | Accepted | Closed | Note
