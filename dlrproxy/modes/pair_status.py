"""What a node of a pair shows of itself, from what its driver has seen. Pure, but for the time that it is given."""

import math
from collections.abc import Mapping, Sequence

from dlrproxy.admin.pair_view import BehindStatus, PairStatus, SemiSyncStatus, ServerStatus
from dlrproxy.config import Pair
from dlrproxy.modes.pair import Server
from dlrproxy.modes.replication import Pair as Machine
from dlrproxy.store.sql.behind import LogPosition, behind
from dlrproxy.store.sql.reading import Reading


def pair_status(
    machine: Machine,
    own: Reading | None,
    other: Reading | None,
    now: float,
    *,
    pair: Pair,
    peer: str,
    serving: bool,
    journal_rows: int,
    logs: Sequence[LogPosition],
    witness_lends: bool | None,
    out_of_reach: Mapping[str, str],
) -> PairStatus:
    """`now` is on the clock that the machine is run with, `logs` are those of the primary, as far as they are known.

    `out_of_reach` says why one of "own" and "peer" is None.
    """
    not_received, not_applied = _behind(own, other, logs)
    left_s = machine.serve_until - now
    return PairStatus(
        role=machine.role.value,
        why=machine.why,
        refused=machine.refused,
        epoch=max(machine.epoch, *(each.server.epoch for each in (own, other) if each is not None), 0),
        holder="" if own is None else own.server.holder,
        serving=serving,
        serves_for_s=max(0.0, left_s) if serving and math.isfinite(left_s) else None,
        safety=pair.safety,
        manages_database=pair.manage_database,
        peer=peer,
        own=None if own is None else _server(own.server),
        other=None if other is None else _server(other.server),
        own_out_of_reach=out_of_reach["own"],
        other_out_of_reach=out_of_reach["peer"],
        semi_sync=None if own is None else _semi_sync(own),
        not_received=not_received,
        not_applied=not_applied,
        journal_rows=journal_rows,
        witness_lends=witness_lends,
    )


def _server(server: Server) -> ServerStatus:
    replica = server.replica
    return ServerStatus(
        writable=server.writable,
        epoch=server.epoch,
        holder=server.holder,
        alone=server.alone.value,
        position=server.position,
        replicates=replica is not None,
        receiving=replica is not None and replica.receiving,
        applying=replica is not None and replica.applying,
        all_applied=replica is not None and replica.all_applied,
        error="" if replica is None else replica.error,
    )


def _semi_sync(reading: Reading) -> SemiSyncStatus:
    found = reading.semi_sync
    return SemiSyncStatus(
        enabled=found.enabled,
        on=found.on,
        replicas=found.replicas,
        acknowledged=found.acknowledged,
        unacknowledged=found.unacknowledged,
        degraded=found.degraded,
    )


def _behind(
    own: Reading | None, other: Reading | None, logs: Sequence[LogPosition]
) -> tuple[BehindStatus | None, BehindStatus | None]:
    """Not received, and not applied, by whichever of the two is a replica."""
    for replica, source in ((own, other), (other, own)):
        if replica is not None and replica.server.replica is not None:
            applied = replica.server.position
            received = replica.received or applied  # after a restart it does not know what it has received
            return (
                _measured(source, logs, received, replica.received_log),
                _measured(source, logs, applied, replica.applied_log),
            )
    return None, None


def _measured(
    source: Reading | None, logs: Sequence[LogPosition], reached: str, in_log: LogPosition | None
) -> BehindStatus:
    if source is None:
        return BehindStatus()
    found = behind(source.server.position, logs, reached, in_log)
    return BehindStatus(transactions=found.transactions, bytes=found.bytes)
