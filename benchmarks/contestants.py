"""What is measured: how each contestant is started, where the gateways dial it, and which processes are it.

Every one is a process of its own, or two; none is told which window the load generator keeps. None outlives us,
whatever ends us but SIGKILL.
"""

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from attrs import frozen

from benchmarks import messages

START_S: Final = 15.0
STOP_S: Final = 15.0
# Above the largest window that is measured, so that the load generator's window is the one that counts.
PROXY_WINDOW: Final = 10_000
_HOP_SHARE: Final = 0.2  # a hop is dearer by an order than a match


class AbsentError(Exception):
    """A contestant that this machine does not have; the others are measured, and the report says so."""


class StartFailedError(Exception):
    """A contestant that ended, or listened nowhere, after it was started."""


@frozen(eq=False)
class Started:
    """A process of ours, and where its output goes."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int  # where it listens for gateways

    def last_words(self) -> str:
        return f"\n--- the end of {self.log.name}:\n{self.log.read_text(errors='replace')[-2000:]}"

    def stop(self) -> None:
        """After SIGTERM it has STOP_S."""
        _running.discard(self)
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_running: set[Started] = set()


@atexit.register
def _stop_all() -> None:
    """What has not been stopped: whoever started it was ended meanwhile."""
    for started in list(_running):
        started.stop()


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does, with everything that it has started and made."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    sys.exit(128 + number)


@frozen
class Contestant:
    name: str
    addresses: tuple[tuple[str, int], ...]  # where the gateways dial
    started: tuple[Started, ...] = ()
    share: float = 1.0  # of the messages: what is slower gets fewer, so that its runs last no longer
    database: tuple[Started, ...] = ()  # servers behind it, whose CPU is counted apart

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(started.process.pid for started in self.started)

    @property
    def database_pids(self) -> tuple[int, ...]:
        return tuple(started.process.pid for started in self.database)

    def last_words(self) -> str:
        """For the message of a run that failed."""
        return "".join(started.last_words() for started in (*self.started, *self.database))

    def stop(self) -> None:
        for started in (*self.started, *self.database):
            started.stop()


def _of(name: str, *started: Started, share: float = 1.0) -> Contestant:
    return Contestant(name, tuple(("127.0.0.1", one.port) for one in started), started, share)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [held.getsockname()[1] for held in taken]
    for held in taken:
        held.close()
    return ports


def start(command: list[str], log: Path, port: int, within_s: float = START_S) -> Started:
    """The process, once somebody listens on the port. Raises StartFailedError with the end of what it said."""
    with log.open("ab") as output:
        started = Started(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output), log, port)
    _running.add(started)
    until = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if started.process.poll() is not None or time.monotonic() > until:
                started.stop()
                words = f"{' '.join(command)}: does not listen on port {port}:{started.last_words()}"
                raise StartFailedError(words) from None
            time.sleep(0.05)
        else:
            return started


def direct(_work: Path, smsc: int) -> Contestant:
    """Nothing between: what load generator and SMSC can do, and the latency to compare with."""
    return Contestant("direct", (("127.0.0.1", smsc),))


def byte_relay(work: Path, smsc: int) -> Contestant:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.byte_relay", str(port), str(smsc)]
    return _of("byte-relay", start(command, work / "byte-relay.log", port))


_HAPROXY = """\
global
    nbthread 1
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen smpp
    bind 127.0.0.1:{port}
    server smsc 127.0.0.1:{smsc}
"""


def haproxy(work: Path, smsc: int) -> Contestant:
    """HAProxy in TCP mode, one thread. Raises AbsentError."""
    binary = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise AbsentError("HAProxy is not installed (benchmarks/install-haproxy.sh installs it, as root or with sudo)")
    (port,) = free_ports(1)
    config = work / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, smsc=smsc))
    return _of("haproxy", start([binary, "-db", "-f", str(config)], work / "haproxy.log", port))


_NODE = """\
[node]
name = "{name}"
data_dir = "{data}"

[[operators]]
name = "bench"
host = "127.0.0.1"
port = {smsc}
system_id = "{system_id}"
password = "{password}"
listen = "127.0.0.1:{port}"
window = {window}
gateway_window = {window}
"""

PEER = """
[[peers]]
name = "{name}"
url = "wss://127.0.0.1:{port}"
"""


def _node(work: Path, name: str, smsc: int, system_id: str, port: int, more: str) -> Started:
    config = work / f"{system_id}-{name}.toml"
    config.write_text(
        _NODE.format(
            name=name, data=work / f"{system_id}-{name}", smsc=smsc, system_id=system_id, port=port,
            password=messages.PASSWORD.decode(), window=PROXY_WINDOW,
        )
        + more
    )  # fmt: skip
    config.chmod(0o600)
    return start([sys.executable, "-m", "dlrproxy", "run", str(config)], config.with_suffix(".log"), port)


def one_node(work: Path, smsc: int) -> Contestant:
    """dlrproxy as a ring of one, durable: every report matches an open message of this node."""
    (port,) = free_ports(1)
    return _of("dlrproxy", _node(work, "gw1", smsc, "dlrproxy", port, ""))


def one_hop(work: Path, smsc: int) -> Contestant:
    """Two dlrproxy nodes, linked by TLS with a shared secret; every report comes down the other node's bind."""
    names = ("gw1", "gw2")
    ports, links = free_ports(2), free_ports(2)
    secret = work / "ring.secret"
    secret.write_text(secrets.token_urlsafe(32) + "\n")
    secret.chmod(0o600)
    ring = f'\n[ring]\nsecret_file = "{secret}"\n'
    peers = "".join(PEER.format(name=name, port=link) for name, link in zip(names, links, strict=True))
    nodes: list[Started] = []
    try:
        for name, port in zip(names, ports, strict=True):
            nodes.append(_node(work, name, smsc, "one-hop", port, peers + ring))
    except StartFailedError:
        _of("one-hop", *nodes).stop()
        raise
    return _of("one-hop", *nodes, share=_HOP_SHARE)
