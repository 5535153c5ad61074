"""Carries out the steps of `rejoin.py`: looks at both servers and the disk, does what is next, and looks again."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from dlrproxy.modes import rejoin as r
from dlrproxy.modes.clone import CloneError, CloneSite
from dlrproxy.modes.merging import KnownError, parted_at
from dlrproxy.modes.pair import Role
from dlrproxy.modes.rejoin import Copy, Done, Refused, Seen, Step, Wishes, next_step
from dlrproxy.store.port import StoreError
from dlrproxy.store.sql import merge
from dlrproxy.store.sql.dialect import holds
from dlrproxy.store.sql.errors import SqlError, StatementError
from dlrproxy.store.sql.merging import Merged, Merger
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rejoin import RejoiningServer, Source

T = TypeVar("T")

START_S: Final = 600.0  # a server that recovers, or loads a large buffer pool
REPLICATE_S: Final = 30.0
POLL_S: Final = 0.2
TRIES: Final = 5
MOST_STEPS: Final = 20  # it takes nine at most


class RejoinError(Exception):
    """It could not be done; the text says what stands in the way. It may be run again."""


@attrs.frozen(kw_only=True)
class Servers:
    """Both, as the accounts that it takes."""

    own: RejoiningServer
    primary: RejoiningServer
    own_rows: Pool
    primary_rows: Pool

    async def close(self) -> None:
        for each in (self.own, self.primary, self.own_rows, self.primary_rows):
            await each.close()


class Rejoining:
    """One run of `dlrproxy rejoin`."""

    def __init__(
        self,
        servers: Servers,
        *,
        me: str,
        peer: str,
        source: Source,
        site: CloneSite | None,
        missing: tuple[str, ...],
        role: Callable[[], Role | None],
        merger: Merger,
        wishes: Wishes,
        heartbeat_s: float,
        may_replace: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """`source` is the peer's server; `missing` are the keys that a clone would need; `role` is that of this node's
        process now."""
        self._servers = servers
        self._me = me
        self._peer = peer
        self._source = source
        self._site = site
        self._missing = missing
        self._role = role
        self._merger = merger
        self._wishes = wishes
        self._heartbeat_s = heartbeat_s
        self._may_replace = may_replace
        self._replacing = False
        self._say = say

    async def see(self) -> Seen:
        """Never raises: what cannot be seen is said in the result."""
        own, own_error = await _ask(self._servers.own.read)
        found, primary_error = await _ask(self._servers.primary.read_primary)
        primary, history = found if found is not None else (None, "")
        diverged = own is not None and primary is not None and not holds(history, own.position)
        merged = False
        if diverged and own is not None:
            done, primary_error = await _ask(partial(merge.is_merged, self._servers.primary_rows, merge.merge_of(own)))
            merged = done is True
            primary = None if done is None else primary
        site = self._site
        return Seen(
            me=self._me,
            peer=self._peer,
            source=self._source.address,
            role=self._role(),
            own=own,
            own_error=own_error,
            primary=primary,
            primary_error=primary_error,
            diverged=diverged,
            merged=merged,
            copy=site.copy if site is not None else Copy.NONE,
            data=site.has_data if site is not None else True,
            cloned=site is not None and site.is_cloned,
            missing=self._missing,
        )

    async def plan(self) -> Step | Refused | Done:
        return next_step(await self.see(), self._wishes)

    async def run(self) -> None:
        """Until the own server is the replica of the other. Raises RejoinError."""
        before = None
        for _ in range(MOST_STEPS):
            seen = await self.see()
            step = next_step(seen, self._wishes)
            match step:
                case Done():
                    return
                case Refused(why):
                    raise RejoinError(why)
            if (seen, step) == before:
                raise RejoinError(f"{type(step).__name__} was done, and changed nothing")
            before = seen, step
            try:
                await self._carry_out(step, seen)
            except (StoreError, CloneError, KnownError, OSError) as error:
                raise RejoinError(str(error)) from error
        raise RejoinError("it goes in circles; `dlrproxy rejoin --plan` shows the next step")

    async def _carry_out(self, step: Step, seen: Seen) -> None:
        own = self._servers.own
        match step:
            case r.MakeReadOnly():
                self._say("making this node's database server read-only")
                await own.make_read_only()
            case r.Merge():
                await self._merge(seen)
            case r.Replicate(cloned):
                await self._replicate(seen, cloned=cloned)
            case _:
                await self._on_disk(step, self._site)

    async def _on_disk(self, step: Step, site: CloneSite | None) -> None:
        if site is None:
            raise RejoinError("pair.server_data_dir is not set")
        if not isinstance(step, r.StartServer) and not self._replacing:
            self._replacing = self._may_replace()
            if not self._replacing:
                raise RejoinError("the data is not to be replaced; nothing of it was touched")
        match step:
            case r.Fetch():
                self._say(f"fetching a clone of {self._peer}'s database server; the more data, the longer it takes")
                await trio.to_thread.run_sync(site.fetch)
            case r.Prepare():
                self._say("making the clone ready")
                await trio.to_thread.run_sync(site.prepare)
            case r.SwapIn():
                await self._swap_in(site)
            case _:
                self._say("starting this node's database server")
                await trio.to_thread.run_sync(site.start)
                await self._until_it_answers()

    async def _merge(self, seen: Seen) -> None:
        if seen.own is None:
            raise RejoinError("this node's database server cannot be reached")
        servers = self._servers
        known = parted_at(await merge.read_known(servers.own_rows), await merge.read_known(servers.primary_rows))
        self._say("looking for what only this node's database server has")
        done = await self._merger.run(servers.own_rows, servers.primary_rows, merge.merge_of(seen.own), known)
        self._say(_described(done, self._peer))

    async def _swap_in(self, site: CloneSite) -> None:
        self._say("stopping this node's database server")
        await trio.to_thread.run_sync(site.stop)
        await self._until_it_has_stopped()
        old = await trio.to_thread.run_sync(site.swap_in)
        if old is not None:
            self._say(f"the old data is in {old}: remove it when nobody wants it any more")
        self._wishes = attrs.evolve(self._wishes, clone=False, lost=False)
        self._say("starting it on the clone")
        await trio.to_thread.run_sync(site.start)
        await self._until_it_answers()

    async def _replicate(self, seen: Seen, *, cloned: bool) -> None:
        own = self._servers.own
        self._say(f"replicating from {self._source.address}")
        if cloned and self._site is not None:
            await own.stop_replica()
            await own.start_afresh_at(self._site.position())
            await trio.to_thread.run_sync(self._site.forget_mark)
        elif seen.own is not None:
            await self._start_at(seen.own.position)
        await own.replicate_from(self._source, self._heartbeat_s)
        await own.start_replica()
        await self._until_it_replicates()

    async def _start_at(self, position: str) -> None:
        """This node, if it runs, starts what it finds stopped: then once more."""
        own = self._servers.own
        for _ in range(TRIES - 1):
            await own.stop_replica()
            with suppress(StatementError):
                return await own.start_at(position)
        await own.stop_replica()
        return await own.start_at(position)

    # Waiting

    async def _until_it_replicates(self) -> None:
        """Or cannot: that is seen next, or said here."""
        error = "it has not connected"
        with trio.move_on_after(REPLICATE_S):
            while True:
                own = await self._servers.own.read()
                if own.running or own.beyond_repair:
                    return
                error = own.error or error
                await trio.sleep(POLL_S)
        raise RejoinError(f"replication does not start: {error}")

    async def _until_it_answers(self) -> None:
        error = ""
        with trio.move_on_after(START_S):
            while True:
                own, error = await _ask(self._servers.own.read)
                if own is not None:
                    return
                await trio.sleep(POLL_S)
        raise RejoinError(f"this node's database server was started, and cannot be reached: {error}")

    async def _until_it_has_stopped(self) -> None:
        """Its data is not touched while it may write to it."""
        with trio.move_on_after(START_S):
            while True:
                own, _ = await _ask(self._servers.own.read)
                if own is None:
                    return
                await trio.sleep(POLL_S)
        raise RejoinError("stop_command has ended, and this node's database server still answers")


async def _ask(question: Callable[[], Awaitable[T]]) -> tuple[T | None, str]:
    try:
        return await question(), ""
    except SqlError as error:
        return None, str(error)


def _described(done: Merged, peer: str) -> str:
    said = (
        f"{done.opens} open messages, {done.custody} of custody and {done.parked} parked items were here only, and are "
        f"with {peer} now; a copy of each is in {done.audit}"
    )
    if done.left:
        said += f"; {done.left} rows could not be merged, and are in that file alone"
    return said
