"""The service of a node that serves only at times: a term of service is begun when it may, and ended when it must.

serve      the store is opened, and a `Term` run on it; whatever goes wrong with that is tried again
release    at once nothing more is sent or answered; unbind, for GOODBYE_S at most; what the store has not made
           durable is abandoned, and no database waited for
wind_down  gracefully, as on SIGTERM: what is in flight is finished first
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from attrs import define, field

from dlrproxy.clock import NodeClock
from dlrproxy.config import Config
from dlrproxy.config.changes import ReloadRefusedError
from dlrproxy.failures import leaves
from dlrproxy.housekeeping import always
from dlrproxy.logs import RouteLog, logger
from dlrproxy.mo.conversations import Conversations
from dlrproxy.sessions.licence import Licence
from dlrproxy.store.grouped import GroupedStore
from dlrproxy.store.port import StoreError
from dlrproxy.term import Term

RETRY_MIN_S: Final = 0.5
RETRY_MAX_S: Final = 10.0
_DOUBLINGS: Final = 10  # from the one to far beyond the other
CLOSE_S: Final = 5.0  # for a last commit at a graceful end; what it was for stays with the operator and the gateways

# What the surroundings do to a term: a database, a listener's address, certificates.
_EXPECTED = (StoreError, OSError, ValueError)


@define(eq=False)
class _Turn:
    """From one `serve` to the end of what that has begun."""

    epoch: int
    licence: Licence
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)
    store: GroupedStore | None = None
    term: Term | None = None
    nursery: trio.Nursery | None = None  # from the term's beginning to its end; what is in it ends with that
    open: bool = False  # custody is there: the term can be asked
    ending: bool = False


class Terms:
    """A `pair_driver.Service`."""

    def __init__(
        self,
        config: Config,
        open_store: Callable[[], Awaitable[GroupedStore]],
        clock: NodeClock,
        routes: RouteLog,
        until: Callable[[], float],
        *,
        name: str = "pair",
        expires: Callable[[], bool] = always,
    ) -> None:
        """`open_store` raises StoreError. After `until`, a time of trio's clock, nothing is sent or answered.

        `name` is what log events begin with. `expires`: whether this node deletes open messages whose time is up.
        """
        self.config = config  # for the next term
        self._open_store = open_store
        self._clock = clock
        self._routes = routes
        self._until = until
        self._name = name
        self._expires = expires
        self._conversations = Conversations(config.mo.conversation_s)
        self._turn: _Turn | None = None
        # Since a term has listened last. It counts on from turn to turn: in a quorum each attempt takes one of its own.
        self._failures = 0
        self._nursery: trio.Nursery | None = None
        self._log = logger(name)

    @property
    def term(self) -> Term | None:
        """The one that can be asked now."""
        turn = self._turn
        return turn.term if turn is not None and turn.open else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when `serve` may be called."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def serve(self, epoch: int) -> None:
        """Begin, and return at once."""
        if self._nursery is None:
            raise AssertionError("`run` is not running")
        self._turn = _Turn(epoch, Licence(self._until))
        self._nursery.start_soon(self._serve, self._turn)

    async def release(self, why: str) -> None:
        turn = self._turn
        if turn is None:
            return
        turn.licence.revoke()
        turn.ending = True
        if turn.term is not None:
            await turn.term.release(why)
        if turn.store is not None:
            turn.store.abandon()
        turn.scope.cancel()
        await turn.over.wait()
        self._turn = None
        self._log.info(f"{self._name}.released", why=why, epoch=turn.epoch)

    async def wind_down(self) -> None:
        """Return when nothing is served any more, within about `drain_s`. `release` cuts it short."""
        turn = self._turn
        if turn is None:
            return
        turn.ending = True
        if turn.nursery is not None and turn.term is not None and turn.term.started.is_set():
            turn.term.stop()
        else:
            if turn.store is not None:
                turn.store.abandon()
            turn.scope.cancel()
        await turn.over.wait()

    async def reload(self, config: Config) -> bool:
        """Take over another configuration, for the term that there is and for the next one. False: that one alone.

        Waits for a term that has just begun. Raises as `Term.reload` does, and then nothing has changed.
        """
        turn = self._turn
        if turn is None or turn.ending or turn.term is None or turn.nursery is None:
            self.config = config
            return False
        try:
            await _reload_in(turn.nursery, turn.term, config)
        except ReloadRefusedError:
            if not turn.ending:
                raise
        self.config = config
        return not turn.ending

    # One turn

    async def _serve(self, turn: _Turn) -> None:
        try:
            with turn.scope:
                await self._keep_serving(turn)
        finally:
            turn.over.set()

    async def _keep_serving(self, turn: _Turn) -> None:
        while not _is_over(turn):
            problems: list[str] = []
            try:
                await self._serve_once(turn)
            except* _EXPECTED as group:
                problems = [str(error) for error in leaves(group)]
            if _is_over(turn):
                if problems:
                    self._log.error(f"{self._name}.ended_badly", epoch=turn.epoch, detail="; ".join(problems))
                return
            delay = min(RETRY_MIN_S * 2 ** min(self._failures, _DOUBLINGS), RETRY_MAX_S)
            self._failures += 1
            self._log.error(f"{self._name}.cannot_serve", epoch=turn.epoch, detail="; ".join(problems), wait_s=delay)
            await trio.sleep(delay)

    async def _serve_once(self, turn: _Turn) -> None:
        """Until the term has ended. Raises what makes one impossible, in a group."""
        turn.term = None
        turn.store = store = await self._open_store()
        try:
            async with trio.open_nursery() as around:
                around.start_soon(store.run)
                turn.term = Term(
                    self.config, self._clock, self._routes, self._conversations, turn.licence, expires=self._expires
                )
                turn.nursery = around
                try:
                    await self._run_term(turn, turn.term, store)
                finally:
                    turn.open, turn.nursery = False, None  # before that closes: nothing more comes into it
                around.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _close(store)
            turn.store = None

    async def _run_term(self, turn: _Turn, term: Term, store: GroupedStore) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(term.run, store, partial(_opened, turn)))
            self._failures = 0
            self._log.info(
                f"{self._name}.serving",
                epoch=turn.epoch,
                operators=sorted(term.fronts),
                custody=term.keeper.in_custody(),
            )


def _is_over(turn: _Turn) -> bool:
    """Asked for anew: others end it while this waits."""
    return turn.ending


async def _reload_in(nursery: trio.Nursery, term: Term, config: Config) -> None:
    """Return when it is done, or the nursery is cancelled. Raises as `Term.reload` does."""
    refused: list[ValueError] = []
    done = trio.Event()

    async def reload() -> None:
        try:
            await term.reload(config)
        except ValueError as error:
            refused.append(error)
        finally:
            done.set()

    nursery.start_soon(reload)
    await done.wait()
    if refused:
        raise refused[0]


async def _opened(turn: _Turn) -> None:
    turn.open = True


async def _close(store: GroupedStore) -> None:
    """Raises StoreError when the last commit was not possible within CLOSE_S."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_abandon_later, store)
        try:
            await store.close()
        finally:
            nursery.cancel_scope.cancel()


async def _abandon_later(store: GroupedStore) -> None:
    await trio.sleep(CLOSE_S)
    store.abandon()
