"""A node in this process: its log, its signals, and how its end is told."""

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import trio

from dlrproxy.collector import CustodyCollector, tune_collector
from dlrproxy.config import Config, ConfigError, load
from dlrproxy.config.changes import ReloadRefusedError
from dlrproxy.failures import leaves
from dlrproxy.log_sink import Sink
from dlrproxy.logs import configure, logger
from dlrproxy.node import Node
from dlrproxy.store.port import StoreError

if TYPE_CHECKING:
    from dlrproxy.modes.intermittent import IntermittentNode

RunningNode: TypeAlias = "Node | IntermittentNode[Any]"

# A worker thread that has made a group durable waits for the interpreter; at the default interval of 5 ms a commit of
# 0.2 ms was measured to take 8 to 28.
_SWITCH_INTERVAL_S = 0.0005

# What needs no disk ends in a moment, with a word to the peers. A thread that a disk holds inside fsync cannot be
# cancelled, and is not waited for: nothing that was acknowledged depends on it.
_AT_ONCE_S = 1.0

_COLLECTOR_S = 1.0  # in which custody does not grow by much more than a `collector.STEP`

_IN_ORDER = 0
_FAILED = 1
_CUT_SHORT = 130  # as a shell reports an interrupted command

# What the surroundings do to a node: a listener that cannot be bound, certificates that cannot be used, a disk.
_EXPECTED = (StoreError, OSError, ValueError)


def run_node(config_file: Path, hung_up: Sequence[int]) -> int:
    """Until a signal; the exit status. `hung_up` is not empty when SIGHUP has come already.

    Raises ConfigError, and click's errors.
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
    node = _node(config, sink)
    try:
        finished = trio.run(_until_signal, node, sink, config_file, hung_up)
    except Exception as error:
        _tell(error, running=node.started.is_set())
        raise SystemExit(_FAILED) from error
    return _IN_ORDER if finished else _CUT_SHORT


def _node(config: Config, sink: Sink) -> "RunningNode":
    """Of the mode that is wanted. Only a node with a database server loads what speaks to one."""
    if config.node.mode == "active-passive":
        from dlrproxy.modes.active_passive import PairNode

        return PairNode(config, sink)
    if config.node.mode == "quorum":
        from dlrproxy.modes.quorum_node import QuorumNode

        return QuorumNode(config, sink)
    return Node(config, sink)


def _tell(error: Exception, *, running: bool) -> None:
    """Why there is no node: each reason in the log, and for whoever sits in front of it."""
    for leaf in leaves(error):
        traced = leaf if running or not isinstance(leaf, _EXPECTED) else None
        event = "node.failed" if running else "node.cannot_start"
        logger("node").error(event, error=type(leaf).__name__, detail=str(leaf), exc_info=traced)
        click.echo(f"Error: {leaf}" if isinstance(leaf, _EXPECTED) else f"Error: {leaf!r}; see the log", err=True)


async def _until_signal(node: "RunningNode", sink: Sink, config_file: Path, hung_up: Sequence[int]) -> bool:
    """True when the node has ended in good order."""
    ask, asked = trio.open_memory_channel[None](1)  # one reload at a time; one more does for all that come meanwhile
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        if hung_up:
            ask.send_nowait(None)
        finished = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_reload_when_asked, asked, node, config_file)
            nursery.start_soon(_obey, signals, node, sink, ask, nursery.cancel_scope)
            nursery.start_soon(_spare_collector, node)
            await node.run()
            finished = True
            nursery.cancel_scope.cancel()
    return finished


async def _obey(
    signals: AsyncIterator[int],
    node: "RunningNode",
    sink: Sink,
    ask: trio.MemorySendChannel[None],
    scope: trio.CancelScope,
) -> None:
    """SIGHUP asks for a reload; the first of the others ends the node gracefully, the second at once."""
    log = logger("node")
    stopping = False
    async for number in signals:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            _reopen(sink)
            with suppress(trio.WouldBlock):
                ask.send_nowait(None)
        elif not stopping:
            stopping = True
            log.info("node.signal", signal=name)
            node.stop()
        else:
            log.warning("node.second_signal", signal=name)
            _end_at_once()
            scope.cancel()


async def _spare_collector(node: "RunningNode") -> None:
    await node.started.wait()
    collector = CustodyCollector()
    while True:
        term = node.term  # a node of a pair has one only while it serves
        collector.holds(0 if term is None else term.keeper.in_custody())
        await trio.sleep(_COLLECTOR_S)


def _end_at_once() -> None:
    timer = threading.Timer(_AT_ONCE_S, os._exit, [_CUT_SHORT])
    timer.daemon = True
    timer.start()


def _reopen(sink: Sink) -> None:
    try:
        sink.reopen()
    except OSError as error:
        logger("node").error("log.cannot_reopen", detail=str(error))


async def _reload_when_asked(asked: trio.MemoryReceiveChannel[None], node: "RunningNode", config_file: Path) -> None:
    async for _ in asked:
        await _reload(node, config_file)


async def _reload(node: "RunningNode", config_file: Path) -> None:
    try:
        await node.reload(load(config_file))
    except ConfigError as error:
        _refuse(config_file, [str(problem) for problem in error.problems])
    except ReloadRefusedError as error:
        _refuse(config_file, error.problems)
    except ValueError as error:  # certificates that cannot be used
        _refuse(config_file, [str(error)])


def _refuse(config_file: Path, problems: Sequence[str]) -> None:
    logger("node").error("config.reload_refused", file=str(config_file), problems=list(problems))
