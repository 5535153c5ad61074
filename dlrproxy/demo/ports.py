"""Free ports on loopback that stay ours until the demo is over, also while a killed node is away."""

import contextlib
import socket
import sys
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"

# Linux lets a listener share its port with sockets that are bound and do not listen, if all say SO_REUSEADDR; and it
# gives a port that is bound to nobody else, neither to a listener that asks for any nor to a connection going out.
_CAN_HOLD = sys.platform == "linux"


@contextlib.contextmanager
def reserved(count: int) -> Iterator[list[int]]:
    """So many different ports. Where the system cannot hold them, they are only known to have been free."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((LOOPBACK, 0))
        ports = [bound.getsockname()[1] for bound in sockets]
        if not _CAN_HOLD:
            held.close()
        yield ports
