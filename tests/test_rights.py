"""Which rights the accounts need, and whether what a server shows of an account has them."""

from types import SimpleNamespace

import pytest

from dlrproxy.store.sql.dialect import MARIADB, MYSQL
from dlrproxy.store.sql.rights import ROWS, Need, Task, account_name, missing, native, statements

ROWS_ONLY = Need(user="dlr", password="secret", tasks=(Task.ROWS,))
MANAGER = Need(user="boss", password="secret", tasks=(Task.ROWS, Task.MANAGE))
EVERY_ROW = f"GRANT {', '.join(ROWS)} ON "


class Shown:
    """A server that shows these grants."""

    def __init__(self, *grants):
        self._grants = grants

    async def run(self, statement):
        rows = [(grant,) for grant in self._grants] if statement == "SHOW GRANTS" else [("dlr@10.0.0.%",)]
        return SimpleNamespace(rows=rows)


@pytest.mark.parametrize(
    "grant",
    [
        EVERY_ROW + r"`my\_rows`.* TO `dlr`@`%`",
        EVERY_ROW + "`my_rows`.* TO `dlr`@`%`",
        "GRANT ALL PRIVILEGES ON `my%`.* TO `dlr`@`%` WITH GRANT OPTION",
        "GRANT ALL PRIVILEGES ON *.* TO `dlr`@`%`",
    ],
)
async def test_rights_on_the_schema_by_any_pattern_are_found(grant):
    assert await missing(Shown("GRANT USAGE ON *.* TO `dlr`@`%`", grant), ROWS_ONLY, "my_rows", MARIADB) is None


@pytest.mark.parametrize(
    "grant",
    [
        r"GRANT ALL PRIVILEGES ON `my\_other`.* TO `dlr`@`%`",
        "GRANT ALL PRIVILEGES ON `my_rows`.`pair` TO `dlr`@`%`",
        r"GRANT ALL PRIVILEGES ON `my\%`.* TO `dlr`@`%`",
        "GRANT `a role` TO `dlr`@`%`",
    ],
)
async def test_rights_on_something_else_do_not_count(grant):
    finding = await missing(Shown(grant), ROWS_ONLY, "my_rows", MARIADB)
    assert finding.should == EVERY_ROW + r"`my\_rows`.* TO 'dlr'@'10.0.0.%';"
    assert finding.fatal


async def test_a_right_may_stand_in_several_lines_and_under_its_old_name():
    have = set(MARIADB.to_manage) - {"REPLICA MONITOR", "RELOAD"} | {"SLAVE MONITOR"}
    shown = Shown(f"GRANT {', '.join(have)} ON *.* TO `boss`@`%`", "GRANT ALL PRIVILEGES ON `rows`.* TO `boss`@`%`")
    finding = await missing(shown, MANAGER, "rows", MARIADB)
    assert finding.value == "lack RELOAD"
    assert finding.should == "GRANT RELOAD ON *.* TO 'dlr'@'10.0.0.%';"


def test_the_statements_of_a_pair_leave_no_trace_in_the_binary_log():
    lines = [*statements([ROWS_ONLY], "my_rows", ["localhost", "10.0.0.%"], MARIADB, unlogged=True)]
    assert lines[0] == "SET SESSION sql_log_bin = 0;"
    assert "CREATE DATABASE IF NOT EXISTS `my_rows`;" in lines
    assert len([line for line in lines if line.startswith("CREATE USER")]) == 2
    assert not [line for line in lines if "secret" in line]


def test_a_cluster_replicates_its_accounts_itself():
    lines = [*statements([ROWS_ONLY], "rows", ["%"], MARIADB, unlogged=False)]
    assert not [line for line in lines if "sql_log_bin" in line]


def test_the_account_for_replication_gets_nothing_else():
    need = Need(user="copy", password="secret", tasks=(Task.COPY,))
    assert need.rights("rows", MARIADB) == {"*.*": ("REPLICATION SLAVE",)}
    assert set(MANAGER.rights("rows", MYSQL)) == {"`rows`.*", "*.*"}


def test_passwords_are_hashed_as_a_server_keeps_them():
    assert native("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"  # as its manual shows it


def test_names_are_quoted():
    assert account_name("o'neill\\", "%") == r"'o''neill\\'@'%'"
