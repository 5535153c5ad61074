"""When a store writes to its journal: while a commit takes too long, and not otherwise.

    a commit begins            noted, at no other cost
    it takes longer than that  the open messages of all groups that are not durable are written to the journal, and then
                               what waits for them is called: the committing group's first. Again when more is put
    the journal fails          nothing is called: gateways wait for the database, as they do without a journal. Tried
                               again every RETRY_S
    a group is durable         what the journal has of it is forgotten, soon

A process that dies before the journal's write has told nobody anything; after it, the messages are read from the
journal at the next start; after the commit and before the forgetting, they are compared with the database's, which
has the same or newer ones (`sql.homecoming`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog
import trio

from dlrproxy.store.group import Group, Key
from dlrproxy.store.journal import Journal, JournalError

if TYPE_CHECKING:
    from dlrproxy.store.port import OpenMessage

RETRY_S: Final = 1.0

_log = structlog.get_logger()


class Journalling:
    """One store's. `run` is a task of it."""

    def __init__(self, journal: Journal, after_s: float, uncommitted: Callable[[], list[Group]]) -> None:
        """`uncommitted` gives the groups that are not durable, in their order, and begins to count as a new group."""
        self._journal = journal
        self._after_s = after_s
        self._uncommitted = uncommitted
        self._late_at: float | None = None  # when the commit that is under way takes too long; trio's clock
        self._changed = trio.Event()
        self._writing: set[Key] = set()  # what the journal is about to have
        self._durable: dict[Key, OpenMessage] = {}  # of those in the journal: to be forgotten

    def began(self, now: float) -> None:
        """A commit has."""
        self._late_at = now + self._after_s

    def changed(self) -> None:
        """Somebody waits for open messages."""
        self._changed.set()

    def durable(self, group: Group) -> None:
        """Its commit has ended well."""
        self._late_at = None
        if self._journal.size or self._writing:
            for key, message in group.opens.items():
                if self._journal.knows(key) or key in self._writing:
                    self._durable[key] = message
            self._changed.set()

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            # A commit that begins later than now is not late before that.
            late_at = now + self._after_s if self._late_at is None else self._late_at
            if self._durable and not await self.forget():
                await trio.sleep(RETRY_S)
            elif now < late_at:
                await trio.sleep_until(late_at)
            else:
                await self._write()

    async def _write(self) -> None:
        self._changed = trio.Event()
        groups = self._uncommitted()
        waiting = [(group, len(group.openers)) for group in groups]
        fresh = any(group.fresh for group in groups)
        if fresh and not await self._journalled(groups):
            await trio.sleep(RETRY_S)
        elif fresh or any(count for _, count in waiting):
            for group, count in waiting:
                group.release(count)
        else:
            await self._changed.wait()

    async def _journalled(self, groups: list[Group]) -> bool:
        """Write what is new of these groups. False: it is not in the journal, and is new again."""
        taken = [(group, group.take_fresh()) for group in groups]
        messages = {key: message for _, fresh in taken for key, message in fresh.items()}  # of each key the newest
        first = not self._journal.size
        self._writing = set(messages)
        written = False
        try:
            await self._journal.write(messages.values())
            written = True
        except JournalError as error:
            _log.error("journal.failed", why=str(error), messages=len(messages))
            return False
        finally:
            self._writing = set()
            if not written:  # also when it was cancelled: `save` may come next
                for group, fresh in taken:
                    group.put_back(fresh)
        if first:
            _log.warning("journal.used", messages=len(messages), why=f"a commit takes longer than {self._after_s:g} s")
        return True

    async def forget(self) -> bool:
        """What is durable. False: it stays, for later or for the next start."""
        durable = dict(self._durable)
        if not durable:
            return True
        try:
            await self._journal.forget(durable.values())
        except JournalError as error:
            _log.error("journal.failed", why=str(error), forgetting=len(durable))
            return False
        for key, message in durable.items():
            if self._durable[key] is message:
                del self._durable[key]
        _log.warning("journal.forgotten", messages=len(durable), left=self._journal.size)
        return True

    async def save(self) -> None:
        """At the end, when the backend cannot be waited for: write what is not durable, and call nobody."""
        groups = self._uncommitted()
        if any(group.fresh for group in groups):
            await self._journalled(groups)
