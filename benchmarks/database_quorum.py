"""dlrproxy as a node of a quorum: a Galera cluster of three MariaDB servers on this machine, and one node.

The servers are set as docs/quorum.md says, but for times. The other two nodes are left out: what a message costs the
one that carries it does not depend on them, as long as its gateway is bound there.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.contestants import PROXY_WINDOW, AbsentError, Contestant, Started, StartFailedError, free_ports, start
from benchmarks.mariadb import found, made, run

_SHARE: Final = 0.2  # as for the pair
_PROVIDER: Final = Path("/usr/lib/galera/libgalera_smm.so")
_SERVERS: Final = 3
_PORTS: Final = 5  # of each server: SQL, group, incremental and full state transfer, and one for the client's side

_SETTINGS: Final = (
    "bind_address=127.0.0.1", "skip_name_resolve=ON", "innodb_flush_log_at_trx_commit=1", "max_allowed_packet=64M",
    "binlog_format=ROW", "default_storage_engine=InnoDB", "innodb_autoinc_lock_mode=2", "wsrep_on=ON",
    f"wsrep_provider={_PROVIDER}", "wsrep_cluster_name=bench", "wsrep_sst_method=rsync",
)  # fmt: skip

_NODE: Final = """\
[node]
name = "gw1"
mode = "quorum"
data_dir = "{work}/data"

[[operators]]
name = "bench"
host = "127.0.0.1"
port = {smsc}
system_id = "quorum"
password = "{smpp_password}"
listen = "127.0.0.1:{port}"
window = {window}
gateway_window = {window}

[[peers]]
name = "gw1"
url = "ws://127.0.0.1:{link}"

[database]
socket = "{socket}"
password = "{password}"

[quorum]
"""


def quorum(work: Path, smsc: int) -> Contestant:
    """Raises AbsentError where MariaDB or Galera is not installed, StartFailedError."""
    server, install, client = (found(name) for name in ("mariadbd", "mariadb-install-db", "mariadb"))
    if not _PROVIDER.exists():
        raise AbsentError("galera-4 is not installed (tests/system-packages.sh installs it, as root or with sudo)")
    if os.geteuid() == 0:
        work.chmod(0o711)  # the servers' account, which is not root, passes through; the files are not for it
    place = work / "quorum"
    place.mkdir(mode=0o755)
    ports = free_ports(_SERVERS * _PORTS + 2)
    groups = [ports[_PORTS * number : _PORTS * (number + 1)] for number in range(_SERVERS)]
    servers: list[Started] = []
    try:
        for number in range(_SERVERS):
            started = _start_server(place / str(number + 1), server, install, number, groups)
            servers.append(started)  # one by one: those that have started are stopped when the next one fails
        node = _start_node(place, client, ports[-2], ports[-1], smsc)
    except (StartFailedError, subprocess.SubprocessError) as error:
        for each in servers:
            each.stop()
        raise StartFailedError(f"quorum: {error}") from error
    return Contestant("quorum", (("127.0.0.1", node.port),), (node,), share=_SHARE, database=tuple(servers))


def _start_server(place: Path, server: str, install: str, number: int, groups: Sequence[Sequence[int]]) -> Started:
    account = made(place, install)
    sql, group, incremental, full, _ = groups[number]
    everybody = ",".join(f"127.0.0.1:{each[1]}" for each in groups)
    options = (
        f"base_host=127.0.0.1;base_port={group};gmcast.listen_addr=tcp://127.0.0.1:{group};"
        f"ist.recv_addr=127.0.0.1:{incremental};ist.recv_bind=127.0.0.1:{incremental};gcache.size=64M"
    )
    command = [
        server, "--no-defaults", f"--datadir={place / 'data'}", f"--tmpdir={place}", f"--socket={place / 's'}",
        f"--port={sql}", f"--pid-file={place / 'pid'}", *(f"--{setting}" for setting in _SETTINGS),
        f"--wsrep_cluster_address=gcomm://{everybody}", f"--wsrep_node_address=127.0.0.1:{group}",
        f"--wsrep_node_incoming_address=127.0.0.1:{sql}", f"--wsrep_sst_receive_address=127.0.0.1:{full}",
        f"--wsrep_provider_options={options}", *account, *(["--wsrep-new-cluster"] if number == 0 else []),
    ]  # fmt: skip
    return start(command, place.with_suffix(".log"), sql)


def _start_node(place: Path, client: str, port: int, link: int, smsc: int) -> Started:
    config = place / "gw1.toml"
    socket = place / "1" / "s"
    config.write_text(
        _NODE.format(
            work=place, smsc=smsc, smpp_password=messages.PASSWORD.decode(), port=port, link=link, window=PROXY_WINDOW,
            socket=socket, password=secrets.token_hex(16),
        )
    )  # fmt: skip
    config.chmod(0o600)
    dlrproxy = [sys.executable, "-m", "dlrproxy"]
    grants = run([*dlrproxy, "db", "grants", str(config), "--from", "localhost"])
    run([client, "--no-defaults", f"--socket={socket}", "--user=root"], grants)
    run([*dlrproxy, "db", "init", str(config)])
    return start([*dlrproxy, "run", str(config)], config.with_suffix(".log"), port)
