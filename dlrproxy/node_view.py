"""The running node as the HTTP API sees it: `admin.view.NodeView` over a node of whichever mode."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import trio
from attrs import asdict

from dlrproxy.admin import view
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.problems import RequestError
from dlrproxy.admin.quorum_view import QuorumStatus
from dlrproxy.clock import NodeClock
from dlrproxy.config import Config
from dlrproxy.front import Front
from dlrproxy.release import RELEASE
from dlrproxy.sessions.binding import Slot
from dlrproxy.sessions.links import Bind, GatewaySession
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.port import Lookup, OpenMessage, Table
from dlrproxy.term import Term
from protocols.smpp.constants import COMMAND_NAMES
from ring.items import State
from ring.rows import ParkedRow, decode_parked, read_parked

_MIB = 1024 * 1024


class Shown(Protocol):
    """What there is to see of a node, and to ask of it."""

    @property
    def config(self) -> Config: ...

    @property
    def clock(self) -> NodeClock: ...

    @property
    def draining(self) -> view.Drain | None: ...

    @property
    def term(self) -> Term | None:
        """Whose parts are all there; None: the node does not serve now."""

    def pair(self) -> PairStatus | None:
        """None: it is of no pair."""

    def quorum(self) -> QuorumStatus | None:
        """None: it is of none."""

    def promote(self, *, force: bool) -> bool:
        """See `NodeView.promote`."""

    def demote(self) -> bool: ...

    def look(self) -> bool: ...

    def drain(self, mode: view.Drain) -> None: ...

    def undrain(self) -> bool: ...


class View:
    """Made once the node runs."""

    def __init__(self, node: Shown) -> None:
        self._node = node
        self._started = trio.current_time()

    def status(self) -> view.NodeStatus:
        node, term = self._node, self._node.term
        return view.NodeStatus(
            node=node.config.node.name,
            version=RELEASE,
            mode=node.config.node.mode,
            now=node.clock.now(),
            uptime_s=trio.current_time() - self._started,
            draining=node.draining,
            store=None if term is None else self._store(term),
            operators=() if term is None else tuple(_operator(term, front) for front in term.fronts.values()),
            ring=() if term is None else tuple(term.ring.peers()),
            turned_away={} if term is None else dict(term.ring.turned_away()),
            custody=None if term is None else _custody(term),
            summaries=None if term is None else _summaries(term),
            join=None if term is None else _join(term),
            pair=node.pair(),
            quorum=node.quorum(),
        )

    def why_no_service(self) -> str:
        if self._node.term is not None:
            return ""
        pair, quorum = self._node.pair(), self._node.quorum()
        if quorum is not None and quorum.role != "serving":
            return f"this node is {quorum.role}: {quorum.why}"
        if pair is None or pair.role == "active":
            return "the term of service has not begun; the log says why"
        if pair.holder == pair.peer:
            return f"this node is {pair.role}; ask the active one ({pair.peer})"
        return f"this node is {pair.role}: {pair.why}"

    def _term(self) -> Term:
        """Raises RequestError: there is none any more."""
        term = self._node.term
        if term is None:
            raise RequestError(503, self.why_no_service())
        return term

    def _store(self, term: Term) -> view.StoreStatus:
        node = self._node.config.node
        try:
            free: int | None = free_bytes(node.data_dir)
        except OSError:
            free = None  # shown as not known; the store itself logs why
        store = term.store
        return view.StoreStatus(
            accepting=store.accepting,
            free_bytes=free,
            min_free_bytes=node.min_free_mb * _MIB,
            store_id=store.store_id.hex(),
        )

    async def open_messages(self, lookup: Lookup) -> Sequence[OpenMessage]:
        return (await self._term().store.find([lookup]))[0]

    def custody_entries(self, operator: str, forms: Collection[bytes]) -> Sequence[view.CustodyEntry]:
        return [
            view.CustodyEntry(row=item.as_row(), state=item.state.name.lower(), lap=item.lap, attempts=item.attempts)
            for item in self._term().keeper.machine.of_message(operator, forms)
        ]

    async def parked_rows(self, after: bytes, limit: int) -> Sequence[tuple[bytes, ParkedRow | None]]:
        rows = await self._term().store.scan(Table.PARKED, after, limit)
        return [(key, read_parked(value)) for key, value in rows]

    async def parked_row(self, key: bytes) -> ParkedRow | None:
        value = await self._term().store.get(Table.PARKED, key)
        return None if value is None else decode_parked(value)

    async def replay(self, keys: Sequence[bytes], gateway: str, *, node: str = "") -> int:
        return await self._term().keeper.parked.replay(keys, gateway, node=node)

    def replaying(self) -> int:
        return self._term().keeper.parked.replaying()

    async def drop(self, keys: Sequence[bytes]) -> int:
        return await self._term().keeper.parked.drop(keys)

    def promote(self, *, force: bool) -> bool:
        return self._node.promote(force=force)

    def demote(self) -> bool:
        return self._node.demote()

    def look(self) -> bool:
        return self._node.look()

    def drain(self, mode: view.Drain) -> None:
        self._node.drain(mode)

    def undrain(self) -> bool:
        return self._node.undrain()


def _join(term: Term) -> view.JoinStatus | None:
    join = term.ring.join
    if join is None:
        return None
    return view.JoinStatus(
        cluster=join.other,
        gates=tuple(sorted(join.reachable())),
        configured=len(term.config.far_gates),
        frames=dict(join.counts),
    )


def _summaries(term: Term) -> view.SummaryStatus | None:
    summaries = term.summaries
    if summaries is None:
        return None
    return view.SummaryStatus(
        own=summaries.own,
        own_bytes=summaries.own_bytes,
        left_out=summaries.left_out,
        peers={
            node: view.PeerSummary(
                messages=known.messages, bytes_used=known.bytes_used, current=known.current, told=known.told
            )
            for node, known in summaries.known().items()
        },
    )


def _custody(term: Term) -> view.CustodyStatus:
    keeper, settings = term.keeper, term.config.custody
    count = keeper.machine.count()
    return view.CustodyStatus(
        items=count.items,
        max_items=settings.max_messages,
        walking=count.walking,
        waiting=count.waiting,
        parked=count.parked,
        max_parked=settings.max_parked,
        events=dict(keeper.counts),
        hops=dict(sorted(keeper.hops.items())),
        refused=dict(keeper.refused),
        unreadable=keeper.unreadable,
        states=_by_name(keeper.machine.by_state()),
        awaiting={node: _by_name(states) for node, states in sorted(keeper.machine.awaiting().items())},
    )


def _operator(term: Term, front: Front) -> view.OperatorStatus:
    relay = front.relay
    learner = relay.learner
    return view.OperatorStatus(
        name=front.name,
        system_id=relay.operator.system_id,
        binds=tuple(_bind(slot) for slot in front.operators.slots),
        gateways=tuple(
            view.GatewayStatus(
                name=gateway,
                listen=str(address),
                sessions=tuple(_session(session) for session in relay.sessions if session.gateway == gateway),
            )
            for gateway, address in relay.operator.listen.items()
        ),
        message_id=view.IdRule(
            rule=None if learner.rule is None else learner.rule.value,
            pinned=learner.pinned,
            evidence={rule.value: count for rule, count in learner.evidence.items()},
            contradictions=learner.contradictions,
        ),
        in_flight=relay.in_flight,
        pace_per_s=relay.pace_per_s,
        counters=asdict(relay.counters) | {"expired": term.housekeeping.expired[front.name]},
    )


def _by_name(states: Mapping[State, int]) -> dict[str, int]:
    return {state.name.lower(): count for state, count in sorted(states.items())}


def _bind(slot: Slot) -> view.BindStatus:
    bind = slot.bind
    return view.BindStatus(
        name=slot.name,
        bind_type=COMMAND_NAMES[slot.command].removeprefix("bind_"),
        up=bind is not None,
        host=slot.address,
        window_used=0 if bind is None else len(bind.window),
        window_size=0 if bind is None else bind.window.size,
        since_s=None if slot.since is None else trio.current_time() - slot.since,
        why=slot.why,
    )


def _session(session: GatewaySession) -> view.SessionStatus:
    return view.SessionStatus(
        peer=session.connection.peer,
        bind_type=_session_type(session),
        window_used=len(session.window),
        window_size=session.window.size,
    )


def _session_type(link: Bind | GatewaySession) -> str:
    state = link.session
    if state.transmits and state.receives:
        return "transceiver"
    return "transmitter" if state.transmits else "receiver"
