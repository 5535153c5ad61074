"""Judges a history: was anything lost, doubled, brought to the wrong gateway, or out of order?

It knows what was sent and who owns it, sees what gateways get and answer, and looks at the disks; it asks the machines
nothing. What is wrong is named by `Wrong`, at the moment at which it shows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from dlrproxy.store.port import Table
from protocols.smpp.constants import ESME_ROK, TEMPORARY
from ring.rows import decode_custody, decode_parked
from ring.settings import CustodySettings
from simulation.cases import Case, Delivery, Message
from simulation.disk import Change
from simulation.history import Event
from simulation.host import Crash
from simulation.operator import Sent
from simulation.parts import Parts
from simulation.traffic import OPERATOR
from simulation.wrong import FoundError, Wrong

_CLOCKS_DIFFER_S: Final = 4.5  # simulation/node.py: two seconds either way


@frozen
class Expected:
    """What the checker must know of the world besides its history."""

    settings: CustodySettings
    lossy: bool  # the network loses single frames
    lap_s: float  # what was known before a lap that ends now began is older than this
    notice_s: float  # two nodes that reach each other for so long have heard what each had to say


class Checker:
    def __init__(self, expected: Expected) -> None:
        self._settings = expected.settings
        self._lossy = expected.lossy
        self._lap_s = expected.lap_s
        self._policy = expected.settings.policy(OPERATOR)
        self._now = 0.0
        self.cases: dict[str, Case] = {}
        self._of_message: dict[bytes, list[Case]] = defaultdict(list)  # in the order of sending
        self._submitted: dict[bytes, Message] = {}
        self._at: dict[tuple[str, Table, bytes], Case] = {}
        self._retired: set[str] = set()
        self._wiped: set[str] = set()
        self._taken: set[str] = set()
        self._jumped = False
        self._parts = Parts(0.9 * expected.settings.decision_for_s, expected.notice_s)
        self._overtaken: list[tuple[Case, Case]] = []  # by the first the second, it seems

    def saw(self, event: Event) -> None:
        self._now = event.at
        match event.what:
            case "sent":
                self._sent(event)
            case "submitted":
                self._submitted[event.trace.encode()] = Message(event.node)
            case "responded":
                self._submitted[event.trace.encode()].responded_at = event.at
            case "acknowledged":
                self._acknowledged(self.cases[event.trace])
            case "refused" | "unanswered":
                self.cases[event.trace].over = True
            case "got":
                self._got(self.cases[event.trace], event)
            case "answered":
                self._of_delivery(event).status = event.detail  # type: ignore[assignment]
            case "cut":
                self._of_delivery(event).excused = True
            case "crashed":
                self._crashed(event)
            case "replayed":
                self._replayed(self.cases[event.trace], event)
            case "dropped":
                self.cases[event.trace].dropped = True
            case "wiped":
                self._lost_directory(event.node)
            case "taken":
                self._taken_over(event.node)
            case "retired":
                self._retired.add(event.node)
            case "jumped":
                self._jumped = True
            case "reached":
                self._parts.reached(event.node, event.detail, event.at)  # type: ignore[arg-type]
            case "said":
                self._said(event)

    # What happens

    def _sent(self, event: Event) -> None:
        sent = event.detail
        if not isinstance(sent, Sent):
            raise TypeError(f"{sent!r} is no Sent")
        case = self.cases[event.trace] = Case(event.trace, len(self.cases), sent, event.node, event.at)
        if sent.arrival.message_id:
            self._of_message[sent.arrival.message_id].append(case)
        if sent.arrival.part is not None:
            self._parts.sent(case, sent.arrival.part.message)

    def _acknowledged(self, case: Case) -> None:
        case.acknowledged = True
        if not case.places and not self._accounted(case):
            raise FoundError(Wrong.ACKNOWLEDGED_TOO_EARLY, case.trace, "on no disk and not delivered")

    def _of_delivery(self, event: Event) -> Delivery:
        """The last one: an earlier one is over before the next begins, or that was found."""
        return self.cases[event.trace].deliveries[-1]

    def _got(self, case: Case, event: Event) -> None:
        gateway = str(event.detail)
        if not self._may_have(case, event.node, gateway):
            owner = case.sent.owner or "nobody in particular"
            raise FoundError(Wrong.MISDELIVERED, case.trace, f"at {gateway} of {event.node}; it is for {owner}")
        for before in case.deliveries:
            if not before.excused and before.status not in TEMPORARY:
                raise FoundError(
                    Wrong.DELIVERED_TWICE, case.trace, f"at {event.node}; before at {before.node}: {before.status}"
                )
        self._check_overtaken(case)
        case.deliveries.append(Delivery(event.node, gateway, event.at))
        if case.is_report and not case.replayed:
            self._check_order(case, event.node)

    def _may_have(self, case: Case, node: str, gateway: str) -> bool:
        arrival = case.sent.arrival
        if node in case.replayed_to:
            return True
        if case.is_report:
            if node == case.sent.owner:
                return True
            return self._policy.unclaimed == "local" and not self._certain(case) and self._is_old(case)
        if arrival.designated:
            return gateway == arrival.designated
        return case.replayed or all((one.node, one.gateway) == (node, gateway) for one in case.deliveries)

    def _certain(self, case: Case) -> bool:
        """Its owner is a gateway that knows of its message, and whose node has kept that and is still there."""
        message = self._submitted.get(self._response_id(case))
        if message is None or message.responded_at is None or message.responded_at > self._now - self._lap_s:
            return False
        return case.sent.owner not in self._retired | self._wiped

    def _response_id(self, case: Case) -> bytes:
        message_id = case.sent.arrival.message_id
        if message_id in self._submitted:
            return message_id
        return b"%x" % int(message_id) if message_id.isdigit() else message_id

    def _is_old(self, case: Case) -> bool:
        """Its time to be claimed is over, by the clock of its node, which a jump or another start may have moved."""
        return self._jumped or self._now - case.at >= self._least_age_s(case)

    def _least_age_s(self, case: Case) -> float:
        """Before it is given up. In a cluster its age is counted on by another node's clock."""
        cluster = self._settings.cluster
        if cluster is None:
            return 0.99 * self._settings.claim_for_s
        unmatched = case.is_report and not self._certain(case)
        return (cluster.unmatched_for_s if unmatched else self._settings.claim_for_s) - _CLOCKS_DIFFER_S

    def _check_order(self, case: Case, node: str) -> None:
        arrival = case.sent.arrival
        for other in self._of_message[arrival.message_id]:
            if other is case:
                continue
            if other.sent.arrival.final and not arrival.final and node == case.sent.owner:
                first = [one for one in other.deliveries if one.node == node and one.status == ESME_ROK]
                # A node that crashes while its wall clock is set back may repeat ten seconds of its own
                # (dlrproxy/housekeeping.py): the final report then seems older than its message.
                excused = self._jumped or self._by_policy(case) or any(one.excused or one.mark_lost for one in first)
                if first and not excused:
                    raise FoundError(Wrong.LATE_INTERMEDIATE, case.trace, f"after {other.trace}")
            same_bind = (other.origin, other.sent.bind) == (case.origin, case.sent.bind)
            if same_bind and other.number < case.number and not self._out_of_the_way(other):
                self._overtaken.append((case, other))  # unless it is being parked at this moment

    def _by_policy(self, case: Case) -> bool:
        """No node knows its message, so no disk has a mark of its final report: both have gone out by `unclaimed`."""
        message = self._submitted.get(self._response_id(case))
        return self._policy.unclaimed == "local" and (message is None or message.responded_at is None)

    def _check_overtaken(self, case: Case) -> None:
        """It is delivered now: what came before it must have waited for it."""
        for first, second in self._overtaken:
            if second is case and not second.parked and not (first.inherited or second.inherited):
                raise FoundError(Wrong.OVERTAKEN, first.trace, f"before {second.trace}")

    def _out_of_the_way(self, case: Case) -> bool:
        return (
            case.over
            or bool(case.parked)
            or any(delivery.settled for delivery in case.deliveries)
            or self._accounted(case)
        )

    def _crashed(self, event: Event) -> None:
        """What a gateway had answered, and the disk does not know yet, comes again; or, after a final report, what
        that should have kept back."""
        crash = event.detail
        if not isinstance(crash, Crash):
            raise TypeError(f"{crash!r} is no Crash")
        self._parts.reached(event.node, (), event.at)
        for trace in crash.held:
            for delivery in self.cases[trace].deliveries:
                if delivery.node == event.node:
                    delivery.excused = True
        for case in self.cases.values():
            if case.sent.arrival.final and self._response_id(case) in crash.unmarked:
                for delivery in case.deliveries:
                    delivery.mark_lost = delivery.mark_lost or delivery.node == event.node

    def _replayed(self, case: Case, event: Event) -> None:
        case.replayed = True
        for delivery in case.deliveries:
            delivery.excused = True
        if event.detail:
            case.replayed_to.add(event.node)

    def _lost_directory(self, node: str) -> None:
        self._wiped.add(node)
        for message in self._submitted.values():
            if message.gateway_node == node:
                message.responded_at = None
        for place in [place for place in self._at if place[0] == node]:
            case = self._at.pop(place)
            del case.places[place]
            case.gone_with_directory = True  # or its origin is letting go of it for this node at this moment

    def _taken_over(self, node: str) -> None:
        """What another one gets from it comes by a way of its own, and may be overtaken meanwhile."""
        self._taken.add(node)
        for place, case in self._at.items():
            case.inherited = case.inherited or place[0] == node

    def _said(self, event: Event) -> None:
        step = event.detail[0] if isinstance(event.detail, tuple) else ""
        if step == "split":
            self._parts.split(event.trace)
        elif step == "gathered" and isinstance(event.detail, tuple):
            self._parts.gathered(self.cases[event.trace], event.node, event.detail[1], self._now)
        elif step == "claimed":
            self.cases[event.trace].claimed_at = self._now
        elif step == "inherited":
            self.cases[event.trace].handed_on = True
        elif step == "dropped":
            self.cases[event.trace].dropped_by_policy = True

    # The disks

    def rows_changed(self, node: str, changes: Iterable[Change]) -> None:
        """A group is on the disk of that node."""
        touched: dict[str, Case] = {}
        for table, key, value in changes:
            if table is Table.META:
                continue
            place = node, table, key
            case = self._at.pop(place, None)
            if case is not None:
                del case.places[place]
                touched[case.trace] = case
            if value is not None:
                self._stored(place, value)
        for case in touched.values():
            if case.acknowledged and not case.places and not self._accounted(case):
                raise FoundError(Wrong.LOST, case.trace, f"{node} has removed the last copy")

    def _stored(self, place: tuple[str, Table, bytes], value: bytes) -> None:
        if place[1] is Table.PARKED:
            parked = decode_parked(value)
            case = self.cases[parked.envelope.trace]
            case.parked.setdefault(parked.reason, self._now)
            self._check_cause(case, parked.reason)
        else:
            envelope = decode_custody(value).envelope
            if not envelope.pdu:
                return  # a tombstone, or a decision
            case = self.cases[envelope.trace]
        case.places[place] = None
        self._at[place] = case

    def _check_cause(self, case: Case, reason: str) -> None:
        causes = {
            "refused": any(delivery.settled and delivery.status != ESME_ROK for delivery in case.deliveries),
            "owner_unreachable": self._is_old(case),
            "unclaimed": self._is_old(case) and not (case.is_report and self._certain(case)),
            "origin_lost": bool(self._wiped),
            "origin_removed": bool(self._retired),
            "maybe_delivered": bool(self._taken),
        }
        if not causes.get(reason, False):
            raise FoundError(Wrong.PARKED_WITHOUT_CAUSE, case.trace, reason)

    def _accounted(self, case: Case) -> bool:
        """It need be on no disk."""
        if case.delivered or case.dropped or case.gone_with_directory:
            return True
        if case.dropped_by_policy:
            return self._policy.unclaimed == "drop" and self._is_old(case) and not self._certain(case)
        arrival = case.sent.arrival
        if case.is_report and not arrival.final:
            others = self._of_message[arrival.message_id]
            return any(other.delivered for other in others if other.sent.arrival.final)
        return False

    # The end

    def conclude(self, custody_rows: Mapping[str, int]) -> None:
        """Everything is mended, and time has passed. `custody_rows`: how many are left on each node's disk."""
        for case in self.cases.values():
            self._conclude(case)
        self._parts.conclude(excused=bool(self._retired or self._wiped or self._lossy or self._jumped))
        for node, count in custody_rows.items():
            if count and node not in self._retired:
                raise FoundError(Wrong.ROWS_LEFT, node, f"{count} rows")

    def _conclude(self, case: Case) -> None:
        if not case.acknowledged and not case.over:
            raise FoundError(Wrong.UNANSWERED, case.trace, f"by {case.origin}")
        here = [place for place in case.places if place[0] not in self._retired]
        where = ", ".join(f"{table.value} of {node}" for node, table, _ in here)
        if len(here) > 1 and not self._claimed_in_vain(case, here):
            raise FoundError(Wrong.HELD_TWICE, case.trace, where)
        if any(table is Table.CUSTODY for _, table, _ in here):
            raise FoundError(Wrong.STUCK, case.trace, where)
        if here and case.deliveries and case.deliveries[-1].status == ESME_ROK and not self._forgotten(case):
            raise FoundError(Wrong.STILL_HELD, case.trace, where)
        if case.acknowledged and not case.places and not self._accounted(case):
            raise FoundError(Wrong.LOST, case.trace, "neither delivered nor on any disk")

    def _claimed_in_vain(self, case: Case, places: Iterable[tuple[str, Table, bytes]]) -> bool:
        """Several had claimed it, as owner or heir; its origin has lost its directory before it granted it to one."""
        return set(case.parked) == {"origin_lost"} and all(table is Table.PARKED for _, table, _ in places)

    def _forgotten(self, case: Case) -> bool:
        """Nobody is left who can say that it is delivered: its origin has lost its directory, and its node has crashed
        before its disk knew, or a late copy has come there, or to an heir, when it had forgotten the key. Or its node
        was taken over from, so that its heir does not know."""
        last = case.deliveries[-1]
        unknown = last.excused or case.claimed_at > last.at or case.handed_on
        return ("origin_lost" in case.parked and unknown) or "maybe_delivered" in case.parked
