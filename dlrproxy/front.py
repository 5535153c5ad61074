"""One operator at this node as a whole: its relay, its binds and its listeners, started and stopped together."""

import trio
from structlog.typing import FilteringBoundLogger

from dlrproxy.gateways import Gateways
from dlrproxy.operators import Operators
from dlrproxy.relay import Relay


class Front:
    """What faces one operator and its gateways."""

    def __init__(self, relay: Relay, log: FilteringBoundLogger) -> None:
        self.relay = relay
        self.name = relay.operator.name
        self.operators = Operators(relay, log)
        self._gateways = Gateways(relay, log)
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._binds = trio.CancelScope()
        self._binds_gone = trio.Event()
        self._gone = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until closed or cancelled; started when it listens.

        Raises OSError for an address that cannot be listened on, TlsError for certificates that cannot be used.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self.relay.run)
                    await nursery.start(self._gateways.run)
                    await nursery.start(self._keep_binds)
                    task_status.started()
        finally:
            self.relay.hand_over.end()
            self._gone.set()

    async def _keep_binds(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        begun = False
        try:
            with self._binds:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.operators.run)
                    begun = True
                    task_status.started()
            if not begun:  # let go of before they were there
                task_status.started()
        finally:
            self._binds.cancel()  # so that `resume` knows, also when it could not begin
            self._binds_gone.set()

    def without_binds(self) -> None:
        """Before `run`, on a node that drains: serve the gateways, refuse MT, and bind nowhere."""
        self.relay.draining = True
        self._binds.cancel()

    async def release_binds(self) -> None:
        """Unbind from the operator, in a bounded time; what is outstanding is answered before (promise 8)."""
        self._binds.cancel()
        await self._binds_gone.wait()

    async def resume(self) -> None:
        """Take MT and keep binds again, after `release_binds` or `without_binds` on a node that drained.

        Raises OSError for an outbind address that cannot be listened on, TlsError for its certificates, in a group.
        """
        self.relay.draining = False
        if self._nursery is None or not self._binds.cancel_called:
            return
        await self._binds_gone.wait()
        if not self.relay.draining:  # it may stop by now
            self._binds, self._binds_gone = trio.CancelScope(), trio.Event()
            await self._nursery.start(self._keep_binds)

    async def quiet(self, deadline: float) -> None:
        """Refuse MT, take nothing from custody, and wait until nothing is in flight: at most until `deadline`."""
        self.relay.draining = True
        self.relay.hand_over.closing = True
        with trio.CancelScope(deadline=deadline):
            await self.relay.settled()

    async def close(self, deadline: float) -> None:
        """End this operator alone: finish what is in flight, unbind on both sides, release the listeners.

        What is not finished by `deadline` (trio's clock) is not waited for.
        """
        await self.quiet(deadline)
        await self.release_binds()
        await self.quiet(deadline)  # for what the operator has sent while it was let go of
        await self.unbind_gateways()
        self._scope.cancel()
        await self._gone.wait()

    def cut(self, reason: str) -> None:
        """At once: listen no more, dial no more, and say nothing but unbind on every connection that there is.

        `parted` waits for their ends, and `run` is to be cancelled then.
        """
        self.relay.hand_over.closing = True
        self._gateways.close_listeners()
        self.operators.dial_no_more()
        self.relay.cut(reason)

    async def parted(self) -> None:
        """Wait until the other ends have closed as well; the caller sets the deadline."""
        await self._gateways.gone()
        await self.operators.gone()

    def renew_certificates(self) -> None:
        """Those of the listeners, if they have changed; those for dialling are read for every connection."""
        self._gateways.renew_certificates()
        self.operators.renew_certificates()

    async def unbind_gateways(self) -> None:
        """Take no new sessions and unbind those there are, in a bounded time."""
        await self._gateways.stop()
