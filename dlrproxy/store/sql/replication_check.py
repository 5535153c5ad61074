"""What the settings of a pair's server, and the rights of its ordinary account, put at risk.

Beside what `schema.check` says of every server. Settings that a server does not have by any of its names are passed
over: MariaDB does not show skip_slave_start, which the pair wants in its configuration file all the same.
"""

import re
from typing import Final

from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rules import Rule, at_least, at_most, broken, is_
from dlrproxy.store.sql.schema import Finding

MIN_STRICT_TIMEOUT_MS: Final = 24 * 3600 * 1000
MAX_AVAILABLE_TIMEOUT_MS: Final = 5000  # what gateways wait for when the replica is lost
MAX_NET_TIMEOUT_S: Final = 10

# Privileges that read_only does not bind. MariaDB's and MySQL's.
_ABOVE_READ_ONLY: Final = re.compile(r"\b(ALL PRIVILEGES|SUPER|READ[_ ]ONLY ADMIN|CONNECTION_ADMIN)\b")
_ON_EVERYTHING: Final = " ON *.* TO "


_ALWAYS: Final = (
    Rule(("log_bin",), "ON", is_("ON"), "there is nothing that the other node could replicate"),
    Rule(
        ("binlog_format",),
        "ROW",
        is_("ROW", "MIXED"),
        "a statement that picks rows for itself picks others on the replica, and the two differ unnoticed",
    ),
    Rule(
        ("gtid_strict_mode", "gtid_mode"),
        "ON",
        is_("ON"),
        "two servers that have both been written to go on replicating, and differ unnoticed",
    ),
    Rule(
        ("log_slave_updates", "log_replica_updates"),
        "ON",
        is_("ON"),
        "after a promotion the other node cannot get what this one had received",
    ),
    Rule(
        ("relay_log_recovery",),
        "ON",
        is_("ON"),
        "after a crash of the machine a relay log that was half written may be applied",
        fatal=False,
    ),
    Rule(
        ("slave_net_timeout", "replica_net_timeout"),
        f"at most {MAX_NET_TIMEOUT_S}",
        at_most(MAX_NET_TIMEOUT_S),
        "a replica notices only after so many seconds that its link is silent, and the active waits for it",
        fatal=False,
    ),
    Rule(
        ("skip_replica_start",),
        "ON",
        is_("ON"),
        "a server that was the primary replicates as soon as it starts, before its node has looked",
        fatal=False,
    ),
)

_STRICT: Final = (
    Rule(
        ("rpl_semi_sync_slave_enabled", "rpl_semi_sync_replica_enabled"),
        "ON",
        is_("ON"),
        "as a replica it acknowledges nothing, and the active does without it or stops to serve",
    ),
    Rule(
        ("rpl_semi_sync_master_wait_point", "rpl_semi_sync_source_wait_point"),
        "AFTER_SYNC",
        is_("AFTER_SYNC"),
        "what a promotion takes back may have been read and passed on",
    ),
    Rule(
        ("rpl_semi_sync_master_wait_no_slave", "rpl_semi_sync_source_wait_no_replica"),
        "ON",
        is_("ON"),
        "without a replica commits return as though one had received them",
    ),
    Rule(
        ("rpl_semi_sync_master_timeout", "rpl_semi_sync_source_timeout"),
        f"at least {MIN_STRICT_TIMEOUT_MS}",
        at_least(MIN_STRICT_TIMEOUT_MS),
        "after so many milliseconds commits return that no replica has received",
    ),
)

_AVAILABLE: Final = (
    Rule(
        ("rpl_semi_sync_master_timeout", "rpl_semi_sync_source_timeout"),
        f"at most {MAX_AVAILABLE_TIMEOUT_MS}",
        at_most(MAX_AVAILABLE_TIMEOUT_MS),
        "gateways wait for so many milliseconds when the replica is lost",
        fatal=False,
    ),
)

# Of a server that takes writes only: as a replica it must not wait for one of its own.
_PRIMARY: Final = (
    Rule(
        ("rpl_semi_sync_master_enabled", "rpl_semi_sync_source_enabled"),
        "ON, but for the time that its node serves alone",
        is_("ON"),
        "commits return that no replica has received: after each restart of the server, until its node has looked",
        fatal=False,
    ),
)


async def check(pool: Pool, *, strict: bool) -> list[Finding]:
    """What puts the pair at risk, as the ordinary account sees it. Raises SqlError."""
    result = await pool.run("SHOW GLOBAL VARIABLES")
    found = {str(name).lower(): str(value) for name, value in result.rows}
    rules = [*_ALWAYS, *(_STRICT if strict else _AVAILABLE)]
    if strict and is_("OFF")(found["read_only"]):
        rules += _PRIMARY
    return [*broken(rules, found), *await _account(pool), *await _replicas(pool)]


async def _account(pool: Pool) -> list[Finding]:
    grants = [str(row[0]) for row in (await pool.run("SHOW GRANTS")).rows]
    above = [
        right[1]
        for grant in grants
        if _ON_EVERYTHING in grant and (right := _ABOVE_READ_ONLY.search(grant.partition(_ON_EVERYTHING)[0]))
    ]
    if not above:
        return []
    risk = "it can write to a server that was made read-only, and what it writes there is lost or in the way"
    return [Finding(f"privileges of {pool.account.user}", ", ".join(above), "on its own schema only", risk, fatal=True)]


async def _replicas(pool: Pool) -> list[Finding]:
    result = await pool.run("SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Rpl_semi_sync_%_clients'")
    return [
        Finding(
            str(name).lower(),
            str(value),
            "at most 1",
            "only the standby may be semi-synchronous: it may lack what another replica has acknowledged",
            fatal=True,
        )
        for name, value in result.rows
        if int(str(value)) > 1
    ]
