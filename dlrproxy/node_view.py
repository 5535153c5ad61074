"""The running node as the HTTP API sees it: `admin.view.NodeView` over a `Node`."""

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import trio
from attrs import asdict

from dlrproxy.admin import view
from dlrproxy.binding import Slot
from dlrproxy.front import Front
from dlrproxy.links import Bind, GatewaySession
from dlrproxy.store.directory import free_bytes
from dlrproxy.store.port import Lookup, OpenMessage, Table
from protocols.smpp.constants import COMMAND_NAMES
from ring.rows import ParkedRow, decode_parked
from ring.shelf import State

if TYPE_CHECKING:
    from dlrproxy.node import Node

_MIB = 1024 * 1024


class View:
    """Made once the node runs."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._version = importlib.metadata.version("dlrproxy")
        self._started = trio.current_time()

    def status(self) -> view.NodeStatus:
        node = self._node
        return view.NodeStatus(
            node=node.config.node.name,
            version=self._version,
            mode=node.config.node.mode,
            now=node.clock.now(),
            uptime_s=trio.current_time() - self._started,
            draining=node.draining,
            store=self._store(),
            operators=tuple(self._operator(front) for front in node.term.fronts.values()),
            ring=tuple(node.term.ring.peers()),
            turned_away=dict(node.term.ring.turned_away()),
            custody=self._custody(),
            summaries=self._summaries(),
            join=self._join(),
        )

    def _join(self) -> view.JoinStatus | None:
        join = self._node.term.ring.join
        if join is None:
            return None
        return view.JoinStatus(
            cluster=join.other,
            gates=tuple(sorted(join.reachable())),
            configured=len(self._node.config.far_gates),
            frames=dict(join.counts),
        )

    def _summaries(self) -> view.SummaryStatus | None:
        summaries = self._node.term.summaries
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

    def _store(self) -> view.StoreStatus:
        node = self._node.config.node
        try:
            free: int | None = free_bytes(node.data_dir)
        except OSError:
            free = None  # shown as not known; the store itself logs why
        store = self._node.term.store
        return view.StoreStatus(
            accepting=store.accepting,
            free_bytes=free,
            min_free_bytes=node.min_free_mb * _MIB,
            store_id=store.store_id.hex(),
        )

    def _custody(self) -> view.CustodyStatus:
        keeper, settings = self._node.term.keeper, self._node.config.custody
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
            states=_by_name(keeper.machine.by_state()),
            awaiting={node: _by_name(states) for node, states in sorted(keeper.machine.awaiting().items())},
        )

    def _operator(self, front: Front) -> view.OperatorStatus:
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
            counters=asdict(relay.counters) | {"expired": self._node.term.housekeeping.expired[front.name]},
        )

    async def open_messages(self, lookup: Lookup) -> Sequence[OpenMessage]:
        return (await self._node.term.store.find([lookup]))[0]

    def custody_entries(self, operator: str, forms: Collection[bytes]) -> Sequence[view.CustodyEntry]:
        return [
            view.CustodyEntry(row=item.as_row(), state=item.state.name.lower(), lap=item.lap, attempts=item.attempts)
            for item in self._node.term.keeper.machine.of_message(operator, forms)
        ]

    async def parked_rows(self, after: bytes, limit: int) -> Sequence[tuple[bytes, ParkedRow]]:
        rows = await self._node.term.store.scan(Table.PARKED, after, limit)
        return [(key, decode_parked(value)) for key, value in rows]

    async def parked_row(self, key: bytes) -> ParkedRow | None:
        value = await self._node.term.store.get(Table.PARKED, key)
        return None if value is None else decode_parked(value)

    async def replay(self, key: bytes, gateway: str, *, node: str = "") -> bool:
        return await self._node.term.keeper.replay(key, gateway, node=node)

    async def drop(self, key: bytes) -> bool:
        return await self._node.term.keeper.drop(key)

    def drain(self, mode: view.Drain) -> None:
        self._node.drain(mode)

    def undrain(self) -> bool:
        return self._node.undrain()


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
