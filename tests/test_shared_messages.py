"""Open messages that every node of a cluster writes: what a node remembers of one may have changed at another since.

Two relays over two stores in one database, on one server. An operator uses an id again, or reports at another node.
"""

import pytest
from relay_world import World, deliver_sm_resp, receipt, sequence_of, status_of, submit_sm_resp
from shared_world import running_stores
from test_store_contract import a_lookup, an_open, durable, find_one

from dlrproxy.custody_port import Wanted
from dlrproxy.store.backend import WriteError
from dlrproxy.store.port import StoreError
from dlrproxy.store.sql.backend import SqlBackend
from dlrproxy.store.sql.statements import ROWS

NOW = 1000.0  # on the clock of every world


@pytest.fixture
async def stores(tmp_path):
    """Those of the nodes a and b."""
    async with running_stores(tmp_path, a=lambda: NOW, b=lambda: NOW) as (_, opened):
        yield list(opened.values())


@pytest.fixture
def worlds(stores):
    return [World(store=store, roaming=True) for store in stores]


async def submitted(world, gateway, message_id):
    """An MT of the gateway's at that node, and its response. Returns bind and session."""
    bind, session = world.bind(), world.session(gateway)
    world.submit(session, 1)
    [request] = bind.connection.take()
    world.relay.from_operator(bind, [submit_sm_resp(sequence_of(request), message_id)])
    await durable(world.store)
    assert len(session.connection.take()) == 1
    return bind, session


async def reported(world, bind, session, frame):
    """What the session gets of a report."""
    world.relay.from_operator(bind, [frame])
    await world.look_up()
    return session.connection.take()


async def test_a_report_is_for_the_gateway_that_got_its_id_last_at_whatever_node(worlds):
    a, b = worlds
    bind, first = await submitted(a, "gw1", b"7")
    second = a.session("gw2")
    await submitted(b, "gw2", b"7")  # the operator counts from the start again
    assert len(await reported(a, bind, second, receipt(1, b"7"))) == 1
    assert first.connection.take() == []


async def test_custody_finds_the_gateway_that_got_an_id_last_at_whatever_node(worlds):
    a, b = worlds
    await submitted(a, "gw1", b"7")
    await submitted(b, "gw2", b"7")
    [verdict] = await a.relay.hand_over.find_owners([Wanted(b"7", b"")])
    assert verdict.record.owner == "gw2"


async def test_an_intermediate_report_that_comes_after_the_final_one_at_another_node_is_swallowed(worlds):
    a, b = worlds
    bind, session = await submitted(a, "gw1", b"7")
    other_bind, other_session = b.bind(), b.session("gw1")
    [final] = await reported(b, other_bind, other_session, receipt(1, b"7"))
    b.relay.from_gateway(other_session, [deliver_sm_resp(sequence_of(final))])
    await durable(b.store)
    assert await reported(a, bind, session, receipt(2, b"7", stat=b"ACCEPTD")) == []
    assert bind.connection.take() == [deliver_sm_resp(2)]
    assert a.counters.late_intermediate == 1


@pytest.mark.parametrize("waits", ["at the other node", "at this node"])
async def test_the_final_report_of_one_message_does_not_end_another_that_has_its_id_since(stores, waits):
    a, b = stores
    a.put_open(an_open(b"7", owner="gw1", submitted_at=900.0))
    await durable(a)
    [found] = await find_one(a, a_lookup(b"7"))
    other = b if waits == "at the other node" else a
    other.put_open(an_open(b"7", owner="gw2", submitted_at=901.0))
    if other is b:
        await durable(b)
    a.close_open("acme", b"7", NOW, NOW + 10, found)
    await durable(a)
    for store in stores:
        [now] = await find_one(store, a_lookup(b"7"))
        assert (now.owner, now.final_at, now.expires_at) == ("gw2", 0.0, 5000.0)


async def test_a_write_that_is_repeated_does_not_open_what_another_node_has_finished_meanwhile(stores, monkeypatch):
    a, b = stores
    write, failed = SqlBackend.write, []

    async def written_at_the_second_attempt(self, group):
        await write(self, group)
        if not failed:
            failed.append(True)
            b.close_open("acme", b"7", NOW, NOW + 10, an_open(b"7"))
            await durable(b)
            raise WriteError("nobody knows whether it is done", why="the connection broke")

    a.put_open(an_open(b"7"))
    monkeypatch.setattr(SqlBackend, "write", written_at_the_second_attempt)
    await durable(a)
    assert failed
    [now] = await find_one(b, a_lookup(b"7"))
    assert (now.final_at, now.expires_at) == (NOW, NOW + 10)


async def test_a_message_that_is_put_and_closed_at_once_replaces_an_older_one(stores):
    a, b = stores
    a.put_open(an_open(b"7", owner="gw1", submitted_at=900.0))
    await durable(a)
    message = an_open(b"7", owner="gw2", submitted_at=901.0)
    b.put_open(message)
    b.close_open("acme", b"7", NOW, NOW + 10, message)
    await durable(b)
    [now] = await find_one(a, a_lookup(b"7"))
    assert (now.owner, now.final_at) == ("gw2", NOW)


async def test_what_becomes_durable_while_the_database_is_read_is_not_missed(stores, monkeypatch):
    a, _ = stores
    read = SqlBackend.read_opens

    async def read_opens(self, keys, forms):
        """As a server would that answers late with what it had then."""
        answer = await read(self, keys, forms)
        for number in range(3):  # each in a group of its own
            a.put_open(an_open(b"%d" % number, submitted_at=NOW))
            await durable(a)
        return answer

    monkeypatch.setattr(SqlBackend, "read_opens", read_opens)
    found = await a.find([a_lookup(b"%d" % number) for number in range(3)])
    assert [[message.message_id for message in messages] for messages in found] == [[b"0"], [b"1"], [b"2"]]


async def test_memory_is_sure_of_what_waits_for_its_commit_alone(stores):
    a, _ = stores
    message = an_open(b"7")
    a.put_open(message)
    assert a.recent("acme", b"7") == message
    await durable(a)
    assert a.recent("acme", b"7") is None
    assert a.remembered("acme", b"7") == message


async def test_a_message_that_another_node_ends_or_replaces_or_deletes_is_not_unchanged(stores):
    a, b = stores
    messages = [an_open(b"%d" % number, submitted_at=900.0 + number % 3) for number in range(ROWS + 10)]
    for message in messages:
        a.put_open(message)
    await durable(a)
    assert await a.unchanged(messages)
    b.close_open("acme", b"1", NOW, NOW + 10, messages[1])
    b.put_open(an_open(b"2", owner="gw2", submitted_at=messages[2].submitted_at))
    b.put_open(an_open(b"3", expires_at=NOW - 1))
    b.put_open(an_open(b"4", submitted_at=950.0))
    await durable(b)
    await b.expire(NOW)
    await durable(b)
    for number in range(1, 5):
        assert not await a.unchanged([messages[0], messages[number]])
    assert not await a.unchanged(messages)
    assert await a.unchanged([messages[0], *messages[5:]])


async def test_what_this_node_changes_while_the_database_is_asked_is_not_unchanged(stores, monkeypatch):
    a, _ = stores
    message = an_open(b"7")
    a.put_open(message)
    await durable(a)
    asked = SqlBackend.unchanged

    async def unchanged(self, messages):
        answer = await asked(self, messages)
        a.close_open("acme", b"7", NOW, NOW + 10, message)
        await durable(a)
        return answer

    monkeypatch.setattr(SqlBackend, "unchanged", unchanged)
    assert not await a.unchanged([message])


async def test_a_report_of_a_remembered_message_waits_for_one_question_and_no_row(worlds, monkeypatch):
    a, _ = worlds
    bind, session = await submitted(a, "gw1", b"7")

    async def read_opens(self, keys, forms):
        raise AssertionError("rows were read")

    monkeypatch.setattr(SqlBackend, "read_opens", read_opens)
    assert len(await reported(a, bind, session, receipt(1, b"7"))) == 1


async def test_a_report_is_refused_for_a_while_when_the_database_cannot_be_asked(worlds, monkeypatch):
    a, _ = worlds
    bind, session = await submitted(a, "gw1", b"7")

    async def unchanged(self, messages):
        raise StoreError("gone")

    monkeypatch.setattr(SqlBackend, "unchanged", unchanged)
    assert await reported(a, bind, session, receipt(1, b"7")) == []
    [answer] = bind.connection.take()
    assert status_of(answer) == a.operator.retry_status
    assert a.counters.refused_store_read == 1


async def test_a_report_whose_bind_is_lost_while_the_database_is_asked_is_nobodys(worlds):
    a, _ = worlds
    bind, session = await submitted(a, "gw1", b"7")
    a.relay.from_operator(bind, [receipt(1, b"7")])
    a.relay.lost(bind)
    await a.look_up()
    assert session.connection.take() == []
    assert a.custody.accepted == []
