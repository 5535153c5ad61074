"""`dlrproxy promote` and `dlrproxy demote`: which node of a pair serves. For people, and for keepalived's scripts."""

import time
from collections.abc import Callable
from typing import Final

import click

from dlrproxy.admin.client import Client
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.view import NodeStatus
from dlrproxy.cli.asking import asks_node

POLL_S: Final = 0.25
_NOT_YET: Final = 1

_wait_option = click.option(
    "--wait", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds until it must be done."
)


@click.command()
@asks_node
@click.option("--force", is_flag=True, help="Whatever the other node may be doing. Two active nodes cost reports.")
@_wait_option
def promote(client: Client, *, force: bool, wait: float) -> None:
    """Let the node of CONFIG take over, as soon as the other one cannot be active any more.

    Exit code 0 when it serves; at once where it does already. Exit code 1 when it does not in time: why is said, and
    the request stands until `dlrproxy demote`.
    """
    pair = client.post("/promote", PairStatus, {"force": force})
    pair, reached = _follow(client, pair, lambda now: now.role == "active" and now.serving, wait)
    if not reached:
        raise _NotYet(f"not active in time ({pair.role}): {pair.refused or pair.why}; the request stands")
    click.echo(f"active, epoch {pair.epoch}")


@click.command()
@asks_node
@_wait_option
def demote(client: Client, *, wait: float) -> None:
    """Let the node of CONFIG hand over: what is in flight is finished, and the other node may be promoted at once.

    Exit code 0 when it serves no more; at once where it did not serve. Exit code 1 when it does still: it goes on to
    hand over.
    """
    pair = client.post("/demote", PairStatus, {})
    pair, reached = _follow(client, pair, _has_handed_over, wait)
    if not reached:
        raise _NotYet("it serves still, and goes on to hand over")
    click.echo(f"{pair.role}: {pair.why}")


def _has_handed_over(pair: PairStatus) -> bool:
    own = pair.own
    takes_writes = pair.manages_database and own is not None and own.writable
    return pair.role != "active" and not pair.serving and not takes_writes


class _NotYet(click.ClickException):
    exit_code = _NOT_YET


def _follow(
    client: Client, pair: PairStatus, reached: Callable[[PairStatus], bool], wait_s: float
) -> tuple[PairStatus, bool]:
    """Until it is reached, or the time is up; what the node said last. Raises AdminError."""
    deadline = time.monotonic() + wait_s
    while not reached(pair):
        if time.monotonic() >= deadline:
            return pair, False
        time.sleep(POLL_S)
        status = client.get("/status", NodeStatus)
        if status.pair is None:
            raise AssertionError("a node does not change its mode")
        pair = status.pair
    return pair, True
