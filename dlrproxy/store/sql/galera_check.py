"""What the settings of a Galera node put at risk, beside what `schema.check` says of every server.

Their meaning is from MariaDB's and Galera's manuals, their effects were seen with MariaDB 10.11 and Galera 26.4.
Percona XtraDB Cluster has the same names; nobody has run it here.
"""

import re
from collections.abc import Mapping
from typing import Final

from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rules import Rule, broken, is_
from dlrproxy.store.sql.schema import Finding

# Writes wait for about evs.suspect_timeout when a server dies, and longer when two do (see docs/quorum.md).
TIMEOUTS_IN_FENCE: Final = 3

# ISO 8601, as far as Galera has it.
_DURATION: Final = re.compile(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_UNITS_S: Final = (86_400, 3600, 60, 1)

_RULES: Final = (
    Rule(
        ("wsrep_on",),
        "ON",
        is_("ON"),
        "this server is in no cluster: what it stores is on no other node",
    ),
    Rule(
        ("binlog_format",),
        "ROW",
        is_("ROW"),
        "Galera replicates rows only; other events are not certified, and the nodes come to differ",
    ),
    Rule(
        ("wsrep_dirty_reads",),
        "OFF",
        is_("OFF"),
        "a node that is cut off answers with old rows instead of refusing",
    ),
    Rule(
        ("pc.ignore_quorum",),
        "false",
        is_("FALSE", "NO", "0"),
        "after a cut each part goes on by itself, and the parts never come together again",
    ),
    Rule(
        ("pc.ignore_sb",),
        "false",
        is_("FALSE", "NO", "0"),
        "after a cut into equal parts each goes on by itself, and the parts never come together again",
    ),
    Rule(
        ("innodb_autoinc_lock_mode",),
        "2",
        is_("2"),
        "inserts of other schemas on this server can lock each other up, and the node with them",
        fatal=False,
    ),
    Rule(
        ("wsrep_osu_method",),
        "TOI",
        is_("TOI"),
        "what `dlrproxy db migrate` changes is changed on this node only",
        fatal=False,
    ),
    Rule(
        ("wsrep_sst_method",),
        "mariabackup",
        is_("MARIABACKUP", "XTRABACKUP-V2", "CLONE"),
        "a node that returns after a long time stops the node that gives it its data (rsync, mysqldump), or never "
        "gets it (skip)",
        fatal=False,
    ),
)


async def check(pool: Pool, *, fence_after_s: float, weight: int) -> list[Finding]:
    """What puts the cluster at risk, as this node is set in [quorum]. Raises SqlError."""
    # Those of this session: wsrep_on has no other value in Percona XtraDB Cluster. The rest begins with the global one.
    result = await pool.run("SHOW SESSION VARIABLES")
    found = {str(name).lower(): str(value) for name, value in result.rows}
    return findings(found, fence_after_s=fence_after_s, weight=weight)


def findings(found: Mapping[str, str], *, fence_after_s: float, weight: int) -> list[Finding]:
    """The same of the server's variables, by name, in small letters."""
    options = options_of(found.get("wsrep_provider_options", ""))
    return [*broken((*_RULES, *_timeouts(fence_after_s), _weight(weight)), {**found, **options})]


def _weight(weight: int) -> Rule:
    return Rule(
        ("pc.weight",),
        f"{weight}, as [quorum] has it",
        lambda found: found == str(weight),
        "`check-config` and `status` say of the wrong losses that the cluster survives them",
        fatal=False,
    )


def _timeouts(fence_after_s: float) -> tuple[Rule, ...]:
    longest_s = fence_after_s / TIMEOUTS_IN_FENCE
    risk = (
        f"when a node dies all writes stand still for so long, and with quorum.fence_after_s = {fence_after_s:g} the "
        "nodes that live may release their binds as well"
    )
    return tuple(
        Rule(
            (name,),
            f"at most PT{longest_s:g}S",
            lambda found: seconds(found) <= longest_s,
            risk,
            fatal=False,
        )
        for name in ("evs.suspect_timeout", "evs.inactive_timeout")
    )


def options_of(text: str) -> dict[str, str]:
    """wsrep_provider_options: "evs.inactive_timeout = PT15S; pc.ignore_sb = false; ..."."""
    pairs = (item.partition("=") for item in text.split(";"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def seconds(duration: str) -> float:
    """Of a duration as Galera writes it, "PT1.5S"; what cannot be read counts as endless."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        return float("inf")
    return sum(float(number or 0) * unit for number, unit in zip(found.groups(), _UNITS_S, strict=True))
