"""dlrproxy as the active of an active-passive pair: two MariaDB servers that replicate, semi-synchronously, and a node.

The servers are set as docs/active-passive.md says. The standby's node is left out: an active needs its server alone.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.contestants import (
    PROXY_WINDOW,
    Contestant,
    Started,
    StartFailedError,
    free_ports,
    start,
)
from benchmarks.mariadb import found, made, run
from dlrproxy.store.sql.store import JOURNAL_AFTER_S

_SHARE: Final = 0.2  # a commit that waits for the other server is dearer by an order than a flush

_SETTINGS: Final = (
    "bind_address=127.0.0.1", "skip_name_resolve=ON", "innodb_flush_log_at_trx_commit=1", "sync_binlog=1",
    "max_allowed_packet=64M", "log_bin=binlog", "binlog_format=ROW", "log_slave_updates=ON", "gtid_strict_mode=ON",
    "relay_log=relay", "relay_log_recovery=ON", "skip_slave_start=ON", "slave_net_timeout=4",
    "rpl_semi_sync_slave_enabled=ON", "rpl_semi_sync_master_wait_point=AFTER_SYNC",
    "rpl_semi_sync_master_timeout=4294967295",
)  # fmt: skip

_NODE: Final = """\
[node]
name = "gw1"
mode = "active-passive"
data_dir = "{work}/data"

[[operators]]
name = "bench"
host = "127.0.0.1"
port = {smsc}
system_id = "active-passive"
password = "{smpp_password}"
listen = "127.0.0.1:{port}"
window = {window}
gateway_window = {window}

[[peers]]
name = "gw1"
[[peers]]
name = "gw2"

[database]
socket = "{socket}"
password = "{password}"
journal_after_s = {journal_after_s}
admin_user = "dlrproxy_admin"
admin_password = "{password}"

[pair]
peer_host = "127.0.0.1"
peer_port = {peer_port}
manage_database = true
replication_user = "dlrproxy_copy"
replication_password = "{password}"
"""

_REPLICATE: Final = """\
SET GLOBAL read_only = ON;
CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'dlrproxy_copy',
    MASTER_PASSWORD = '{password}', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1,
    MASTER_HEARTBEAT_PERIOD = 1;
START SLAVE;
"""


def active_passive(work: Path, smsc: int, journal_after_s: float = JOURNAL_AFTER_S) -> Contestant:
    """Raises AbsentError where MariaDB is not installed, StartFailedError."""
    server, install, client = (found(name) for name in ("mariadbd", "mariadb-install-db", "mariadb"))
    if os.geteuid() == 0:
        work.chmod(0o711)  # the servers' account, which is not root, passes through; the files are not for it
    place = work / "active-passive"
    place.mkdir(mode=0o755)
    ports = free_ports(3)
    servers: list[Started] = []
    try:
        for number, port in enumerate(ports[:2], start=1):
            servers.append(_start_server(place / str(number), server, install, number, port))
        node = _start_node(place, client, servers, ports[2], smsc, journal_after_s)
    except (StartFailedError, subprocess.SubprocessError) as error:
        for started in servers:
            started.stop()
        raise StartFailedError(f"active-passive: {error}") from error
    return Contestant("active-passive", (("127.0.0.1", node.port),), (node,), share=_SHARE, database=tuple(servers))


def _start_server(place: Path, server: str, install: str, number: int, port: int) -> Started:
    account = made(place, install)
    data = place / "data"
    command = [
        server, "--no-defaults", f"--datadir={data}", f"--tmpdir={place}", f"--socket={place / 's'}",
        f"--port={port}", f"--pid-file={place / 'pid'}", f"--server_id={number}",
        *(f"--{setting}" for setting in _SETTINGS), *account,
    ]  # fmt: skip
    return start(command, place.with_suffix(".log"), port)


def _start_node(
    place: Path, client: str, servers: Sequence[Started], port: int, smsc: int, journal_after_s: float
) -> Started:
    sockets = [place / str(number) / "s" for number in (1, 2)]
    config = place / "gw1.toml"
    password = secrets.token_hex(16)  # of all accounts at the servers
    config.write_text(
        _NODE.format(
            work=place, smsc=smsc, smpp_password=messages.PASSWORD.decode(), port=port, window=PROXY_WINDOW,
            socket=sockets[0], password=password, peer_port=servers[1].port,
            journal_after_s=journal_after_s,
        )
    )  # fmt: skip
    config.chmod(0o600)
    dlrproxy = [sys.executable, "-m", "dlrproxy"]
    grants = run([*dlrproxy, "db", "grants", str(config), "--from", "localhost", "--from", "127.0.0.1"])
    as_root = [[client, "--no-defaults", f"--socket={socket}", "--user=root"] for socket in sockets]
    for command in as_root:
        run(command, grants)
    run([*dlrproxy, "db", "init", str(config)])
    run(as_root[1], _REPLICATE.format(port=servers[0].port, password=password))
    return start([*dlrproxy, "run", str(config)], config.with_suffix(".log"), port)
