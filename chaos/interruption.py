"""A run that a signal may end in good order: all that it has started is cancelled, and so ended."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def uninterrupted(run: Callable[[], Awaitable[T]]) -> T | None:
    """What `run` returns; None where SIGINT, SIGTERM or SIGHUP came first. Raises what it raises, in a group."""
    result: T | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_on_signal, nursery.cancel_scope)
        result = await run()
        nursery.cancel_scope.cancel()
    return result


async def _cancel_on_signal(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
