"""What the relay and custody ask of each other: the contract between `relay.py` and `custody.py`.

Both sides run on one event loop, and every call here is synchronous but `find_owners`. A callback may come before the
call that it was given to has returned.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

from attrs import frozen

from dlrproxy.store.port import OpenMessage
from protocols.peer.frames import PartOf
from protocols.smpp.message_ids import Verdict


@frozen
class Accepted:
    """A report or MO that the relay wants kept, before the operator is answered ESME_ROK."""

    operator: str
    kind: Literal["dlr", "mo"]
    message_id: bytes  # as reported; empty for an MO, and for a report that names no message
    destination: bytes  # digits: a report's source_addr (the handset, the MT's destination), an MO's destination_addr
    pdu: bytes  # the deliver_sm or data_sm, byte for byte
    final: bool  # nothing follows this report
    trace: str
    owner: str | None = None  # the gateway of this node that it is for; None: to be resolved by the mode
    designated: str = ""  # for this gateway, wherever it is bound: an MO; in a cluster, a report of its message
    part: PartOf | None = None  # one part of a concatenated MO: it goes where all its parts go
    session: int | None = (
        None  # it is unanswered on this session: not sent again until `Custody.answered` tells its end
    )


class Custody(Protocol):
    """Custody, as the relay of one operator sees it."""

    @property
    def watching(self) -> bool:
        """True while a new open message could own something that passed by: only then is `open_message` called."""

    def holds(self, operator: str, message_id: bytes) -> bool:
        """A report of this reported id is in custody here: what follows it must queue behind it. Cheap."""

    def accept(self, report: Accepted, answer: Callable[[bool], None]) -> None:
        """Write it down. `answer(True)` once it is durable; `answer(False)` if it is refused (quota, store), and then
        nothing of it is kept. Exactly one of the two is called, once; `Deliveries.wrap_up` follows."""

    def answered(self, trace: str, status: int | None) -> None:
        """What became of an accepted report that was unanswered on a session: the late answer, or None when that
        session ended without one. Called once, and only after `answer(True)`."""

    def gateway_bound(self, operator: str, gateway: str) -> None:
        """Its first session that takes deliver_sm is bound."""

    def gateway_gone(self, operator: str, gateway: str) -> None:
        """Its last session that takes deliver_sm has ended."""

    def open_message(self, message: OpenMessage) -> None:
        """A new open message. What custody writes on the strength of it becomes durable after the submit_sm_resp was
        released, so that a report delivered then follows its response."""


@frozen
class Wanted:
    """A report whose owner is looked for, for another node or after a wait."""

    message_id: bytes  # as reported
    destination: bytes  # digits of the subscriber that it is about


class Deliveries(Protocol):
    """The relay of one operator, as custody sees it."""

    def bound_gateways(self) -> Collection[str]:
        """The gateways of this node with a session that takes deliver_sm, in the order of the configuration."""

    def wrap_up(self) -> None:
        """Send what was written since; custody calls it once for all that it has delivered and answered at a time."""

    def under_way(self, message_id: bytes) -> bool:
        """A report of this id from the operator is being passed to a gateway and is not answered for yet."""

    def finished(self, message_id: bytes) -> bool:
        """A final report of this id has been delivered, as far as memory knows: nothing intermediate may follow."""

    def deliver(
        self, gateway: str, message_id: bytes, pdu: bytes, done: Callable[[int | None], None], *, age_s: float = 0.0
    ) -> bool:
        """Write it to a session of that gateway, the submitting one where that is possible; `wrap_up` sends it.

        False: none is bound, or none has window room; nothing was done. True: `done` is called once, with the gateway's
        command_status, or with None when the session ended without an answer. A report whose submit_sm_resp has not
        been written, or only just, is held back for as long as that takes. `age_s`: it was reported so long ago, at
        least.
        """

    def conversing(self, pdu: bytes) -> str | None:
        """The gateway of this node that last sent to the sender of this MO from the number that it was sent to."""

    async def find_owners(self, wanted: Sequence[Wanted]) -> list[Verdict[OpenMessage]]:
        """Which open message of this node each one means, under the rule in force. Raises StoreError."""

    def close(self, message: OpenMessage) -> None:
        """A final report of it was delivered from custody: nothing intermediate may follow."""
