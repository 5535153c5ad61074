"""A database server of a pair, as the account that may change its replication sees it: what it says, and what is done.

What `modes.replication` decides by is read (`reading.py`), its beats are written (`beat`), and its commands carried out
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

from contextlib import suppress
from typing import Final

import trio

from dlrproxy.modes import pair
from dlrproxy.modes.pair import Alone, Command
from dlrproxy.store.sql.behind import LogPosition
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.dialect import Dialect, dialect_of
from dlrproxy.store.sql.errors import AgainError, SqlError, UnknownOutcomeError
from dlrproxy.store.sql.merge import note_known
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.reading import Reading, integer, read, semi_sync, was_acknowledged
from dlrproxy.store.sql.statements import literal

# A commit that waits for its replica keeps SET GLOBAL read_only waiting: it is ended, and this is tried again.
READ_ONLY_TRIES: Final = 3
LOCK_WAIT_S: Final = 1


class NotHolderError(SqlError):
    """The row of the pair names another node, or a higher epoch: nothing was changed."""


class NotAppliedError(SqlError):
    """What the server has received is not applied, or it still receives: nothing was changed."""


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
        return await read(pool, await self._names())

    async def logs(self) -> tuple[LogPosition, ...]:
        """Its log files with their sizes, in order. Raises SqlError.

        Not for anything that matters: it waits while commits wait for the replica.
        """
        found = await self._measuring.run("SHOW BINARY LOGS")
        return tuple((str(row[0]), integer(row[1])) for row in found.rows)

    async def _names(self) -> Dialect:
        if self._dialect is None:
            version = (await self._asking.run("SELECT VERSION()")).rows[0][0]
            self._dialect = dialect_of(str(version))
        return self._dialect

    # Beats

    async def beat(self) -> bool:
        """Count the row's beat up. True: this node's replica has received that, for certain.

        It may take until the deadline, and then raises UnknownOutcomeError. Raises SqlError, NotHolderError.
        """
        async with self._settling:
            seen = await self._read(self._beating)
            await self._settle(self._beating, seen)
            before, _ = await semi_sync(self._beating, await self._names())
        result = await self._beating.run(
            f"UPDATE pair SET beat=beat+1 WHERE id=1 AND epoch={seen.server.epoch} AND holder={literal(self._me)}"
        )
        if not result.affected:
            raise self._not_holder()
        after, _ = await semi_sync(self._beating, await self._names())
        return was_acknowledged(before, after)

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
            await self._acting.end(integer(thread_id))

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
