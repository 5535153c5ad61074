"""What a node of a quorum shows of itself, from what its driver has seen. Pure, but for the time that it is given."""

from collections.abc import Collection, Mapping, Sequence

from dlrproxy.admin.quorum_view import ClusterStatus, DifferenceStatus, LossStatus, MemberStatus, QuorumStatus
from dlrproxy.config.database import Quorum
from dlrproxy.modes.cluster import Observation, Server
from dlrproxy.modes.inbox import Waiting
from dlrproxy.modes.lease import Master
from dlrproxy.modes.quorum import Quorum as Machine
from dlrproxy.modes.survival import losses_of


def quorum_status(
    machine: Machine,
    master: Master,
    seen: Observation,
    now: float,
    *,
    me: str,
    nodes: Sequence[str],
    quorum: Quorum,
    serving: bool,
    is_master: bool,
    journal_rows: int,
    inbox: Waiting,
    clocks: Mapping[str, float],
    trouble: str = "",
    apart: Collection[str] = (),
) -> QuorumStatus:
    """`now` is on the clock that the machines are run with."""
    rows = seen.rows
    return QuorumStatus(
        role=machine.role.value,
        why=machine.why,
        trouble=trouble,
        apart=tuple(sorted(apart)),
        epoch=machine.epoch,
        serving=serving,
        serves_for_s=max(0.0, machine.serve_until - now) if serving else None,
        master=me if is_master else "" if rows is None else rows.master.holder,
        is_master=is_master,
        master_epoch=max(master.epoch, 0 if rows is None else rows.master.epoch),
        site=quorum.sites.get(me, ""),
        server=None if seen.server is None else _server(seen.server),
        members={}
        if rows is None
        else {
            node: MemberStatus(epoch=member.epoch, taken=member.taken, heir=member.heir)
            for node, member in rows.members.items()
            if node in nodes  # the row of one that was taken out of the configuration stays
        },
        losses=tuple(
            LossStatus(of=loss.of, nodes=loss.nodes, survived=loss.survived) for loss in losses_of(nodes, quorum)
        ),
        servers=len(nodes) + len(quorum.arbitrators),
        weight=sum(map(quorum.weight, nodes)) + sum(quorum.arbitrators.values()),
        differences=()
        if machine.agreement is None
        else tuple(
            DifferenceStatus(node=each.node, key=each.key, here=each.here, there=each.there)
            for each in machine.agreement.differences
        ),
        journal_rows=journal_rows,
        clocks=dict(clocks),
        inbox_rows=inbox.rows,
        inbox_oldest_s=inbox.oldest_s,
    )


def _server(server: Server) -> ClusterStatus:
    return ClusterStatus(
        primary=server.primary,
        ready=server.ready,
        state=server.state,
        size=server.size,
        weight=server.weight,
        conf_id=server.conf_id,
        uuid=server.uuid,
    )
