"""Ports for servers that must be told one, and are started later, and again."""

import contextlib
import random
import socket


def free_ports(count=1):
    """The first of that many in a row. Below those that the system gives to clients, so that none of these takes one
    meanwhile; at random, for another process of the same test run looks as well."""
    while True:
        first = random.randrange(20000, 32000 - count)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
