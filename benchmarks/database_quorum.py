"""dlrproxy as a quorum: a Galera cluster of three MariaDB servers on this machine, and one or two nodes.

The servers are set as docs/quorum.md says, but for times. Nodes that would have no traffic are left out: what a message
costs does not depend on them.
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
    PEER,
    PROXY_WINDOW,
    AbsentError,
    Contestant,
    Started,
    StartFailedError,
    free_ports,
    start,
)
from benchmarks.mariadb import found, made, run
from dlrproxy.store.sql.store import JOURNAL_AFTER_S

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
name = "{name}"
mode = "quorum"
data_dir = "{work}/{name}"

[[operators]]
name = "bench"
host = "127.0.0.1"
port = {smsc}
system_id = "{system_id}"
password = "{smpp_password}"
listen = "127.0.0.1:{port}"
window = {window}
gateway_window = {window}

[database]
socket = "{socket}"
password = "{password}"
journal_after_s = {journal_after_s}

[ring]
secret_file = "{work}/ring.secret"

[quorum]
"""


def quorum(work: Path, smsc: int, journal_after_s: float = JOURNAL_AFTER_S) -> Contestant:
    """One node: every report comes to the node where its gateway is bound. Raises AbsentError, StartFailedError."""
    return _quorum("quorum", ("gw1",), work, smsc, journal_after_s)


def quorum_hop(work: Path, smsc: int, journal_after_s: float = JOURNAL_AFTER_S) -> Contestant:
    """Two nodes, a gateway at each; every report comes down the other one's bind. Raises as `quorum`."""
    return _quorum("quorum-hop", ("gw1", "gw2"), work, smsc, journal_after_s)


def _quorum(name: str, nodes: Sequence[str], work: Path, smsc: int, journal_after_s: float) -> Contestant:
    """Raises AbsentError where MariaDB or Galera is not installed, StartFailedError."""
    server, install, client = (found(name) for name in ("mariadbd", "mariadb-install-db", "mariadb"))
    if not _PROVIDER.exists():
        raise AbsentError("galera-4 is not installed (tests/system-packages.sh installs it, as root or with sudo)")
    if os.geteuid() == 0:
        work.chmod(0o711)  # the servers' account, which is not root, passes through; the files are not for it
    place = work / name
    place.mkdir(mode=0o755)
    ports = free_ports(_SERVERS * _PORTS)
    groups = [ports[_PORTS * number : _PORTS * (number + 1)] for number in range(_SERVERS)]
    started: list[Started] = []
    try:
        for number in range(_SERVERS):
            one = _start_server(place / str(number + 1), server, install, number, groups)
            started.append(one)  # one by one: those that have started are stopped when the next one fails
        configs = _configured(place, name, nodes, smsc, journal_after_s)
        _prepare(place, client, next(iter(configs)))
        started += [_start_node(config, port) for config, port in configs.items()]
    except (StartFailedError, subprocess.SubprocessError) as error:
        for each in started:
            each.stop()
        raise StartFailedError(f"{name}: {error}") from error
    database, proxies = tuple(started[:_SERVERS]), tuple(started[_SERVERS:])
    addresses = tuple(("127.0.0.1", proxy.port) for proxy in proxies)
    return Contestant(name, addresses, proxies, share=_SHARE / len(nodes), database=database)


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


def _configured(
    place: Path, system_id: str, nodes: Sequence[str], smsc: int, journal_after_s: float
) -> dict[Path, int]:
    """The configuration of each node, and the port where it listens for gateways. Each has a server of its own."""
    secret = place / "ring.secret"
    secret.write_text(secrets.token_urlsafe(32) + "\n")
    secret.chmod(0o600)
    ports, links = free_ports(len(nodes)), free_ports(len(nodes))
    peers = "".join(PEER.format(name=name, port=link) for name, link in zip(nodes, links, strict=True))
    password = secrets.token_hex(16)
    configs = {}
    for number, (name, port) in enumerate(zip(nodes, ports, strict=True), start=1):
        config = place / f"{name}.toml"
        config.write_text(
            _NODE.format(
                name=name, work=place, smsc=smsc, system_id=system_id, smpp_password=messages.PASSWORD.decode(),
                port=port, window=PROXY_WINDOW, socket=place / str(number) / "s", password=password,
                journal_after_s=journal_after_s,
            )
            + peers
        )  # fmt: skip
        config.chmod(0o600)
        configs[config] = port
    return configs


def _prepare(place: Path, client: str, config: Path) -> None:
    """The accounts and the schema, at one server: the cluster has them then."""
    dlrproxy = [sys.executable, "-m", "dlrproxy"]
    grants = run([*dlrproxy, "db", "grants", str(config), "--from", "localhost"])
    run([client, "--no-defaults", f"--socket={place / '1' / 's'}", "--user=root"], grants)
    run([*dlrproxy, "db", "init", str(config)])


def _start_node(config: Path, port: int) -> Started:
    return start([sys.executable, "-m", "dlrproxy", "run", str(config)], config.with_suffix(".log"), port)
