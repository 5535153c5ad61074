"""`dlrproxy witness`: the third place of a pair."""

import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from dlrproxy.config.keys import Address
from dlrproxy.config.tables import Log
from dlrproxy.logs import configure
from dlrproxy.modes.witness import Witness
from dlrproxy.modes.witness_link import serve
from dlrproxy.secret import Secret, SecretError, from_file

SHORTEST_SECRET: Final = 16  # bytes, as for every secret that nodes share
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})")


@click.command()
@click.option("--listen", required=True, metavar="HOST:PORT", help="The UDP address; 0.0.0.0:7390 for every interface.")
@click.option(
    "--secret-file", required=True, type=click.Path(path_type=Path), help="The pair's pair.witness_secret_file."
)
@click.option(
    "--lease-s", default=10.0, show_default=True, type=click.FloatRange(1, 3600),
    help="How long it lends itself: at least pair.fence_after_s + 2.",
)  # fmt: skip
def witness(listen: str, secret_file: Path, lease_s: float) -> None:
    """Lend this place to one node of a pair at a time, so that an active that has lost its standby may go on.

    It belongs on a machine that fails with neither of the two, and serves any number of pairs that share its secret. It
    keeps nothing on disk: for --lease-s after its start it lends itself to nobody. SIGTERM or SIGINT ends it.
    """
    address = _address(listen)
    try:
        secret = from_file(secret_file)
    except SecretError as error:
        raise click.ClickException(str(error)) from error
    if len(secret.reveal()) < SHORTEST_SECRET:
        raise click.ClickException(f"{secret_file} holds fewer than {SHORTEST_SECRET} bytes")
    configure(Log(), node="witness")
    try:
        trio.run(partial(_until_signal, address, secret, lease_s))
    except OSError as error:
        raise click.ClickException(f"{listen}: {error.strerror or error}") from error
    sys.exit(0)


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise click.UsageError("--listen takes HOST:PORT, as 0.0.0.0:7390 or [::]:7390")
    return Address(found["six"] or found["host"] or "0.0.0.0", int(found["port"]))


async def _until_signal(address: Address, secret: Secret, lease_s: float) -> None:
    """Raises OSError."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            lender = Witness(secret.reveal(), lease_s, trio.current_time())
            try:
                await nursery.start(serve, lender, address.host, address.port)
            except OSError:
                nursery.cancel_scope.cancel()
                raise
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return
