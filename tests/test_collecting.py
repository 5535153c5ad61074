"""What a node takes from its inbox at a time (`Keeper.collect`)."""

from unittest.mock import Mock

from dlrproxy.custody import Keeper
from dlrproxy.store.memory import MemoryStore
from dlrproxy.store.port import Table
from protocols.peer.frames import Envelope, EnvelopeKey
from ring.rows import CustodyRow, Kind, encode_key, encode_row


class Shared(MemoryStore):
    """Other nodes have put `rows` into its inbox."""

    rows: list

    async def inbox(self, limit=1000):
        return self.rows[:limit]

    def take(self, rows):
        """As the machine has it do with what has arrived; it is durable at once."""
        del self.rows[: len(rows)]
        return []


def a_row(number):
    key = EnvelopeKey(b"s" * 8, number)
    envelope = Envelope(key, "gw2", "acme", "dlr", b"1", b"47", b"pdu", f"t{number}", final=False)
    return encode_key(key), encode_row(CustodyRow(Kind.ORIGIN, envelope, 0.0))


async def test_no_more_than_one_commit_carries_and_the_rest_once_that_is_durable():
    store = Shared(lambda: 0.0)
    store.rows = [a_row(number) for number in range(250)]
    taken = []
    machine = Mock()
    machine.arrived = lambda rows, now: taken.append(len(rows)) or store.take(rows)
    keeper = Keeper(machine, store, Mock(), Mock(), store)
    keeper.look_into_inbox()
    while keeper.wants_collecting:
        assert await keeper.collect()
    assert taken == [100, 100, 50]


async def test_what_a_gone_node_had_parked_is_counted():
    store = Shared(lambda: 0.0)
    store.rows = []
    machine = Mock()
    keeper = Keeper(machine, store, Mock(), Mock(), store)
    store.put(Table.PARKED, b"own", b"row")
    assert await keeper.collect()
    machine.recount.assert_not_called()
    store.put(Table.PARKED, b"inherited", b"row")
    keeper.take_over()
    assert await keeper.collect()
    machine.recount.assert_called_once_with(2)
