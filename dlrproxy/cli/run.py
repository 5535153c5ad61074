"""`dlrproxy run`: one node, until a signal."""

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click
import trio

from dlrproxy.cli.collector import tune_collector
from dlrproxy.config import ConfigError, load
from dlrproxy.log_sink import Sink
from dlrproxy.logs import configure, logger
from dlrproxy.node import Node
from dlrproxy.store.port import StoreError

# A worker thread that has made a group durable waits for the interpreter; at the default interval of 5 ms a commit of
# 0.2 ms takes 8 to 28 (perf-notes).
_SWITCH_INTERVAL_S = 0.0005

_FAILED = 1
_CUT_SHORT = 130  # as a shell reports an interrupted command


@click.command()
@click.argument("config_file", type=click.Path(path_type=Path))
def run(config_file: Path) -> None:
    """Run one node with the settings in CONFIG_FILE.

    SIGTERM or SIGINT ends it gracefully within node.drain_s: MT are refused, what is in flight is finished, the binds
    are released; custody stays on disk for the next start. A second signal ends it at once; nothing that was
    acknowledged is lost then either. SIGHUP opens the log file again, and takes over operators and peers that were
    added, changed or removed; a file with an error changes nothing.
    """
    config = load(config_file)
    try:
        sink = configure(config.log, node=config.node.name)
    except OSError as error:
        raise click.ClickException(f"log.file: {config.log.file}: {error.strerror}") from error
    for warning in config.warnings:
        logger("config").warning("config.warning", path=warning.path, detail=warning.text)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    tune_collector()
    node = Node(config)
    try:
        finished = trio.run(_until_signal, node, sink, config_file)
    except* StoreError as group:
        _end("store.lost", group)
    except* (OSError, ValueError) as group:  # a listener that cannot be bound, certificates that cannot be used
        _end("node.cannot_start", group)
    else:
        sys.exit(0 if finished else _CUT_SHORT)


def _end(event: str, group: BaseExceptionGroup) -> None:
    for error in _leaves(group):
        logger("node").error(event, detail=str(error))
        click.echo(f"Error: {error}", err=True)
    sys.exit(_FAILED)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def _until_signal(node: Node, sink: Sink, config_file: Path) -> bool:
    """True when the node has ended in good order."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        finished = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, node, sink, config_file, nursery.cancel_scope)
            await node.run()
            finished = True
            nursery.cancel_scope.cancel()
    return finished


async def _obey(
    signals: AsyncIterator[int], node: Node, sink: Sink, config_file: Path, scope: trio.CancelScope
) -> None:
    """SIGHUP reloads; the first of the others ends the node gracefully, the second at once."""
    log = logger("node")
    stopping = False
    async for number in signals:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            _reopen(sink)
            await _reload(node, config_file)
        elif not stopping:
            stopping = True
            log.info("node.signal", signal=name)
            node.stop()
        else:
            log.warning("node.second_signal", signal=name)
            scope.cancel()


def _reopen(sink: Sink) -> None:
    try:
        sink.reopen()
    except OSError as error:
        logger("node").error("log.cannot_reopen", detail=str(error))


async def _reload(node: Node, config_file: Path) -> None:
    try:
        await node.reload(load(config_file))
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
        logger("node").error("config.reload_refused", file=error.source, problems=problems)
    except ValueError as error:  # certificates that cannot be used
        logger("node").error("config.reload_refused", file=str(config_file), problems=[str(error)])
