"""Who moves the address that gateways dial, and calls the notify script: the stage by hand, or keepalived."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

from chaos.lines import Line
from chaos.pair.machine import DLRPROXY, KEEPALIVED, Machine
from chaos.pair.places import INTERFACE, MOVING, has_address
from dlrproxy.demo.ports import LOOPBACK

_LOOK_S: Final = 0.1


class Address(Protocol):
    """Where the gateway dials: the same whatever happens."""

    host: str
    port: int

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Until cancelled. Started when it leads to somebody, or will as soon as somebody serves."""

    async def lost(self, dead: Machine, survivor: Machine) -> None:
        """A machine has died."""

    async def back(self, machine: Machine) -> None:
        """It lives again, and has not got the address."""

    async def switch(self, before: Machine, after: Machine) -> None:
        """Move service by plan."""


class ByHand:
    """A line on loopback; the scripts are called as keepalived calls them."""

    def __init__(self, port: int, first: Machine, nursery: trio.Nursery) -> None:
        self.host, self.port = LOOPBACK, port
        self._line = Line(port, first.gateway_port)
        self._nursery = nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._line.run(task_status=task_status)

    async def lost(self, dead: Machine, survivor: Machine) -> None:
        self._move(survivor)

    async def back(self, machine: Machine) -> None:
        self._tell(machine, "BACKUP")

    async def switch(self, before: Machine, after: Machine) -> None:
        """As if the first had lost the gateway's network: it serves until it is sure that the address is gone."""
        self._tell(before, "FAULT")
        self._move(after)

    def _move(self, after: Machine) -> None:
        self._line.lead_to(after.gateway_port)
        self._tell(after, "MASTER")

    def _tell(self, machine: Machine, state: str) -> None:
        self._nursery.start_soon(partial(trio.run_process, machine.notify(state), capture_stderr=True))


class ByKeepalived:
    """One keepalived at each machine, with the configuration sample of contrib/keepalived."""

    def __init__(self, machines: list[Machine], directory: Path) -> None:
        self.host, self.port = MOVING, machines[0].gateway_port
        self._machines = machines
        self._directory = directory
        self._running: dict[str, trio.CancelScope] = {}
        self._switches = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        for machine, peer in self._pairs():
            config = self._config(machine)
            config.touch(mode=0o600)
            config.write_text(_configuration(machine, peer), encoding="utf-8")
        async with trio.open_nursery() as self._nursery:
            for machine in self._machines:
                self._start(machine)
            task_status.started()
            await trio.sleep_forever()

    def _pairs(self) -> Iterator[tuple[Machine, Machine]]:
        return zip(self._machines, reversed(self._machines), strict=True)

    def _start(self, machine: Machine) -> None:
        self._running[machine.name] = scope = trio.CancelScope()
        self._nursery.start_soon(self._run_at, machine, scope)

    async def _run_at(self, machine: Machine, scope: trio.CancelScope) -> None:
        """Until cancelled, which it takes for `systemctl stop`."""
        with scope, (self._directory / f"keepalived-{machine.name}.log").open("ab") as log:
            await trio.run_process([*machine.place.prefix, *self._command(machine)], stdout=log, stderr=log)

    def _config(self, machine: Machine) -> Path:
        return self._directory / f"keepalived-{machine.name}.conf"

    def _command(self, machine: Machine) -> list[str]:
        pids = self._directory / f"keepalived-{machine.name}"
        return [
            "keepalived", "--dont-fork", "--log-console", "--vrrp", f"--use-file={self._config(machine)}",
            f"--pid={pids}.pid", f"--vrrp_pid={pids}-vrrp.pid", f"--checkers_pid={pids}-checkers.pid",
        ]  # fmt: skip

    async def lost(self, dead: Machine, survivor: Machine) -> None:
        """It sees so itself."""

    async def back(self, machine: Machine) -> None:
        if self._running[machine.name].cancel_called:
            self._start(machine)

    async def switch(self, before: Machine, after: Machine) -> None:
        """By turns as the document says, and by the end of the one keepalived."""
        self._switches += 1
        if self._switches % 2:
            await before.dlrproxy("demote")
            await after.dlrproxy("promote")
        else:
            self._running[before.name].cancel()
        while not await has_address(after.place, MOVING):
            await trio.sleep(_LOOK_S)


def _configuration(machine: Machine, peer: Machine) -> str:
    """The sample, as somebody would fill it in who runs everything as root. Raises ValueError where it has changed."""
    text = (KEEPALIVED / "keepalived.conf").read_text(encoding="utf-8")
    for sample, ours in (
        ("router_id gw1", f"router_id {machine.name}"),
        ("    enable_script_security\n", ""),  # it wants scripts that nobody else can write, up to the root directory
        ("script_user dlrproxy", "script_user root"),
        ("interface eth0", f"interface {INTERFACE}"),
        ("unicast_src_ip 10.0.0.1", f"unicast_src_ip {machine.place.address}"),
        ("        10.0.0.2\n", f"        {peer.place.address}\n"),
        ("10.0.0.10/24", f"{MOVING}/24"),
        ("/etc/keepalived/", f"{KEEPALIVED}/"),
        ("/opt/dlrproxy/bin/dlrproxy", str(DLRPROXY)),
        ("/etc/dlrproxy/dlrproxy.toml", str(machine.config)),
        ("/var/lib/dlrproxy", str(machine.data_dir)),
    ):
        if sample not in text:
            raise ValueError(f"keepalived.conf has no {sample!r}")
        text = text.replace(sample, ours)
    return text
