"""A real Galera cluster of MariaDB servers on loopback, and of an arbitrator where one is wanted, for tests."""

import atexit
import contextlib
import functools
import re
import shutil
import subprocess
import time

import mariadb_server
from mariadb_server import Server
from ports import free_ports

from dlrproxy.store.sql.connection import Account

NAMES = ("a", "b", "c")
PROVIDER = "/usr/lib/galera/libgalera_smm.so"
ARBITRATOR = shutil.which("garbd") or "/usr/bin/garbd"

# A lost server is noticed within about 1.5 s, and its cluster goes on. Their defaults take 6 s.
QUICK = (
    "evs.suspect_timeout=PT1S;evs.inactive_timeout=PT2S;evs.inactive_check_period=PT0.2S;evs.keepalive_period=PT0.3S;"
    "evs.join_retrans_period=PT0.3S;evs.install_timeout=PT2S;gmcast.peer_timeout=PT1S"
)
SETTINGS = {
    "binlog_format": "ROW",
    "default_storage_engine": "InnoDB",
    "innodb_autoinc_lock_mode": "2",
    "wsrep_on": "ON",
    "wsrep_provider": PROVIDER,
    "wsrep_cluster_name": "test",
    "wsrep_sst_method": "rsync",
    "wsrep_slave_threads": "2",
    "performance_schema": "OFF",
}
STATUS = ("wsrep_cluster_size", "wsrep_cluster_status", "wsrep_local_state_comment", "wsrep_ready")
_SYNCED_S = 120.0


class Arbitrator:
    """A garbd, which votes and stores nothing."""

    def __init__(self, group, members):
        self.port = free_ports()
        self.directory = mariadb_server.readable_directory()
        address = f"127.0.0.1:{self.port}"
        self.command = [
            ARBITRATOR, "--name=arbitrator", f"--group={group}", f"--address=gcomm://{members}",
            f"--options=gmcast.listen_addr=tcp://{address};base_host=127.0.0.1;base_port={self.port};{QUICK}",
            f"--log={self.directory / 'log'}",
        ]  # fmt: skip
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self):
        self.process.kill()
        self.process.wait()


class Cluster:
    """`start` begins it from nothing; any of its servers may be killed, paused, isolated and started again after it."""

    def __init__(self, names=NAMES, weights=None):
        self.names = names
        base = free_ports(10 * len(names))
        self.ports = {name: base + 10 * number for number, name in enumerate(names)}
        self.weights = weights or {}
        self.servers = {name: self._server(name) for name in names}
        self.arbitrators = []  # that were started

    def _server(self, name):
        port = self.ports[name]
        address = f"127.0.0.1:{port}"
        everybody = ",".join(f"127.0.0.1:{other}" for other in self.ports.values())
        options = (
            f"base_host=127.0.0.1;base_port={port};gmcast.listen_addr=tcp://{address};"
            f"ist.recv_addr=127.0.0.1:{port + 1};ist.recv_bind=127.0.0.1:{port + 1};gcache.size=16M;"
            f"pc.weight={self.weights.get(name, 1)};{QUICK}"
        )
        settings = {
            **SETTINGS,
            "wsrep_cluster_address": f"gcomm://{everybody}",
            "wsrep_node_name": name,
            "wsrep_node_address": address,
            "wsrep_node_incoming_address": f"127.0.0.1:{port + 3}",
            "wsrep_sst_receive_address": f"127.0.0.1:{port + 2}",
            "wsrep_provider_options": options,
        }
        directory = mariadb_server.readable_directory() / "server"
        return Server(directory, _template(), **settings)

    def start(self):
        first, *others = self.names
        self.bootstrap(first)
        for name in others:
            self.servers[name].start()
            self.wait_synced(name)
        return self

    def bootstrap(self, name):
        """Begin a cluster from this server's data."""
        self.servers[name].start("--wsrep-new-cluster")
        self.wait_synced(name)

    def alive(self, name):
        process = self.servers[name].process
        return process is not None and process.poll() is None

    def restart(self, name, *extra, wait=True):
        """After a crash: from the position that it has got to, so that it needs what it has missed only."""
        server = self.servers[name]
        self.servers[name].start(f"--wsrep_start_position={recovered(server)}", *extra, wait=wait)

    def restart_dead(self):
        """All that are, at once: where the quorum is lost, they find it again when the last of its members is back."""
        for name in [name for name in self.names if not self.alive(name)]:
            self.restart(name, wait=False)
        self.wait_synced(size=len(self.names))

    def status(self, name):
        """What it says of its cluster; empty: it does not answer."""
        with contextlib.suppress(RuntimeError):
            lines = self.servers[name].sql(f"SHOW GLOBAL STATUS WHERE Variable_name IN {STATUS}").splitlines()
            return dict(line.split("\t") for line in lines)
        return {}

    def wait_synced(self, *names, size=None):
        """Until each has all that the cluster has, and takes statements; it is in a cluster of `size`."""
        wanted = {"wsrep_local_state_comment": "Synced", "wsrep_ready": "ON"}
        if size is not None:
            wanted["wsrep_cluster_size"] = str(size)
        for name in names or self.names:
            self._wait(name, wanted)

    def wait_size(self, name, size):
        """Until the server is in a part of the cluster that has so many members and goes on, or does not (0)."""
        goes_on = {"wsrep_cluster_status": "Primary", "wsrep_cluster_size": str(size)}
        self._wait(name, goes_on if size else {"wsrep_cluster_status": "non-Primary"})

    def _wait(self, name, wanted):
        deadline = time.monotonic() + _SYNCED_S
        while not wanted.items() <= (said := self.status(name)).items():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} says {said}, and not {wanted}:\n{self.log(name)}")
            time.sleep(0.05)

    def arbitrator(self):
        """One that was started, and has been let in."""
        arbitrator = Arbitrator(
            SETTINGS["wsrep_cluster_name"], ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        )
        arbitrator.start()
        self.arbitrators.append(arbitrator)
        self.wait_size(self.names[0], len(self.names) + 1)
        return arbitrator

    def log(self, name):
        return self.servers[name].log()

    def isolate(self, name, *, isolated=True):
        self.servers[name].sql(f"SET GLOBAL wsrep_provider_options='gmcast.isolate={int(isolated)}'")

    def account(self, name, user="app"):
        return Account(socket=self.servers[name].socket, user=user, password="secret", schema="dlrproxy")

    def close(self):
        for server in self.servers.values():
            if server.process is not None and server.process.poll() is None:
                server.kill()
        for arbitrator in self.arbitrators:
            arbitrator.kill()


def recovered(server):
    """The position that a server that was killed has got to."""
    options = [f"--{name}={value}" for name, value in server.settings.items()]
    command = [
        mariadb_server.SERVER, "--no-defaults", f"--datadir={server.data}", "--wsrep-recover",
        f"--socket={server.directory / 'r'}", f"--port={server.port}", "--bind-address=127.0.0.1",
        f"--pid-file={server.directory / 'r.pid'}", *options,
    ]  # fmt: skip
    done = subprocess.run(
        mariadb_server._as_server_user(command), check=False, capture_output=True, text=True, timeout=100
    )
    if done.returncode != 0:
        raise RuntimeError(f"{server.directory} tells no position: {done.stderr}")
    return re.findall(r"Recovered position: ?(\S+)", done.stderr)[-1]


def wait_ready(server):
    """It lets clients in before it takes their statements."""
    deadline = time.monotonic() + _SYNCED_S
    while server.sql("SHOW GLOBAL STATUS LIKE 'wsrep_ready'").split()[1:] != ["ON"]:
        if time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"it is not ready:\n{server.log()}")
        time.sleep(0.05)


@functools.cache
def _template():
    """The data of a cluster of one server that has an empty schema `dlrproxy` and its accounts."""
    port = free_ports(10)
    options = f"base_host=127.0.0.1;base_port={port};gmcast.listen_addr=tcp://127.0.0.1:{port};gcache.size=16M"
    server = mariadb_server.new_server(
        **SETTINGS,
        wsrep_cluster_address="gcomm://",
        wsrep_node_address=f"127.0.0.1:{port}",
        wsrep_provider_options=options,
    )
    server.start("--wsrep-new-cluster")
    wait_ready(server)
    server.sql(
        "CREATE DATABASE dlrproxy; CREATE USER app@localhost IDENTIFIED BY 'secret';"
        "GRANT ALL ON dlrproxy.* TO app@localhost;"
    )
    server.stop()
    (server.data / "galera.cache").unlink()
    return server.data


@functools.cache
def shared_cluster():
    """One for all tests that leave it whole; it ends with the test run."""
    cluster = Cluster().start()
    atexit.register(cluster.close)
    return cluster
