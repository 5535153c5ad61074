"""Group commit: what is put collects in one group while the one before it is made durable.

How a write becomes durable:

    collecting                 the group that takes what is put
    run                        takes the group; the backend makes it durable; then its callbacks are called. What is
                               written meanwhile collects: the slower the backend, the larger the groups
    a write that takes long    `accepting` is False until it is done. With a journal: what waits for open messages alone
                               is called when they are in that (`journalling`)
    a failed write             nobody is told anything. `accepting` is False, the backend is replaced, the same group is
                               written again, with back-off, until it is durable

What "durable" takes is the backend's (`backend.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio
from attrs import frozen

from dlrproxy.store.backend import Backend, WriteError
from dlrproxy.store.group import Callback, Group
from dlrproxy.store.journal import Journal
from dlrproxy.store.journalling import Journalling
from dlrproxy.store.port import StoreError
from dlrproxy.store.space import Space

REMEMBERED: Final = 200_000  # open messages in memory, some 100 MB; 200 s of reports at 1,000 messages a second
# A write that takes longer stands still. Below the gateways' and the operator's patience, so that they hear of it.
STALLED_S: Final = 2.0
REOPEN_MIN_S: Final = 0.1
REOPEN_MAX_S: Final = 5.0

_log = structlog.get_logger()


@frozen(kw_only=True)
class StoreOptions:
    """What a store on a disk and one in a database server differ in, beside their backends."""

    name: str  # how errors call it
    space: Space
    remembered: int = REMEMBERED
    max_waiting_bytes: int  # above it nothing is accepted
    give_up_s: float  # see `Commits.run`
    journal: Journal | None = None  # its maker's to close
    journal_after_s: float = 0.0  # it is used once a commit takes longer


class Commits:
    """Exactly one task runs `run`; `close` comes after it. The promises are those of `port.Store`."""

    def __init__(self, backend: Backend, options: StoreOptions, *, began: Callable[[], None]) -> None:
        """`began` is called whenever a group has begun to be made durable, and another one collects."""
        self.number = 0
        self.collecting = Group()
        self.committing: Group | None = None
        self._backend = backend
        self._name = options.name
        self._space = options.space
        self._max_waiting_bytes = options.max_waiting_bytes
        self._give_up_s = options.give_up_s
        self._began = began
        self._began_at = 0.0  # trio's clock
        self._work = trio.Event()
        self._running = False
        self._failing = False
        self._abandoned = False
        # Of each reader that is away at the backend, all groups that were not durable at any time since it left.
        self._readers: dict[object, list[Group]] = {}
        self._journalling = (
            None
            if options.journal is None
            else Journalling(options.journal, options.journal_after_s, self._uncommitted)
        )

    @property
    def accepting(self) -> bool:
        stalled = self.committing is not None and trio.current_time() > self._began_at + STALLED_S
        return not (stalled or self._failing or self._space.low or self.collecting.size > self._max_waiting_bytes)

    @property
    def waiting(self) -> tuple[Group, ...]:
        """The groups that are not durable, in their order. The last one may be empty."""
        return (self.collecting,) if self.committing is None else (self.committing, self.collecting)

    @property
    def idle(self) -> bool:
        """Everything is durable."""
        return self.committing is None and not self.collecting

    def changed(self) -> None:
        """Something was put into the collecting group."""
        self._work.set()

    @contextmanager
    def reading(self) -> Iterator[list[Group]]:
        """What is not durable now, or is put meanwhile: a row that is read may be older than any of it."""
        written = list(self.waiting)
        reader = object()
        self._readers[reader] = written
        try:
            yield written
        finally:
            del self._readers[reader]

    def after_durable(self, callback: Callback) -> None:
        if self.collecting:
            self.collecting.callbacks.append(callback)
        elif self.committing is not None:
            self.committing.callbacks.append(callback)
        else:
            callback()

    def after_opened(self, callback: Callback) -> None:
        if self._journalling is None:
            self.after_durable(callback)
        elif self.collecting:
            self.collecting.openers.append(callback)
        elif self.committing is not None:
            self.committing.openers.append(callback)
        else:
            callback()
        if self._journalling is not None:
            self._journalling.changed()

    def _uncommitted(self) -> list[Group]:
        """The groups that are not durable, in their order. Nobody may count as theirs what is put from now on."""
        self.number += 1
        return list(self.waiting)

    async def run(self) -> None:
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._space.watch)
                if self._journalling is not None:
                    nursery.start_soon(self._journalling.run)
                while True:
                    await self._work.wait()
                    self._work = trio.Event()
                    await self._commit(self._give_up_s)
        finally:
            self._running = False

    async def _commit(self, give_up_s: float) -> None:
        """Make durable what is written, call back, and again until nothing is left."""
        while True:
            if self.committing is None:  # else: what a cancelled `run` left to `close`
                if not self.collecting:
                    return
                await trio.lowlevel.checkpoint()  # what is ready in this turn of the loop joins
                self.committing, self.collecting = self.collecting, Group()
                for seen in self._readers.values():
                    seen.append(self.collecting)
                self._began_at = trio.current_time()
                if self._journalling is not None:
                    self._journalling.began(self._began_at)
                self.number += 1
                self._began()
            await self._make_durable(self.committing, give_up_s)
            if self._journalling is not None:
                self._journalling.durable(self.committing)
            self.committing.finish()
            self.committing = None

    async def _make_durable(self, group: Group, give_up_s: float) -> None:
        """Write until it is durable. Raises StoreError when the store is lost."""
        delay = REOPEN_MIN_S
        failed_since = None
        while (why := await self._try(group)) is not None:
            self._space.check()
            now = trio.current_time()
            if failed_since is None or self._space.low:
                failed_since = now  # a full disk is waited for: only a disk with room can be lost
            _log.error("store.commit_failed", why=why, writes=len(group), waiting=len(self.collecting))
            if now - failed_since >= give_up_s:
                raise StoreError(
                    f"{self._name} cannot be written: {why}. Nothing that was acknowledged is lost; look at it, "
                    "then start again"
                )
            await trio.sleep(delay)
            delay = min(delay * 2, REOPEN_MAX_S)
        if self._failing:
            self._failing = False
            _log.warning("store.commit_resumed", writes=len(group))

    async def _try(self, group: Group) -> str | None:
        """Why it failed, or None: the group is durable. Raises WriteError where trying again is of no use."""
        try:
            if self._failing:
                await self._backend.replace()
            await self._backend.write(group)
        except WriteError as error:
            self._failing = True
            if error.lost:
                raise
            return error.why
        return None

    def abandon(self) -> None:
        """See `GroupedStore.abandon`."""
        self._abandoned = True
        self._backend.abandon()

    async def close(self) -> None:
        self._check_ended()
        try:
            if self._journalling is not None:
                await self._close_journalling(self._journalling)
            elif not self._abandoned:
                await self._commit(give_up_s=0.0)
        finally:
            await self._backend.close()

    async def _close_journalling(self, journalling: Journalling) -> None:
        if self._abandoned:
            await journalling.save()
            return
        failure: StoreError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journalling.run)  # whoever waits for this may lose patience
            try:
                await self._commit(give_up_s=0.0)
            except StoreError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            await journalling.save()
            raise failure
        await journalling.forget()

    def _check_ended(self) -> None:
        if self._running:
            raise RuntimeError("cancel `run` and wait for its end before closing: two writers would race")
