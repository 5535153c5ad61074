"""Running a simulator until it ends, its time is up or a signal comes, and showing what it counted."""

import json
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import trio

from dlrproxy.failures import leaves
from dlrproxy.simulator.ledger import Ledger

PROGRESS_S = 5.0

_OPTIONS = (
    click.option("--duration", default=None, type=click.FloatRange(0), help="Stop after so many seconds."),
    click.option(
        "--ledger",
        "ledger_path",
        default=None,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Append every event to this file, as JSON lines.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, and no progress."),
)


def playing(command: Callable[..., None]) -> Callable[..., None]:
    """What every simulator can be told: `duration`, `ledger_path`, `as_json`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_ledger(path: Path | None) -> Ledger:
    """A ledger of events that only the file needs."""
    try:
        return Ledger(path, keep=False)
    except OSError as error:
        raise click.ClickException(f"--ledger: {error}") from error


def run(
    serve: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    duration: float | None,
    progress: Callable[[], str] | None,
) -> None:
    """Until `serve` returns. After `duration`, and at the first SIGINT or SIGTERM, `stop` is called; a second signal
    ends it at once. `progress` is a line to show every few seconds.

    Raises ClickException where the operating system refuses something: a port in use, a full disk.
    """
    refused: Sequence[BaseException] = ()
    try:
        trio.run(_run, serve, stop, duration, progress)
    except* OSError as group:
        refused = leaves(group)
    if refused:
        raise click.ClickException("; ".join(map(str, refused)))


async def _run(
    serve: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    duration: float | None,
    progress: Callable[[], str] | None,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, stop, nursery.cancel_scope)
        if duration is not None:
            nursery.start_soon(_stop_after, duration, stop)
        if progress is not None:
            nursery.start_soon(_show_progress, progress)
        await serve()
        nursery.cancel_scope.cancel()


async def _stop_on_signal(stop: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stopping = False
            async for _ in signals:
                if stopping:
                    scope.cancel()
                stopping = True
                nursery.start_soon(stop)


async def _stop_after(duration: float, stop: Callable[[], Awaitable[None]]) -> None:
    await trio.sleep(duration)
    await stop()


async def _show_progress(progress: Callable[[], str]) -> None:
    while True:
        await trio.sleep(PROGRESS_S)
        click.echo(progress(), err=True)


def show(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """A line for each value, or one JSON object."""
    if as_json:
        click.echo(json.dumps(summary))
        return
    width = max(map(len, summary))
    for name, value in summary.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
    return "-" if value is None else str(value)
