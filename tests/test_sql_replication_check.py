"""What is found wrong with a pair's server, and with its ordinary account."""

import mariadb_server
from test_sql_replication import a_pair

from dlrproxy.store.sql import replication_check
from dlrproxy.store.sql.pool import Pool

LONG_S = 60


async def findings(account, *, strict):
    pool = Pool(account, 1, LONG_S)
    try:
        return {finding.setting: finding for finding in await replication_check.check(pool, strict=strict)}
    finally:
        await pool.close()


async def test_a_sound_pair_is_found_sound():
    async with a_pair() as nodes:
        assert set(await findings(nodes.pair.account("a", "app"), strict=True)) == {"rpl_semi_sync_master_enabled"}
        assert await nodes.a.beat()
        for name in "ab":
            assert await findings(nodes.pair.account(name, "app"), strict=True) == {}


async def test_a_server_as_it_is_installed_is_not_fit_for_a_pair():
    async with mariadb_server.fresh_schema() as account:
        found = await findings(account, strict=True)
        assert {setting for setting, finding in found.items() if finding.fatal} == {
            "log_bin", "gtid_strict_mode", "log_slave_updates", "rpl_semi_sync_slave_enabled",
            "rpl_semi_sync_master_wait_point", "rpl_semi_sync_master_timeout",
        }  # fmt: skip
        assert {setting for setting, finding in found.items() if not finding.fatal} == {
            "relay_log_recovery", "slave_net_timeout", "rpl_semi_sync_master_enabled",
        }  # fmt: skip
        assert all(finding.value and finding.should and finding.risk for finding in found.values())
        assert found["slave_net_timeout"].should == "at most 10"
        available = await findings(account, strict=False)
        assert available["rpl_semi_sync_master_timeout"].should == "at most 5000"


async def test_an_ordinary_account_that_read_only_does_not_bind_is_found():
    async with a_pair() as nodes:
        found = await findings(nodes.pair.account("b"), strict=True)
        assert set(found) == {"privileges of admin"}
        assert found["privileges of admin"].value == "READ_ONLY ADMIN"
