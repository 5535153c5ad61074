"""What MariaDB and MySQL 8 call the same things of replication. Pure.

Tested with MariaDB 10.11. MySQL's names are from its manual (8.0.26 and newer), and nobody has run them here.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

_MARIADB_GTID: Final = re.compile(r"(\d+)-(\d+)-(\d+)")  # domain, server, number


@attrs.frozen(kw_only=True)
class Dialect:
    """Statements, columns of `show_replica`, expressions, and variables."""

    show_replica: str
    receiving: str
    applying: str
    received: str
    source_id: str
    receive_error: str
    apply_error: str

    received_log: tuple[str, str]  # how far the source's log was received: the file's name, and bytes in it
    applied_log: tuple[str, str]  # likewise applied

    position: str  # all that is applied or written here
    applied: str  # all that is applied of what was received

    start: str
    stop_receiving: str
    stop: str
    forget_source: str

    semi_sync: str  # the variable that makes a primary wait for its replica
    semi_sync_replica: str  # the one that makes a replica acknowledge
    semi_sync_status: str  # what the names of its status variables begin with

    # Rights on the server, beside those on the schema
    to_watch: tuple[str, ...]  # to see the replication, and say who waits for whom
    to_manage: tuple[str, ...]  # to change it as well
    old_names: Mapping[str, str]  # of rights, as SHOW GRANTS has them


MARIADB: Final = Dialect(
    show_replica="SHOW SLAVE STATUS",
    receiving="Slave_IO_Running",
    applying="Slave_SQL_Running",
    received="Gtid_IO_Pos",
    source_id="Master_Server_Id",
    receive_error="Last_IO_Error",
    apply_error="Last_SQL_Error",
    received_log=("Master_Log_File", "Read_Master_Log_Pos"),
    applied_log=("Relay_Master_Log_File", "Exec_Master_Log_Pos"),
    position="@@gtid_current_pos",
    applied="@@gtid_slave_pos",
    start="START SLAVE",
    stop_receiving="STOP SLAVE IO_THREAD",
    stop="STOP SLAVE",
    forget_source="RESET SLAVE ALL",
    semi_sync="rpl_semi_sync_master_enabled",
    semi_sync_replica="rpl_semi_sync_slave_enabled",
    semi_sync_status="rpl_semi_sync_master_",
    to_watch=("REPLICA MONITOR", "BINLOG MONITOR", "REPLICATION MASTER ADMIN"),
    to_manage=(
        "REPLICA MONITOR",
        "BINLOG MONITOR",
        "REPLICATION MASTER ADMIN",
        "REPLICATION SLAVE ADMIN",
        "READ_ONLY ADMIN",
        "PROCESS",
        "CONNECTION ADMIN",
        "RELOAD",
    ),
    old_names=MappingProxyType({"SLAVE MONITOR": "REPLICA MONITOR"}),
)

MYSQL: Final = Dialect(
    show_replica="SHOW REPLICA STATUS",
    receiving="Replica_IO_Running",
    applying="Replica_SQL_Running",
    received="Retrieved_Gtid_Set",
    source_id="Source_Server_Id",
    receive_error="Last_IO_Error",
    apply_error="Last_SQL_Error",
    received_log=("Source_Log_File", "Read_Source_Log_Pos"),
    applied_log=("Relay_Source_Log_File", "Exec_Source_Log_Pos"),
    position="@@global.gtid_executed",
    applied="@@global.gtid_executed",
    start="START REPLICA",
    stop_receiving="STOP REPLICA IO_THREAD",
    stop="STOP REPLICA",
    forget_source="RESET REPLICA ALL",
    semi_sync="rpl_semi_sync_source_enabled",
    semi_sync_replica="rpl_semi_sync_replica_enabled",
    semi_sync_status="rpl_semi_sync_source_",
    to_watch=("REPLICATION CLIENT", "SYSTEM_VARIABLES_ADMIN"),
    to_manage=(
        "REPLICATION CLIENT",
        "SYSTEM_VARIABLES_ADMIN",
        "REPLICATION_SLAVE_ADMIN",
        "PROCESS",
        "CONNECTION_ADMIN",
        "RELOAD",
    ),
    old_names=MappingProxyType({}),
)


def dialect_of(version: str) -> Dialect:
    """`version` is what the server says of itself: "10.11.6-MariaDB-0+deb12u1", "8.0.36"."""
    return MARIADB if is_mariadb(version) else MYSQL


def is_mariadb(version: str) -> bool:
    """What is not MariaDB is taken for MySQL."""
    return "mariadb" in version.lower()


def includes(position: str, part: str) -> bool:
    """Whether a server that is at `position` has all of `part`: GTID positions of MariaDB, or GTID sets of MySQL.

    Of a set only the highest number of each server counts: the sets of a pair have no holes, since its replica applies
    in the order of its source (MySQL: replica_preserve_commit_order=ON, the default).
    """
    have = _numbers(position)
    return all(have.get(source, 0) >= number for source, number in _numbers(part).items())


def holds(history: str, position: str) -> bool:
    """Whether every transaction that MariaDB's `position` names is in `history`: GTIDs, of each domain and server the
    newest that a server has (its gtid_binlog_state, and its gtid_slave_pos).

    Each number of a domain is used once in a history, by one server. So a server that is at a transaction of this
    history has what comes before it here, and nothing else.
    """
    have: dict[tuple[str, str], int] = {}
    for domain, server, number in _gtids(history):
        have[domain, server] = max(have.get((domain, server), 0), number)
    return all(have.get((domain, server), 0) >= number for domain, server, number in _gtids(position))


def _gtids(position: str) -> list[tuple[str, str, int]]:
    return [(domain, server, int(number)) for domain, server, number in _MARIADB_GTID.findall(position)]


def lacking(position: str, whole: str) -> int:
    """How many transactions of `whole` a server lacks that is at `position`; as `includes` counts them."""
    have = _numbers(position)
    return sum(max(0, number - have.get(source, 0)) for source, number in _numbers(whole).items())


def _numbers(position: str) -> dict[str, int]:
    """The highest number of each domain (MariaDB), or of each server (MySQL)."""
    found: dict[str, int] = {}
    for item in filter(None, (item.strip() for item in position.split(","))):
        if of_mariadb := _MARIADB_GTID.fullmatch(item):
            source, number = of_mariadb[1], int(of_mariadb[3])
        else:
            source, *intervals = item.split(":")
            number = int(intervals[-1].rpartition("-")[2])
        found[source] = max(found.get(source, 0), number)
    return found
