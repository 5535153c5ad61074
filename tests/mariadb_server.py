"""Real MariaDB servers for tests: started in a directory of the test, on a unix socket and a free port."""

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ports import free_ports

from dlrproxy.store.sql.connection import Account

SERVER = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
INSTALL = shutil.which("mariadb-install-db") or "/usr/bin/mariadb-install-db"

# Small and quick, but as durable as in the field.
SETTINGS = {
    "innodb_buffer_pool_size": "32M",
    "innodb_log_file_size": "16M",
    "innodb_flush_log_at_trx_commit": "1",
    "max_allowed_packet": "64M",
    "performance_schema": "OFF",
    "skip_name_resolve": "ON",
    "max_connections": "50",
}


def _as_server_user(command):
    """mariadbd does not run as root."""
    return [*command, "--user=mysql"] if os.geteuid() == 0 else command


def _give_to_server_user(path):
    if os.geteuid() == 0:
        shutil.chown(path, "mysql", "mysql")


def make_data(directory):
    """An empty data directory, to be copied for each server: making one takes seconds."""
    command = [INSTALL, "--no-defaults", f"--datadir={directory}", "--skip-test-db", "--skip-name-resolve"]
    command += ["--auth-root-authentication-method=normal", "--force"]  # also where the host's own name is unknown
    command.append(f"--innodb-log-file-size={SETTINGS['innodb_log_file_size']}")  # by default most of what is copied
    # A server that starts clears its directory for temporary files: no other one may use the same.
    env = {**os.environ, "TMPDIR": str(directory)}
    done = subprocess.run(_as_server_user(command), capture_output=True, text=True, check=False, timeout=100, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"mariadb-install-db: {done.stdout}{done.stderr}")


class Server:
    """One mariadbd. `root` without a password may do everything, from this machine."""

    def __init__(self, directory, template, **settings):
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.socket = str(self.directory / "s")
        self.port = free_ports()
        self.settings = {**SETTINGS, **settings}
        self.defaults = "--no-defaults"  # or --defaults-file=...
        self.prefix = ()  # a command that runs the server's in its own place, such as nsenter
        self.process = None
        self.directory.mkdir(parents=True)
        shutil.copytree(template, self.data)
        for path in (self.directory, self.data, *self.data.rglob("*")):
            _give_to_server_user(path)

    def command(self, *extra):
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        command = [
            SERVER, self.defaults, f"--datadir={self.data}", f"--socket={self.socket}", f"--port={self.port}",
            "--bind-address=127.0.0.1", f"--pid-file={self.directory / 'pid'}",
            f"--log-error={self.directory / 'log.err'}", f"--tmpdir={self.directory}", *options, *extra,
        ]  # fmt: skip
        return [*self.prefix, *_as_server_user(command)]

    def start(self, *extra, wait=True):
        command = self.command(*extra)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if wait:
            self._wait()
        return self

    def _wait(self):
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mariadbd did not start:\n{self.log()}")
            time.sleep(0.05)

    def log(self):
        """What it has said; without an extension to its name the server would give it one."""
        return (self.directory / "log.err").read_text()

    def _answers(self):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
            probe.settimeout(10)
            return bool(probe.recv(1))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kill_stranger(self):
        """The server that another program has started on this data."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.directory / "pid").read_text())
            if f"--datadir={self.data}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def sql(self, statement):
        """Run statements as root with the server's own client; returns what it printed."""
        command = [
            "mariadb",
            "--no-defaults",
            f"--socket={self.socket}",
            "--user=root",
            "--batch",
            "--skip-column-names",
        ]
        done = subprocess.run(command, input=statement, text=True, capture_output=True, check=False, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr}")
        return done.stdout


@functools.cache
def _ground():
    """A directory that the servers' account can enter, with the data that each of them starts from."""
    ground = Path(tempfile.mkdtemp(prefix="dlrproxy-mariadb-"))
    atexit.register(shutil.rmtree, ground, ignore_errors=True)
    ground.chmod(0o755)
    template = ground / "template"
    template.mkdir()
    _give_to_server_user(template)
    make_data(template)
    return ground


def readable_directory():
    """A new directory whose files the servers can read."""
    place = Path(tempfile.mkdtemp(dir=_ground()))
    place.chmod(0o755)
    return place


def new_server(**settings):
    """A server of the test's own, not started."""
    return Server(readable_directory() / "server", _ground() / "template", **settings)


@functools.cache
def shared_server():
    """One for all tests that need nothing but a schema; it ends with the test run."""
    server = new_server().start()
    atexit.register(server.stop)
    return server


_names = itertools.count(1)


@contextlib.asynccontextmanager
async def fresh_schema(server=None):
    """An empty schema on the server, and an account that may do everything in it and nothing else."""
    server = server or shared_server()
    name = f"t{next(_names)}"
    server.sql(
        f"CREATE DATABASE {name}; CREATE USER {name}@localhost IDENTIFIED BY 'secret';"
        f"GRANT ALL ON {name}.* TO {name}@localhost;"
    )
    try:
        yield Account(socket=server.socket, user=name, password="secret", schema=name)
    finally:
        server.sql(f"DROP DATABASE {name}; DROP USER {name}@localhost;")
