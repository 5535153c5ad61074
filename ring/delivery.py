"""From custody to a gateway of this node: queue, send, retry, finish, park.

At most `delivery_window` messages are with a gateway at a time. An answer settles; a temporary error is retried with
back-off, the end of the session at once, and a permanent error parks the message as `refused`. What was sent on a
session is not sent again while that session lives: only its end or its answer comes back here (promise 3).

In a cluster (`sharing.py`) the row says that it is being delivered before a session gets it: whoever takes over from
this node knows which messages a gateway may have had.
"""

from collections.abc import Callable

from protocols.peer.frames import EnvelopeKey
from protocols.smpp.constants import ESME_ROK, TEMPORARY
from ring.commands import Closed, Deliver, Reason, Row, Table
from ring.items import Item, Outlet, State
from ring.outlet_queue import OutletQueue
from ring.pace import Pace
from ring.rows import Kind, ParkedRow, encode_key, encode_row
from ring.settings import CustodySettings
from ring.shelf import Alarm, Shelf, backoff


class Delivery:
    def __init__(
        self,
        shelf: Shelf,
        settings: CustodySettings,
        proceed: Callable[[Item, float], None],
        finished: Callable[[Item, float], None],
        go_elsewhere: Callable[[Item, float], bool] = lambda item, now: False,
    ) -> None:
        """`proceed` takes the item that comes to the head of its line when another leaves it; `finished` a claim that
        is delivered or parked, durably; `go_elsewhere`, in a cluster, one whose gateway is not bound here."""
        self._shelf = shelf
        self._settings = settings
        self._proceed = proceed
        self._finished = finished
        self._go_elsewhere = go_elsewhere
        self._queues: dict[Outlet, OutletQueue] = {}
        self._pace = Pace()
        self._in_flight: dict[Outlet, int] = {}
        self._unsent: dict[Outlet, list[Item]] = {}  # what came back since no session had room, in order
        self._full: set[Outlet] = set()  # no session had room: only an answer makes some
        self.parked = 0  # rows in the parked table

    def start(self, item: Item, now: float) -> None:
        """Its owner is a gateway of this node, and it is first in its line."""
        if item.superseded:
            self._shelf.note("superseded", item, gateway=item.gateway)
            self.finish(item, now)
            return
        if self._go_elsewhere(item, now):
            return
        item.enter(State.QUEUED)
        self._queue(item.outlet).append(item)
        self._pump(item.outlet, now)

    def _queue(self, outlet: Outlet) -> OutletQueue:
        queue = self._queues.get(outlet)
        if queue is None:
            queue = self._queues[outlet] = OutletQueue(self._pace)
        return queue

    def bound(self, outlet: Outlet, now: float) -> None:
        """A session is there, where none was."""
        self._put_back(outlet)
        self._queue(outlet).all_is_old()
        self.reopen(outlet, now)

    def reopen(self, outlet: Outlet, now: float) -> None:
        """It is time to see whether a session has room again."""
        self._shelf.alarms.cancel(Alarm.PUMP, outlet)
        self._full.discard(outlet)
        self._put_back(outlet)
        self._pump(outlet, now)

    def gone(self, outlet: Outlet, now: float) -> None:
        """Its last session here has ended: what is queued for it may go elsewhere."""
        self._put_back(outlet)
        queue = self._queue(outlet)
        queue.close()
        del self._queues[outlet]
        for item in queue:
            if item.state is State.QUEUED:
                self.start(item, now)

    def _put_back(self, outlet: Outlet) -> None:
        if unsent := self._unsent.pop(outlet, None):
            self._queue(outlet).put_back(unsent)

    def _pump(self, outlet: Outlet, now: float, most: int | None = None) -> None:
        """Send what the window to this gateway has room for, `most` at most; nothing while its sessions are full."""
        if outlet in self._full and most is None:
            return
        queue = self._queues.get(outlet)
        while queue and most != 0 and self._in_flight.get(outlet, 0) < self._settings.delivery_window:
            item = queue.take(now)
            if item is None:
                if not self._shelf.alarms.is_set(Alarm.PUMP, outlet):
                    self._shelf.alarms.set(queue.ready_at(), Alarm.PUMP, outlet)
                return
            if item.state is not State.QUEUED:
                continue  # it left custody while it waited
            most = None if most is None else most - 1
            self.with_session(item)
            if self._settings.cluster is None or item.marked:
                self._shelf.command(_deliver(item))
            else:
                self._mark(item)

    def with_session(self, item: Item) -> None:
        """It has been written to a session of its gateway, or is to be at once."""
        item.enter(State.DELIVERING)
        self._in_flight[item.outlet] = self._in_flight.get(item.outlet, 0) + 1

    def _mark(self, item: Item) -> None:
        """Write down that it is being delivered, then do it."""
        item.enter(State.MARKING)
        item.marked = True

        def marked(now: float) -> None:
            item.enter(State.DELIVERING)
            self._shelf.command(_deliver(item))

        self._shelf.write(item.row(item.kind), then=marked)

    def _unmark(self, item: Item) -> None:
        """No gateway has got it, or one has said that it does not take it."""
        if item.marked:
            item.marked = False
            self._shelf.write(item.row(item.kind))

    def unsent(self, key: EnvelopeKey, now: float) -> None:
        """No session of its gateway could take it: it keeps its place, and one more is tried with each answer of that
        gateway, when it binds, and after `deliver_retry_min_s`."""
        item = self._back(key)
        if item is None:
            return
        if item.old:
            self._pace.give_back()
        self._unmark(item)
        if self._go_elsewhere(item, now):
            return
        item.enter(State.QUEUED)
        self._unsent.setdefault(item.outlet, []).append(item)
        self._full.add(item.outlet)
        if not self._shelf.alarms.is_set(Alarm.PUMP, item.outlet):
            self._shelf.alarms.set(now + self._settings.deliver_retry_min_s, Alarm.PUMP, item.outlet)

    def put_off(self, key: EnvelopeKey, now: float) -> None:
        """Another report of its message is with the gateway: this one is tried again when that is answered for."""
        if item := self._back(key):
            self._unmark(item)
            item.enter(State.QUEUED)
            self._shelf.alarms.set(now + self._settings.deliver_retry_min_s, Alarm.RETRY, key)

    def supersede(self, key: EnvelopeKey, now: float) -> None:
        """A final report of its message has been delivered past custody."""
        if item := self._back(key):
            item.superseded = True
            self.start(item, now)

    def answered(self, key: EnvelopeKey, status: int | None, now: float) -> None:
        """The gateway's answer, or None when the session ended without one."""
        item = self._back(key)
        if item is None:
            return
        if status is None:
            self._shelf.note("retried", item, gateway=item.gateway, reason="session_ended")
            self.start(item, now)
        elif status == ESME_ROK:
            self._delivered(item, now)
        elif status in TEMPORARY:
            self._retry_later(item, status, now)
        else:
            self.park(item, Reason.REFUSED, now, status)
        self._put_back(item.outlet)
        self._pump(item.outlet, now, most=1 if item.outlet in self._full else None)

    def retry(self, key: EnvelopeKey, now: float) -> None:
        item = self._shelf.items.get(key)
        if item is None:
            return
        if item.state is State.TO_PARK and item.to_park is not None:
            reason, status = item.to_park
            self.park(item, reason, now, status)
        elif item.state is State.QUEUED:
            self.start(item, now)

    def _back(self, key: EnvelopeKey) -> Item | None:
        item = self._shelf.items.get(key)
        if item is None or item.state is not State.DELIVERING:
            return None
        self._in_flight[item.outlet] -= 1
        return item

    def _retry_later(self, item: Item, status: int, now: float) -> None:
        self._unmark(item)
        item.enter(State.QUEUED)
        item.attempts += 1
        wait = backoff(
            item.attempts, self._settings.deliver_retry_min_s, self._settings.deliver_retry_max_s, item.key.number
        )
        self._shelf.note("retried", item, gateway=item.gateway, status=status, wait_s=round(wait, 1))
        self._shelf.alarms.set(now + wait, Alarm.RETRY, item.key)

    def _delivered(self, item: Item, now: float) -> None:
        self._shelf.note("delivered", item, gateway=item.gateway)
        if item.envelope.final:
            self._supersede(item)
            self._shelf.command(Closed(item.envelope, item.accepted_at))
        self.finish(item, now)

    def _supersede(self, item: Item) -> None:
        """Nothing intermediate is delivered after this final report, whatever happens in between (promise 4).

        A submit_multi has one id for many subscribers, each with a final report of its own.
        """
        for other in self._shelf.lines.behind(item):
            same = other.envelope.destination == item.envelope.destination
            if same and not other.envelope.final and not other.superseded:
                other.superseded = True
                self._shelf.write(other.row(other.kind))

    def finish(self, item: Item, now: float) -> None:
        """Nothing more is owed to the gateway. A claim leaves its key behind until its origin has forgotten it."""
        self._end(item, now)

    def _end(self, item: Item, now: float, *also: Row) -> None:
        if item.claimed and not item.released:
            item.become_tombstone(State.DELIVERED)
            item.stored = False

            def delivered(now: float) -> None:
                item.stored = True
                self._finished(item, now)

            self._shelf.write(*also, item.row(Kind.DELIVERED), then=delivered)
        else:
            self._shelf.write(*also, item.no_row())
            self._shelf.remove(item)
        if following := self._shelf.lines.leave(item):
            self._proceed(following, now)

    def park(self, item: Item, reason: Reason, now: float, status: int = 0) -> None:
        """Set it aside, visible and replayable. With the parked quota full it stays in custody, and parking is tried
        again at the longest interval: nothing is dropped, nor delivered, for want of room."""
        if self.parked >= self._settings.max_parked:
            self._shelf.note("parking_full", item, reason=reason.value)
            item.enter(State.TO_PARK)
            item.to_park = (reason, status)
            self._shelf.alarms.set(now + self._settings.deliver_retry_max_s, Alarm.RETRY, item.key)
            return
        self.parked += 1
        row = ParkedRow(item.envelope, reason.value, item.accepted_at, now, item.gateway, status, item.lap)
        parked = Row(Table.PARKED, encode_key(item.key), encode_row(row))
        fields: dict[str, str | int] = {"reason": reason.value}
        if item.gateway:
            fields["gateway"] = item.gateway
        if status:
            fields["status"] = status
        self._shelf.note("parked", item, **fields)
        self._end(item, now, parked)


def _deliver(item: Item) -> Deliver:
    """What a person sends again was reported long ago, and has been parked since."""
    again = item.replayed or bool(item.envelope.node)
    return Deliver(item.envelope, item.gateway, 0.0 if again else item.accepted_at)
