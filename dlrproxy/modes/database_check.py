"""What this node's database server puts at risk, by its settings, and by what the accounts may do there or not."""

import attrs

from dlrproxy.config import Config, accounts
from dlrproxy.modes.agreement import Agreement, settings_of
from dlrproxy.modes.cluster import RATE_MARGIN, RELEASE_S, MasterRow, Rows
from dlrproxy.modes.database import PAIR, connected, database_of, needs
from dlrproxy.store.port import StoreError
from dlrproxy.store.sql import galera_check, replication_check, rights, schema
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.dialect import dialect_of, is_mariadb
from dlrproxy.store.sql.errors import RefusedError, SqlError
from dlrproxy.store.sql.galera import members_of
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.rights import Need, Task
from dlrproxy.store.sql.schema import Finding


@attrs.frozen(kw_only=True)
class Report:
    """How this node's server was found."""

    server: str
    version: str  # as it calls itself
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not any(finding.fatal for finding in self.findings)


async def look(config: Config) -> Report:
    """Raises SqlError when the ordinary account cannot get in."""
    ordinary = accounts.ordinary(config)
    version = await _version_at(config, ordinary)
    async with connected(config, ordinary, to_schema=False) as pool:
        findings = [*_version(version), *await schema.check(pool)]
        if config.node.mode == "quorum" and config.quorum is not None:
            quorum = config.quorum
            findings += await galera_check.check(
                pool, fence_after_s=quorum.fence_after_s, weight=quorum.weight(config.node.name)
            )
        if config.node.mode == PAIR and config.pair is not None:
            findings += await replication_check.check(pool, strict=config.pair.safety == "strict")
    findings += await _schema(config)
    findings += await _accounts(config, version)
    if config.pair is not None and config.node.mode == PAIR:
        findings += await _other_server(config, version)
    return Report(server=ordinary.server, version=version, findings=tuple(findings))


def _version(version: str) -> list[Finding]:
    if is_mariadb(version):
        return []
    return [Finding("version", version, "MariaDB 10.11 or newer", "nobody has tried this version", fatal=False)]


async def _schema(config: Config) -> list[Finding]:
    async with connected(config, accounts.ordinary(config)) as pool:
        try:
            await schema.ready(pool)
        except StoreError as error:
            return [Finding("schema", str(error), f"of version {schema.VERSION}", "the node cannot start", fatal=True)]
        return await _other_nodes(config, pool) if config.node.mode == "quorum" else []


async def _other_nodes(config: Config, pool: Pool) -> list[Finding]:
    """What the other nodes of a quorum have told of themselves, against this configuration."""
    rows = Rows(members=await members_of(pool), master=MasterRow())
    agreement = Agreement(config.node.name, settings_of(config))
    agreement.observe(rows, 0.0)
    found = [
        Finding(f"{each.key} of {each.node}", each.there, each.here, "the nodes are not set alike", fatal=False)
        for each in agreement.differences
        if each.node in rows.members
    ]
    if why := agreement.objection(rows, 0.0):
        should = f"{RELEASE_S:g} s below {RATE_MARGIN:g} of it"
        found.append(Finding("fence_after_s", why, should, "the node does not serve beside it", fatal=True))
    return found


async def _accounts(config: Config, version: str) -> list[Finding]:
    """Those that this node uses itself."""
    used = {account.user: account for account in (accounts.ordinary(config), accounts.admin(config))}
    found: list[Finding] = []
    for need in needs(config):
        if (account := used.get(need.user)) is None:
            continue
        lacking = await _lacking(config, need, account, version)
        found += lacking
        if not lacking and set(need.tasks) & {Task.WATCH, Task.MANAGE}:
            found += await _writable_replica(config, account, version)
    return found


async def _lacking(config: Config, need: Need, account: Account, version: str) -> list[Finding]:
    async with connected(config, account, to_schema=False) as pool:
        try:
            finding = await rights.missing(pool, need, database_of(config).schema, dialect_of(version))
        except SqlError as error:
            return [_shut_out(need.user, error)]
    return [finding] if finding is not None else []


def _shut_out(user: str, error: SqlError) -> Finding:
    return Finding(f"account {user}", str(error), "let in", "the node cannot use this account", fatal=True)


async def _writable_replica(config: Config, account: Account, version: str) -> list[Finding]:
    async with connected(config, account, to_schema=False) as pool:
        replicates = (await pool.run(dialect_of(version).show_replica)).rows
        writable = not (await pool.run("SELECT @@global.read_only")).rows[0][0]
    if not (replicates and writable):
        return []
    risk = "it is a replica: whatever is written here by itself ends the replication"
    return [Finding("read_only", "OFF", "ON while it replicates", risk, fatal=True)]


async def _other_server(config: Config, version: str) -> list[Finding]:
    """Whether this node can look at the other one's server, and the two can replicate from one another."""
    try:
        other = await _version_at(config, accounts.peer_ordinary(config))
        await _version_at(config, accounts.peer_admin(config))
    except SqlError as error:
        risk = "this node cannot see whether the other one is active"
        refused = isinstance(error, RefusedError)
        return [Finding("the other node's server", str(error), "lets the same accounts in", risk, fatal=refused)]
    if _series(other) == _series(version):
        return []
    risk = "an older server cannot be the replica of a newer one: after a promotion there may be no standby"
    return [Finding("version", f"{version}; the other {other}", "of one series on both", risk, fatal=False)]


async def _version_at(config: Config, account: Account) -> str:
    async with connected(config, account, to_schema=False) as pool:
        return str((await pool.run("SELECT VERSION()")).rows[0][0])


def _series(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
