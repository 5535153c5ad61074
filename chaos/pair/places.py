"""Where the two machines are: on loopback, or each in a network namespace of its own.

The namespaces have no names: they end with the processes in them. Nothing of the host is changed, for the one that runs
this is in a namespace itself, with the bridge that joins the others; see `chaos.pair.__main__`.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import trio
from attrs import frozen

from dlrproxy.demo.ports import LOOPBACK

NETWORK: Final = "10.99.0"
HUB: Final = f"{NETWORK}.254"  # the operator's, and the gateway's own
MOVING: Final = f"{NETWORK}.100"
INTERFACE: Final = "eth0"
_BRIDGE: Final = "hub"


@frozen
class Place:
    """Where one machine is."""

    name: str
    address: str  # by which the other one, the operator and the gateway reach it
    prefix: tuple[str, ...] = ()  # before a command that is to run there


def on_loopback(names: Sequence[str]) -> list[Place]:
    return [Place(name, LOOPBACK) for name in names]


@contextmanager
def in_namespaces(names: Sequence[str]) -> Iterator[list[Place]]:
    """To be used in a network namespace that nobody else is in. Raises subprocess.CalledProcessError."""
    with ExitStack() as stack:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{HUB}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield [_namespace(stack, name, number) for number, name in enumerate(names, 1)]


def _namespace(stack: ExitStack, name: str, number: int) -> Place:
    # It waits for the end of its input, which comes at the latest with our end, and the namespace ends with it.
    holder = stack.enter_context(
        subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo there; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    if holder.stdout is None:
        raise AssertionError("it was given a pipe")
    holder.stdout.readline()
    cable = f"to-{name}"
    _ip("link", "add", cable, "type", "veth", "peer", "name", INTERFACE, "netns", str(holder.pid))
    _ip("link", "set", cable, "master", _BRIDGE, "up")
    place = Place(name, f"{NETWORK}.{number}", ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"))
    _ip("link", "set", "lo", "up", at=place)
    _ip("address", "add", f"{place.address}/24", "dev", INTERFACE, at=place)
    _ip("link", "set", INTERFACE, "up", at=place)
    return place


def _ip(*arguments: str, at: Place | None = None) -> None:
    prefix = () if at is None else at.prefix
    subprocess.run([*prefix, "ip", *arguments], check=True)


async def has_address(place: Place, address: str) -> bool:
    """The machine holds it now."""
    command = [*place.prefix, "ip", "-oneline", "address", "show", "dev", INTERFACE]
    found = await trio.run_process(command, capture_stdout=True)
    return f" {address}/".encode() in found.stdout
