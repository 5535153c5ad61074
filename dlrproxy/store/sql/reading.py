"""What a database server of a pair says at one moment, and what that means together with what was said before.

What is known of the server that says it stands in `replication.py`.
"""

from collections.abc import Iterator, Mapping
from typing import cast

import attrs

from dlrproxy.modes.pair import Alone, Replica, Server
from dlrproxy.store.sql.behind import LogPosition
from dlrproxy.store.sql.connection import Result, Value
from dlrproxy.store.sql.dialect import Dialect, includes
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import text


@attrs.frozen(kw_only=True)
class SemiSync:
    """What a primary says of its semi-synchronous replication."""

    enabled: bool
    on: bool  # and not degraded
    replicas: int  # that acknowledge, or did when they were last heard of
    acknowledged: int  # commits, since the server has started
    unacknowledged: int
    degraded: int  # how often it was switched off, by itself or by anybody


@attrs.frozen(kw_only=True)
class Reading:
    """What a server said at one moment."""

    server: Server  # has_replica is left to `with_replica`
    server_id: int
    semi_sync: SemiSync
    received: str = ""  # a GTID position
    source_id: int = 0  # of the server that it receives from; 0: it has not heard from it since it was started
    connected: bool = False  # to that server
    received_log: LogPosition | None = None  # how far it has received that server's log, and applied it
    applied_log: LogPosition | None = None
    uptime_s: int = 0  # since the server was started


class Completeness:
    """Whether a replica still has all that it has acknowledged.

    One that is started again throws away what it had received and not applied, and says nothing of it. It is complete
    again when it has received all that its source had, as that says itself at a later time. A new object knows of a
    restart only what shows: that the replica has not heard from its source since.
    """

    def __init__(self) -> None:
        self._lacking = False
        self._wanted: str | None = None  # the source's position, asked for after the loss
        self._uptime_s = 0

    def judge(self, own: Reading, peer: Reading | None) -> Reading:
        """The own server's, with `Replica.complete`. To be called with every two readings, in their order."""
        replica = own.server.replica
        if replica is None:
            self._lacking = False
            return own
        stopped = not replica.receiving and not replica.applying and not replica.all_applied
        if own.source_id == 0 or stopped or own.uptime_s < self._uptime_s:
            self._lacking, self._wanted = True, None
        elif self._lacking and peer is not None and own.connected and own.source_id == peer.server_id:
            if self._wanted is None:
                self._wanted = peer.server.position
            elif includes(own.received, self._wanted):
                self._lacking = False
        self._uptime_s = own.uptime_s
        complete = attrs.evolve(replica, complete=not self._lacking)
        return attrs.evolve(own, server=attrs.evolve(own.server, replica=complete))


def with_replica(own: Reading, before: Reading | None, peer: Reading | None) -> Server:
    """The own server, with has_replica told from what both say.

    `before` is what the own server said some time ago, about a second: the peer has caught up if it has received all of
    that. It has to say so itself: the own server also counts a replica that is silent.
    """
    caught_up = (
        own.semi_sync.replicas == 1
        and before is not None
        and peer is not None
        and peer.connected
        and peer.source_id == own.server_id
        and includes(peer.received, before.server.position)
    )
    return attrs.evolve(own.server, has_replica=caught_up)


async def read(pool: Pool, names: Dialect) -> Reading:
    """Raises SqlError."""
    # In this order: what is applied by the time that the row is read includes what was received before.
    status = next(_named(await pool.run(names.show_replica)), None)
    commits, uptime_s = await semi_sync(pool, names)
    (row,) = _named(
        await pool.run(
            "SELECT @@global.read_only AS read_only,@@server_id AS server_id,"
            f"{names.position} AS position,{names.applied} AS applied,p.epoch,p.holder,p.beat,p.alone "
            "FROM (SELECT 1 AS id) AS one LEFT JOIN pair AS p ON p.id=one.id"
        )
    )
    server = Server(
        writable=row["read_only"] == 0,
        epoch=integer(row["epoch"]),
        holder=text(row["holder"] or b""),
        beat=integer(row["beat"]),
        alone=Alone(text(row["alone"] or b"no")),
        position=str(row["position"] or ""),
        replica=_replica(status, str(row["applied"] or ""), names) if status is not None else None,
    )
    reading = Reading(server=server, server_id=integer(row["server_id"]), semi_sync=commits, uptime_s=uptime_s)
    if status is None:
        return reading
    return attrs.evolve(
        reading,
        received=str(status[names.received] or ""),
        source_id=integer(status[names.source_id]),
        connected=status[names.receiving] == "Yes",
        received_log=_log_position(status, names.received_log),
        applied_log=_log_position(status, names.applied_log),
    )


async def semi_sync(pool: Pool, names: Dialect) -> tuple[SemiSync, int]:
    """And for how many seconds the server has been up. Raises SqlError."""
    prefix = names.semi_sync_status
    result = await pool.run(f"SHOW GLOBAL STATUS WHERE variable_name LIKE '{prefix}%' OR variable_name='Uptime'")
    said = {str(name).lower().removeprefix(prefix): value for name, value in result.rows}
    enabled = (await pool.run(f"SELECT @@{names.semi_sync}")).rows[0][0]
    said_so = SemiSync(
        enabled=enabled == 1,
        on=said["status"] == "ON",
        replicas=integer(said["clients"]),
        acknowledged=integer(said["yes_tx"]),
        unacknowledged=integer(said["no_tx"]),
        degraded=integer(said["no_times"]),
    )
    return said_so, integer(said["uptime"])


def was_acknowledged(before: SemiSync, after: SemiSync) -> bool:
    """Whether a commit between the two was received by the one replica, for certain."""
    return (
        before.on
        and after.on
        and max(before.replicas, after.replicas) <= 1  # of two, the other one may have acknowledged
        and after.acknowledged > before.acknowledged
        and (after.unacknowledged, after.degraded) == (before.unacknowledged, before.degraded)
    )


def _replica(status: Mapping[str, Value], applied: str, names: Dialect) -> Replica:
    received = str(status[names.received] or "")
    errors = (str(status[column] or "") for column in (names.apply_error, names.receive_error))
    return Replica(
        receiving=status[names.receiving] != "No",  # "Connecting" as well
        applying=status[names.applying] != "No",
        # Empty: it has been restarted, and what it had received is not known before a thread is started.
        all_applied=received != "" and includes(applied, received),
        error=next(filter(None, errors), ""),
    )


def _named(result: Result) -> Iterator[dict[str, Value]]:
    """Its rows, by the names of their columns."""
    return (dict(zip(result.columns, row, strict=True)) for row in result.rows)


def _log_position(status: Mapping[str, Value], columns: tuple[str, str]) -> LogPosition | None:
    name, at = (status[column] for column in columns)
    return (str(name), integer(at)) if name else None


def integer(value: Value) -> int:
    return int(cast("str | int", value or 0))
