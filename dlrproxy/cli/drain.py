"""`dlrproxy drain`: take a node out of service and see it become empty."""

import math
import time
from collections.abc import Callable
from typing import Final

import click

from dlrproxy.admin.client import AdminError, Client, NotRunningError
from dlrproxy.admin.view import Drain, DrainState, NodeStatus
from dlrproxy.cli.asking import asks_node
from dlrproxy.cli.showing import count

POLL_S: Final = 1.0
_NOT_EMPTY = 1


@click.command()
@asks_node
@click.option(
    "--undo", is_flag=True, help="Put a node that was drained back into service: it binds and takes MT again."
)
@click.option("--stop", is_flag=True, help="End the node gracefully; what is left in custody waits for its next start.")
@click.option("--timeout", type=click.FloatRange(0), help="Wait no longer than so many seconds.  [default: no limit]")
def drain(client: Client, *, undo: bool, stop: bool, timeout: float | None) -> None:
    """Take the node of CONFIG out of service, and wait until that is done; or put it back.

    It lets go of its operator binds and refuses new messages, and stays up until what is in custody has been delivered
    or has reached its owner: then the gateway can be pointed back at the operator, or the node be removed, and nothing
    is left behind. Interrupting this command does not stop the drain. Exit code 1 when it is not done in time.
    """
    if undo:
        if stop or timeout is not None:
            raise click.UsageError("--undo goes alone; a node that stops is started again.")
        client.post("/undrain", DrainState, {})
        click.echo("the node is in service, or on its way back; see its binds with: dlrproxy status")
        return
    mode: Drain = "stop" if stop else "custody"
    state = client.post("/drain", DrainState, {"mode": mode})
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        done = follow(client, mode, state, lambda: pause(deadline))
    except KeyboardInterrupt:
        click.echo("the drain goes on; see it with: dlrproxy status", err=True)
        raise
    if not done:
        click.echo("not done in time; the drain goes on", err=True)
        raise SystemExit(_NOT_EMPTY)


def pause(deadline: float | None) -> bool:
    """False when the time is up."""
    left = math.inf if deadline is None else deadline - time.monotonic()
    if left <= 0:
        return False
    time.sleep(min(POLL_S, left))
    return True


def follow(client: Client, mode: Drain, state: DrainState, wait: Callable[[], bool]) -> bool:
    """Say how far it is whenever that changes. True when it is done, False when `wait` says that the time is up."""
    said = None
    while True:
        if state != said:
            click.echo(str(state))
            said = state
        if mode == "custody" and state.empty:
            click.echo("custody is empty, and the operators have been let go")
            return True
        if not wait():
            return False
        try:
            state = DrainState.of(client.get("/status", NodeStatus))
        except NotRunningError:
            return _ended(mode, state)
        except AdminError:
            if mode == "custody":
                raise
            # It ends in the middle of an answer, perhaps; then the next question finds nobody.


def _ended(mode: Drain, state: DrainState) -> bool:
    """The node is gone."""
    if mode == "custody":
        raise AdminError(f"the node has ended; {count(state.custody)} were in custody, and wait for its next start")
    click.echo("the node has stopped" + (f"; {count(state.custody)} in custody wait on disk" if state.custody else ""))
    return True
