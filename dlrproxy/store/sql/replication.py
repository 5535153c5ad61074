"""A database server of a pair, as the account that may change its replication sees it: what it says, and what is done.

What `modes.replication` decides by is read here (`read`), its beats are written (`beat`), and its commands carried out
(`carry_out`). Each statement has a deadline and may be done twice; a command that was interrupted anywhere is carried
out again from its first statement.

What the code depends on, as MariaDB 10.11 was seen to do it:

- A commit that waits for its replica holds its row's lock, shows its old row to everybody else, and keeps SET GLOBAL
  read_only waiting. It waits on when its client has gone. Ended by KILL, or by switching semi-sync off, it is committed
  all the same, and counted in no_tx.
- Rpl_semi_sync_master_status stays ON without any replica; with wait_no_slave=OFF commits return at once then, and
  only no_tx tells. Rpl_semi_sync_master_clients stays 1 on a link that is silent.
- A replica that connected while semi-sync was off at its source acknowledges as soon as it is switched on. One whose
  own rpl_semi_sync_slave_enabled was off must connect anew.
- STOP SLAVE IO_THREAD leaves what was received to the other thread, which goes on applying it. Once both threads have
  stopped, whichever is started first throws away what was not applied (with MASTER_USE_GTID), and so does every restart
  of the server, whatever relay_log_recovery says. After a restart Gtid_IO_Pos is empty until a thread has been started.
- SHOW BINARY LOGS and SHOW MASTER STATUS wait for a lock that two commits which wait for their replica hold.
- STOP SLAVE IO_THREAD took two seconds on a silent link.
- A row written on a replica takes the next number of the domain. Under gtid_strict_mode a source that has used that
  number as well is then refused by the applying thread (error 1950): the two have diverged, and it shows.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, cast

import attrs
import trio

from dlrproxy.modes import pair
from dlrproxy.modes.pair import Alone, Command, Replica, Server
from dlrproxy.store.sql.behind import LogPosition
from dlrproxy.store.sql.connection import Account, Result, Value
from dlrproxy.store.sql.dialect import Dialect, dialect_of, includes
from dlrproxy.store.sql.errors import AgainError, SqlError, UnknownOutcomeError
from dlrproxy.store.sql.merge import note_known
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import literal, text

# A commit that waits for its replica keeps SET GLOBAL read_only waiting: it is ended, and this is tried again.
READ_ONLY_TRIES: Final = 3
LOCK_WAIT_S: Final = 1


class NotHolderError(SqlError):
    """The row of the pair names another node, or a higher epoch: nothing was changed."""


class NotAppliedError(SqlError):
    """What the server has received is not applied, or it still receives: nothing was changed."""


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


class Replication:
    """One server. Nothing is dialled before it is needed. Used inside trio."""

    def __init__(self, account: Account, me: str, *, strict: bool, timeout_s: float) -> None:
        """`account` may change the replication, and names the schema; `me` is this node's name; `timeout_s` is the
        deadline of each statement."""
        # One connection each: what waits for the replica must not keep the others waiting.
        self._asking = Pool(account, 1, timeout_s)
        self._acting = Pool(account, 1, timeout_s)
        self._beating = Pool(account, 1, timeout_s)
        self._measuring = Pool(account, 1, timeout_s)
        self._me = me
        self._strict = strict
        self._settling = trio.Lock()  # of semi-sync to what the row says, which commands change
        self._dialect: Dialect | None = None

    async def close(self) -> None:
        for pool in (self._asking, self._acting, self._beating, self._measuring):
            await pool.close()

    # What it says

    async def read(self) -> Reading:
        """Raises SqlError."""
        return await self._read(self._asking)

    async def _read(self, pool: Pool) -> Reading:
        names = await self._names()
        # In this order: what is applied by the time that the row is read includes what was received before.
        status = next(_named(await pool.run(names.show_replica)), None)
        semi_sync, uptime_s = await self._semi_sync(pool)
        (row,) = _named(
            await pool.run(
                "SELECT @@global.read_only AS read_only,@@server_id AS server_id,"
                f"{names.position} AS position,{names.applied} AS applied,p.epoch,p.holder,p.beat,p.alone "
                "FROM (SELECT 1 AS id) AS one LEFT JOIN pair AS p ON p.id=one.id"
            )
        )
        server = Server(
            writable=row["read_only"] == 0,
            epoch=_int(row["epoch"]),
            holder=text(row["holder"] or b""),
            beat=_int(row["beat"]),
            alone=Alone(text(row["alone"] or b"no")),
            position=str(row["position"] or ""),
            replica=_replica(status, str(row["applied"] or ""), names) if status is not None else None,
        )
        reading = Reading(server=server, server_id=_int(row["server_id"]), semi_sync=semi_sync, uptime_s=uptime_s)
        if status is None:
            return reading
        return attrs.evolve(
            reading,
            received=str(status[names.received] or ""),
            source_id=_int(status[names.source_id]),
            connected=status[names.receiving] == "Yes",
            received_log=_log_position(status, names.received_log),
            applied_log=_log_position(status, names.applied_log),
        )

    async def logs(self) -> tuple[LogPosition, ...]:
        """Its log files with their sizes, in order. Raises SqlError.

        Not for anything that matters: it waits while commits wait for the replica.
        """
        found = await self._measuring.run("SHOW BINARY LOGS")
        return tuple((str(row[0]), _int(row[1])) for row in found.rows)

    async def _names(self) -> Dialect:
        if self._dialect is None:
            version = (await self._asking.run("SELECT VERSION()")).rows[0][0]
            self._dialect = dialect_of(str(version))
        return self._dialect

    async def _semi_sync(self, pool: Pool) -> tuple[SemiSync, int]:
        """And for how many seconds the server has been up."""
        names = await self._names()
        prefix = names.semi_sync_status
        result = await pool.run(f"SHOW GLOBAL STATUS WHERE variable_name LIKE '{prefix}%' OR variable_name='Uptime'")
        said = {str(name).lower().removeprefix(prefix): value for name, value in result.rows}
        enabled = (await pool.run(f"SELECT @@{names.semi_sync}")).rows[0][0]
        semi_sync = SemiSync(
            enabled=enabled == 1,
            on=said["status"] == "ON",
            replicas=_int(said["clients"]),
            acknowledged=_int(said["yes_tx"]),
            unacknowledged=_int(said["no_tx"]),
            degraded=_int(said["no_times"]),
        )
        return semi_sync, _int(said["uptime"])

    # Beats

    async def beat(self) -> bool:
        """Count the row's beat up. True: this node's replica has received that, for certain.

        It may take until the deadline, and then raises UnknownOutcomeError. Raises SqlError, NotHolderError.
        """
        async with self._settling:
            seen = await self._read(self._beating)
            await self._settle(self._beating, seen)
            before, _ = await self._semi_sync(self._beating)
        result = await self._beating.run(
            f"UPDATE pair SET beat=beat+1 WHERE id=1 AND epoch={seen.server.epoch} AND holder={literal(self._me)}"
        )
        if not result.affected:
            raise self._not_holder()
        after, _ = await self._semi_sync(self._beating)
        return _was_acknowledged(before, after)

    async def _settle(self, pool: Pool, seen: Reading) -> None:
        """Wait for the replica as the row says: what is interrupted, or restarted with other settings, comes right."""
        server = seen.server
        if not server.writable or server.replica is not None or server.holder != self._me:
            raise self._not_holder()
        wanted = server.alone is Alone.NO if self._strict else seen.semi_sync.replicas > 0
        if wanted != seen.semi_sync.enabled:
            await self._set_semi_sync(pool, on=wanted)

    # Commands

    async def carry_out(self, command: Command) -> None:
        """Of those that concern the server: not Serve, not Release.

        Raises SqlError, NotHolderError, NotAppliedError: it is not done, or not wholly.
        """
        async with self._settling:
            match command:
                case pair.StopReceiving():
                    # The rest is to be applied, and must not wait for a replica that this server does not have.
                    await self._set_semi_sync(self._acting, on=False)
                    await self._acting.run((await self._names()).stop_receiving)
                case pair.StartReceiving():
                    await self._start_receiving()
                case pair.BecomePrimary(epoch, alone):
                    await self._become_primary(epoch, alone)
                case pair.TakeOver(epoch, alone):
                    await self._set_semi_sync(self._acting, on=False)
                    await self._write_row(epoch, alone)
                case pair.AcceptWrites():
                    seen = await self._read(self._acting)
                    await self._set_semi_sync(self._acting, on=self._strict and seen.server.alone is Alone.NO)
                    await self._accept_writes()
                case pair.MakeReadOnly():
                    await self._make_read_only()
                case pair.GoAlone(alone):
                    # This lets what waits go on, and with it the lock of the row.
                    await self._set_semi_sync(self._acting, on=False)
                    await self._set_alone(alone)
                case pair.GoPaired():
                    # In this order: whoever has the row has all that was committed without its acknowledgement.
                    await self._set_semi_sync(self._acting, on=True)
                    await self._end_alone()
                case pair.Serve() | pair.Release():
                    raise ValueError(f"{command} is not for a database server")

    async def _start_receiving(self) -> None:
        names = await self._names()
        # Restarted, it takes writes: what would be written here by itself would end the replication.
        await self._set_read_only()
        # What is applied would wait for a replica that this server does not have.
        await self._set_semi_sync(self._acting, on=False)
        await self._acting.run(f"SET GLOBAL {names.semi_sync_replica}=ON")  # heeded as it connects
        await self._acting.run(names.start)

    async def _become_primary(self, epoch: int, alone: Alone) -> None:
        names = await self._names()
        await self._set_semi_sync(self._acting, on=False)
        seen = (await self._read(self._acting)).server
        written = (seen.epoch, seen.holder, seen.alone) == (epoch, self._me, alone)
        if seen.replica is not None:
            # Once both threads have stopped, what is not applied is lost.
            if not written and (seen.replica.receiving or not seen.replica.all_applied):
                raise NotAppliedError(f"{self._acting.account.server} has not applied all that it has received")
            await self._acting.run(names.stop)
        if not written:
            await self._write_row(epoch, alone)
        if seen.replica is not None:
            await self._acting.run(names.forget_source)
        await self._accept_writes()

    async def _accept_writes(self) -> None:
        await self._acting.run("SET GLOBAL read_only=OFF")

    async def _make_read_only(self) -> None:
        seen = (await self._read(self._acting)).server
        # A row that says so already is left alone: without its replica the server could not change it.
        if seen.alone is not Alone.NO and seen.holder == self._me:
            await self._set_alone(Alone.NO)
        for _ in range(READ_ONLY_TRIES - 1):
            with suppress(AgainError):
                return await self._set_read_only()
        return await self._set_read_only()

    async def _set_read_only(self) -> None:
        await self._end_waiting()
        await self._acting.run(f"SET SESSION lock_wait_timeout={LOCK_WAIT_S}, GLOBAL read_only=ON")

    async def _end_waiting(self) -> None:
        """End the connections whose commits wait for the replica: nobody is told that they are durable."""
        waiting = await self._acting.run(
            "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for semi-sync ACK%'"
        )
        for (thread_id,) in waiting.rows:
            await self._acting.end(_int(thread_id))

    # The row, and semi-sync

    async def _write_row(self, epoch: int, alone: Alone) -> None:
        await note_known(self._acting, epoch, self._me)  # nobody serves from this server before the row is written
        await self._acting.run("INSERT IGNORE INTO pair (id,epoch,holder,beat,alone) VALUES (1,0,'',0,'no')")
        await self._change_row(
            f"epoch={epoch},holder={literal(self._me)},alone={literal(alone.value)}", f"epoch<={epoch}"
        )

    async def _set_alone(self, alone: Alone) -> None:
        await self._change_row(f"alone={literal(alone.value)}", f"holder={literal(self._me)}")

    async def _end_alone(self) -> None:
        try:
            await self._set_alone(Alone.NO)
        except UnknownOutcomeError:
            # The replica may have that row. While it does not show here, the next beat would switch semi-sync off, and
            # commits go without the replica. So end the connection that waits, which commits the row.
            await self._read(self._acting)
            raise

    async def _change_row(self, change: str, condition: str) -> None:
        result = await self._acting.run(f"UPDATE pair SET beat=beat+1,{change} WHERE id=1 AND {condition}")
        if not result.affected:
            raise self._not_holder()

    async def _set_semi_sync(self, pool: Pool, *, on: bool) -> None:
        await pool.run(f"SET GLOBAL {(await self._names()).semi_sync}={'ON' if on else 'OFF'}")

    def _not_holder(self) -> NotHolderError:
        return NotHolderError(f"{self._acting.account.server} is not, or no longer, held by {self._me}")


def _was_acknowledged(before: SemiSync, after: SemiSync) -> bool:
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
    return (str(name), _int(at)) if name else None


def _int(value: Value) -> int:
    return int(cast("str | int", value or 0))
