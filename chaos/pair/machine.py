"""One machine of the pair: a real database server, a real node, and the commands that are given there."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import mariadb_pair
import mariadb_server
import trio

from chaos.pair.places import Place
from dlrproxy.admin.client import AdminError, Client
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.reach import Directory
from dlrproxy.admin.view import NodeStatus
from dlrproxy.demo.node_process import NodeProcess

GATEWAY: Final = "shop"
SYSTEM_ID: Final = "pair"
PASSWORD: Final = "secret"  # noqa: S105 - nobody else is there
# After a crash: what no replica had acknowledged is dropped, as docs/active-passive.md says.
_AS_REPLICA: Final = ("--init-rpl-role=SLAVE", "--rpl-semi-sync-slave-enabled=ON", "--read-only=ON")
_MARGIN_S: Final = 3.0  # as between the defaults
_ANSWER_S: Final = 10.0  # for the API; a busy node on a busy machine takes a while
_CHECKOUT: Final = Path(__file__).parents[2]
KEEPALIVED: Final = _CHECKOUT / "contrib" / "keepalived"
DLRPROXY: Final = Path(sys.executable).parent / "dlrproxy"


class CommandError(Exception):
    """A command that was given at a machine has failed. The text says which, and what it printed."""


class Machine:
    """Everything that starts or ends something is asynchronous or takes a moment."""

    def __init__(self, place: Place, directory: Path, number: int, gateway_port: int, database_port: int) -> None:
        """Makes the data directory of its database server, and nothing runs yet. Raises OSError, RuntimeError."""
        self.name = place.name
        self.place = place
        self.gateway_port = gateway_port
        self.data_dir = directory / "data" / place.name
        self.config = directory / f"{place.name}.toml"
        self.log = directory / f"{place.name}.log"
        self.server = mariadb_server.new_server(server_id=str(number), bind_address="0.0.0.0", **mariadb_pair.SETTINGS)
        self.server.prefix = place.prefix
        self.server.port = database_port
        self.node = NodeProcess(place.name, self.config, self.log, prefix=place.prefix)
        self._client = Client(Directory(self.data_dir), _ANSWER_S)

    def write(self, operator: tuple[str, int], peer: "Machine", fence_after_s: float) -> None:
        """The node's configuration. Raises OSError."""
        host, port = operator
        both = sorted((self.name, peer.name))
        lines = (
            "[node]",
            f'name = "{self.name}"',
            'mode = "active-passive"',
            f'data_dir = "{self.data_dir}"',
            "min_free_mb = 16",
            "drain_s = 5",
            "[[operators]]",
            'name = "acme"',
            f'host = "{host}"',
            f"port = {port}",
            f'system_id = "{SYSTEM_ID}"',
            f'password = "{PASSWORD}"',
            f'listen = {{ {GATEWAY} = "0.0.0.0:{self.gateway_port}" }}',
            "reconnect_min_s = 0.1",
            "reconnect_max_s = 1",
            *(line for name in both for line in ("[[peers]]", f'name = "{name}"')),
            "[custody]",
            "retry_min_s = 0.2",
            "retry_max_s = 1",
            "[database]",
            f'socket = "{self.server.socket}"',
            f'password = "{PASSWORD}"',
            'admin_user = "dlrproxy_admin"',
            f'admin_password = "{PASSWORD}"',
            "[pair]",
            f'peer_host = "{peer.place.address}"',
            f"peer_port = {peer.server.port}",
            "manage_database = true",
            f"fence_after_s = {fence_after_s}",
            f"promote_after_s = {fence_after_s + _MARGIN_S}",
            'replication_user = "dlrproxy_copy"',
            f'replication_password = "{PASSWORD}"',
        )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # What is done at it

    async def start_server(self, *, as_replica: bool = False) -> None:
        await trio.to_thread.run_sync(self.server.start, *(_AS_REPLICA if as_replica else ()))

    async def make_accounts(self, hosts: Iterable[str]) -> None:
        sources = [word for host in ("localhost", *hosts) for word in ("--from", host)]
        await trio.to_thread.run_sync(self.server.sql, await self.dlrproxy("db", "grants", *sources))

    def end_server(self) -> None:
        if self.server.process is not None:
            self.server.kill()

    async def kill(self) -> None:
        """kill -9 the node and its database server, both at once; until they are gone."""
        self.node.kill()
        await trio.to_thread.run_sync(self.server.kill)

    async def dlrproxy(self, *command: str) -> str:
        """A command of the product with this machine's configuration; what it printed. Raises CommandError."""
        return await self.run([str(DLRPROXY), *command, str(self.config)])

    async def run(self, command: Sequence[str]) -> str:
        """Raises CommandError."""
        done = await trio.run_process(
            [*self.place.prefix, *command], capture_stdout=True, capture_stderr=True, check=False
        )
        said = done.stdout.decode() + done.stderr.decode()
        if done.returncode != 0:
            raise CommandError(f"{self.name}: {subprocess.list2cmdline(command)}: {said}")
        return done.stdout.decode()

    def notify(self, state: str) -> list[str]:
        """keepalived's call of the script in contrib/keepalived, when the machine has come into this state."""
        script = KEEPALIVED / "dlrproxy-notify"
        words = (script, DLRPROXY, self.config, self.data_dir, "INSTANCE", "dlrproxy", state, "100")
        return [*self.place.prefix, *map(str, words)]

    # What it says

    async def pair(self) -> PairStatus | None:
        """None: it cannot be asked now."""
        try:
            return (await trio.to_thread.run_sync(self._client.get, "/status", NodeStatus)).pair
        except AdminError:
            return None
