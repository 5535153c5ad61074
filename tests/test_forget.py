"""`dlrproxy db forget`: what the database keeps of a node that was taken out, and when that may go."""

import mariadb_server
import pytest
from attrs import evolve
from test_database_config import QUORUM

from dlrproxy.config import parse
from dlrproxy.modes import forget
from dlrproxy.modes.agreement import settings_of
from dlrproxy.modes.cluster import Server
from dlrproxy.modes.forget import NotForgottenError
from dlrproxy.store.directory import STORE_ID_KEY
from dlrproxy.store.port import Table
from dlrproxy.store.shared import UNREADABLE
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.errors import FencedError
from dlrproxy.store.sql.fence import FENCE, INBOX
from dlrproxy.store.sql.galera import Galera, members_of
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import PUT_ITEMS, get_item, insert_item, item_values

NAMES = ("gw1", "gw2", "gw3", "old")
TIMEOUT_S = 30.0


class Cluster:
    """One server, which calls itself in the quorum. `old` was taken out, and gw2 is its heir."""

    def __init__(self, account):
        self.account = account
        self.pool = Pool(account, 1, TIMEOUT_S)
        self.nodes = {
            name: Galera(account, name, name.encode(), timeout_s=TIMEOUT_S, beat_timeout_s=TIMEOUT_S) for name in NAMES
        }
        read = parse(QUORUM.replace("[database]", f'[database]\nsocket = "{account.socket}"'))
        database = evolve(read.database, user=account.user, schema=account.schema)
        self.config = evolve(read, database=evolve(database, password=type(database.password)(b"secret")))

    async def begin(self):
        await schema.init(self.pool)
        for name, node in self.nodes.items():
            await node.claim(None)
            await node.publish(settings_of(self.config))
            await partition.fence(self.pool, name, 1)
            await partition.store_id(self.pool, name)

    async def take_old(self):
        assert await self.nodes["gw1"].take("old", (await members_of(self.pool))["old"], "gw2")

    async def put(self, kind, name=b"x"):
        await self.pool.run(PUT_ITEMS + item_values("old", kind, name, b"row"))

    async def kinds(self, node):
        found = await self.pool.run(f"SELECT kind FROM items WHERE node='{node}' ORDER BY kind")  # noqa: S608
        return [kind.decode() for (kind,) in found.rows]

    async def forget(self, node="old"):
        await forget.forget(self.config, node)

    async def refused(self, node="old"):
        before = await members_of(self.pool), await self.kinds("old")
        with pytest.raises(NotForgottenError) as raised:
            await self.forget(node)
        assert (await members_of(self.pool), await self.kinds("old")) == before
        return str(raised.value)

    async def close(self):
        for node in self.nodes.values():
            await node.close()
        await self.pool.close()


@pytest.fixture
async def cluster(monkeypatch):
    async def in_the_quorum(pool):
        return Server(primary=True, ready=True, state="Synced")

    monkeypatch.setattr(forget, "status_of", in_the_quorum)
    async with mariadb_server.fresh_schema() as account:
        made = Cluster(account)
        await made.begin()
        yield made
        await made.close()


async def test_its_rows_go_and_its_fence_stays(cluster):
    await cluster.take_old()
    assert await cluster.kinds("old") == [FENCE, Table.META.value, "settings"]
    await cluster.forget()
    assert set(await members_of(cluster.pool)) == {"gw1", "gw2", "gw3"}
    assert await cluster.kinds("old") == [FENCE]
    assert await cluster.kinds("gw1") == [FENCE, Table.META.value, "settings"]
    assert "the database knows no node old; it knows gw1, gw2, gw3" in await cluster.refused()


async def test_a_process_of_it_that_wakes_up_writes_nothing_and_one_that_is_set_up_again_does(cluster):
    await cluster.take_old()
    await cluster.forget()
    with pytest.raises(FencedError):
        await partition.fence(cluster.pool, "old", 1)
    assert not await cluster.nodes["old"].beat(1)
    epoch = await cluster.nodes["old"].claim(None)
    assert epoch == 3  # the first term, the takeover, this one
    await partition.fence(cluster.pool, "old", epoch)
    assert await cluster.nodes["old"].beat(epoch)
    assert not (await cluster.pool.run(get_item(Table.META, STORE_ID_KEY, "old"))).rows  # it makes another


async def test_who_lives_is_not_forgotten(cluster):
    assert "old lives" in await cluster.refused()


async def test_nor_one_of_the_peers_here_or_elsewhere(cluster):
    await cluster.take_old()
    assert "gw3 is among the [[peers]] of this configuration" in await cluster.refused("gw3")
    settings = settings_of(cluster.config)
    await cluster.nodes["gw2"].publish(type(settings)(peers=("gw1", "gw2", "gw3", "old")))
    assert "gw2 still has old among its [[peers]]" in await cluster.refused()
    await cluster.nodes["gw2"].publish(type(settings)())
    assert "gw2 is of a release that does not tell" in await cluster.refused()
    await cluster.nodes["gw1"].take("gw2", (await members_of(cluster.pool))["gw2"], "gw3")
    await cluster.forget()


@pytest.mark.parametrize("kind", [Table.CUSTODY.value, Table.PARKED.value, INBOX])
async def test_nor_one_with_custody(cluster, kind):
    await cluster.put(kind)
    await cluster.take_old()
    assert "1 reports or MO of old are not given to gw2 yet" in await cluster.refused()
    assert await cluster.nodes["gw1"].move("old", 2) == 1
    await cluster.forget()
    assert await cluster.kinds("gw2") == sorted(
        [FENCE, Table.META.value, "settings", INBOX if kind != Table.PARKED.value else kind]
    )


async def test_what_could_not_be_read_is_custody_too(cluster):
    await cluster.pool.run(insert_item(Table.META, UNREADABLE + b"1", b"row", "old"))
    await cluster.take_old()
    assert "1 reports or MO of old are not given to gw2 yet" in await cluster.refused()
    assert await cluster.nodes["gw1"].move("old", 2) == 1
    await cluster.forget()
    assert await cluster.kinds("old") == [FENCE]


async def test_what_a_later_release_has_written_stays_and_custody_that_comes_at_that_moment(cluster, monkeypatch):
    await cluster.put("later")
    await cluster.take_old()
    counted = partition.unmoved

    async def given_meanwhile(pool, node):
        found = await counted(pool, node)
        await cluster.put(INBOX)
        return found

    monkeypatch.setattr(partition, "unmoved", given_meanwhile)
    await cluster.forget()
    assert await cluster.kinds("old") == sorted((FENCE, INBOX, "later"))


async def test_one_that_comes_back_at_that_moment_is_left_alone(cluster, monkeypatch):
    await cluster.take_old()
    counted = partition.unmoved

    async def back_meanwhile(pool, node):
        await cluster.nodes["old"].claim((await members_of(cluster.pool))["old"])
        return await counted(pool, node)

    with monkeypatch.context() as patch:
        patch.setattr(partition, "unmoved", back_meanwhile)
        with pytest.raises(NotForgottenError, match="old is back"):
            await cluster.forget()
    await partition.fence(cluster.pool, "old", 3)
    assert "old lives" in await cluster.refused()
    assert await cluster.kinds("old") == [FENCE, Table.META.value, "settings"]


async def test_a_server_without_a_quorum_says_so(cluster, monkeypatch):
    async def alone(pool):
        return Server(primary=False, ready=False, state="Initialized")

    await cluster.take_old()
    monkeypatch.setattr(forget, "status_of", alone)
    assert "has no quorum" in await cluster.refused()
