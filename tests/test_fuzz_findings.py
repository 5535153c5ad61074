"""What `make fuzz` found, each as a test of its own; the corpus holds the inputs."""

import msgspec
import pytest
from relay_world import World, deliver_sm_resp, receipt, sequence_of

from dlrproxy.store.layout import decode_keys, decode_open
from dlrproxy.store.port import OpenMessage, StoreError
from protocols.smpp import constants as c
from protocols.smpp.pdu import Message, pack
from protocols.smpp.receipts import read


def test_a_line_of_reports_whose_bind_is_lost_does_not_block_their_message_for_ever():
    world = World()
    bind, session = world.bind(), world.session()
    world.open(session, bind, b"id1")
    world.relay.from_operator(bind, [receipt(n, b"id1", b"ENROUTE") for n in (1, 2, 3)])
    [first] = session.connection.take()
    world.relay.lost(bind)
    world.relay.from_gateway(session, [deliver_sm_resp(sequence_of(first))])
    again = world.bind("2")
    world.relay.from_operator(again, [receipt(1, b"id1")])
    assert len(session.connection.take()) == 1
    assert world.counters.abandoned == 2


async def test_a_report_given_up_while_it_waited_behind_another_is_answered_once():
    world = World(operator_answer_s=8)
    bind = world.bind()
    world.relay.from_operator(bind, [receipt(n, b"nobody") for n in (1, 2, 3)])
    world.tick(8)
    assert bind.connection.take() == [deliver_sm_resp(n, c.ESME_RTHROTTLED) for n in (1, 2, 3)]
    await world.look_up()
    assert world.custody.accepted == []
    assert world.relay.in_flight == 0


def test_a_key_glued_to_a_date_counts_as_much_in_the_usual_layout_as_in_any_other():
    """The first of two errors is meant, whether the quick reading or the thorough one comes upon the text."""
    text = b"id:%b sub:001 dlvrd:001 submit date:17071517 done date:1707%%15\0\1\0err:750 stat:EXPIRED err:0032 text:T"
    for message_id in (b"1234", b"1234\xd5"):
        body = Message(source=b"4477", esm_class=c.ESM_RECEIPT, short_message=text % message_id).encode()
        assert read(pack(c.DELIVER_SM, 0, 1, body)).error == "750"


def test_a_damaged_record_whose_strings_are_no_utf_8_is_a_store_error():
    row = msgspec.msgpack.encode(OpenMessage("acme", b"id1", "gw1", b"4477", b"SHOP", 7, 1.0, 2.0))
    with pytest.raises(StoreError):
        decode_open(row.replace(b"acme", b"acm\xe9"))
    with pytest.raises(StoreError):
        decode_open(b"\x9a" + row[1:] + b"\x91" * 5000)  # an appended field, nested too deeply to skip
    with pytest.raises(StoreError):
        decode_keys(b"\x91" * 5000)
