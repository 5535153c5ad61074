"""The operator, spoken to PDU by PDU, and its choices."""

import pytest
import smpplib.client
import trio

from dlrproxy.simulator.binds import Account, Bind, choose
from dlrproxy.simulator.ids import IdFormat
from dlrproxy.simulator.ledger import Abandoned, Accepted, Answered, Sent, Unanswered
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import MoOptions, OperatorOptions, Receipts, Spread
from dlrproxy.simulator.plan import Plan
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, split
from protocols.smpp.pdu import Bind as BindRequest
from protocols.smpp.pdu import Message, pack, parse, response_id

DIALLED = []  # by the test that runs; the fixture closes them


class Peer:
    """A client that does nothing by itself."""

    def __init__(self, stream):
        self.stream = stream
        self.rest = b""
        self.frames = []
        self.sequence = 0

    async def request(self, command, body=b""):
        self.sequence += 1
        await self.stream.send_all(pack(command, 0, self.sequence, body))

    async def receive(self):
        """(command, status, sequence), and the frame."""
        while not self.frames:
            data = await self.stream.receive_some()
            if not data:
                return None, b""
            self.frames, self.rest = split(self.rest + data)
        frame = self.frames.pop(0)
        return HEADER.unpack_from(frame)[1:], frame

    async def answer(self, status=0):
        """Take a delivery, answer it, and give its message."""
        (command, _, sequence), frame = await self.receive()
        assert command == c.DELIVER_SM
        await self.stream.send_all(pack(c.DELIVER_SM_RESP, status, sequence, b"\0"))
        return parse(frame)


@pytest.fixture
async def start(nursery):
    """Start an operator with these options; all are stopped in the end."""
    started = []

    async def start(**options):
        operator = Operator(OperatorOptions(port=0, **options))
        await nursery.start(operator.run)
        started.append(operator)
        return operator

    yield start
    while DIALLED:
        await DIALLED.pop().stream.aclose()
    for operator in started:
        operator.drop()
        await operator.stop()


async def dial(operator):
    DIALLED.append(Peer(await trio.open_tcp_stream("127.0.0.1", operator.port)))
    return DIALLED[-1]


async def bound(
    operator, command=c.BIND_TRANSCEIVER, system_id=b"shop", password=b"secret", system_type=b"", version=0x34
):
    peer = await dial(operator)
    await peer.request(command, BindRequest(system_id, password, system_type, version).encode())
    (answer, status, _), _ = await peer.receive()
    assert answer == command | c.RESPONSE_BIT
    return peer, status


def mt(text=b"tag-1 hello", registered_delivery=1):
    return Message(source=b"123", destination=b"467", registered_delivery=registered_delivery, short_message=text)


async def submit(peer, **changes):
    """Submit and give the response's status and id."""
    await peer.request(c.SUBMIT_SM, mt(**changes).encode())
    (command, status, sequence), frame = await peer.receive()
    assert (command, sequence) == (c.SUBMIT_SM_RESP, peer.sequence)
    return status, response_id(frame)


@pytest.mark.parametrize("command", sorted(c.BINDS))
async def test_all_kinds_of_bind(start, command):
    operator = await start()
    _, status = await bound(operator, command)
    assert status == c.ESME_ROK


@pytest.mark.parametrize(
    ("system_id", "password", "expected"),
    [(b"shop", b"secret", c.ESME_ROK), (b"shop", b"guess", c.ESME_RINVPASWD), (b"shup", b"secret", c.ESME_RINVSYSID)],
)
async def test_credentials(start, system_id, password, expected):
    operator = await start(accounts={"shop": "secret"})
    _, status = await bound(operator, system_id=system_id, password=password)
    assert status == expected


async def test_cap_of_binds_counts_each_account_and_frees_places(start):
    operator = await start(max_binds=2)
    peers = [await bound(operator) for _ in range(3)]
    assert [status for _, status in peers] == [c.ESME_ROK, c.ESME_ROK, c.ESME_RALYBND]
    assert (await bound(operator, system_id=b"other"))[1] == c.ESME_ROK
    await peers[0][0].request(c.UNBIND)
    await peers[0][0].receive()
    assert (await bound(operator))[1] == c.ESME_ROK


async def test_a_second_bind_on_one_connection_is_refused(start):
    operator = await start()
    peer, _ = await bound(operator)
    await peer.request(c.BIND_RECEIVER, BindRequest(b"shop", b"secret").encode())
    assert (await peer.receive())[0] == (c.BIND_RECEIVER_RESP, c.ESME_RALYBND, 2)


@pytest.mark.parametrize(
    ("command", "body", "expected"),
    [
        (c.SUBMIT_SM, mt().encode(), (c.SUBMIT_SM_RESP, c.ESME_RINVBNDSTS)),
        (c.QUERY_SM, b"1\0\0\0\0", (c.QUERY_SM_RESP, c.ESME_RINVBNDSTS)),
        (c.ENQUIRE_LINK, b"", (c.ENQUIRE_LINK_RESP, c.ESME_ROK)),
        (c.BIND_RECEIVER, b"no end", (c.BIND_RECEIVER_RESP, c.ESME_RINVCMDLEN)),
        (0x7777, b"", (c.GENERIC_NACK, c.ESME_RINVCMDID)),
    ],
)
async def test_before_the_bind(start, command, body, expected):
    peer = await dial(await start())
    await peer.request(command, body)
    assert (await peer.receive())[0][:2] == expected


@pytest.mark.parametrize(
    ("command", "body", "expected"),
    [
        (c.SUBMIT_SM, b"\0\0", (c.SUBMIT_SM_RESP, c.ESME_RINVMSGLEN)),
        (c.QUERY_SM, b"unknown\0\0\0\0", (c.QUERY_SM_RESP, c.ESME_RINVMSGID)),
        (c.CANCEL_SM, b"", (c.CANCEL_SM_RESP, c.ESME_ROK)),
        (c.REPLACE_SM, b"", (c.REPLACE_SM_RESP, c.ESME_ROK)),
        (0x00010200, b"", (c.GENERIC_NACK, c.ESME_RINVCMDID)),
        (c.UNBIND, b"", (c.UNBIND_RESP, c.ESME_ROK)),
    ],
)
async def test_once_bound(start, command, body, expected):
    peer, _ = await bound(await start())
    await peer.request(command, body)
    assert (await peer.receive())[0][:2] == expected


async def test_a_receiver_may_not_submit(start):
    peer, _ = await bound(await start(), c.BIND_RECEIVER)
    assert await submit(peer) == (c.ESME_RINVBNDSTS, b"")


async def test_response_then_report_with_its_id(start):
    operator = await start(response_id=IdFormat.HEX, receipt_id=IdFormat.PADDED, first_id=0x1A2B)
    peer, _ = await bound(operator)
    assert await submit(peer) == (c.ESME_ROK, b"1a2b")
    receipt = await peer.answer()
    assert (receipt.source, receipt.destination, receipt.esm_class) == (b"467", b"123", c.ESM_RECEIPT)
    assert receipt.short_message.startswith(b"id:0000006699 sub:001 dlvrd:001 submit date:")
    assert receipt.short_message.endswith(b" stat:DELIVRD err:000 text:tag-1 hello")
    assert receipt.tlv(c.TLV_RECEIPTED_MESSAGE_ID) == b"0000006699\0"
    await operator.wait_idle()
    await peer.request(c.QUERY_SM, b"1a2b\0\0\0\0")
    assert (await peer.receive())[1][16:] == b"1a2b\0\0\x02\0"


async def test_tlv_id_may_be_spelled_otherwise_than_the_text(start):
    operator = await start(receipt_id=IdFormat.DECIMAL, tlv_id=IdFormat.HEX, first_id=0x1A2B)
    peer, _ = await bound(operator)
    await submit(peer)
    receipt = await peer.answer()
    assert receipt.short_message.startswith(b"id:6699 ")
    assert receipt.tlv(c.TLV_RECEIPTED_MESSAGE_ID) == b"1a2b\0"


@pytest.mark.parametrize(("options", "version"), [({"tlv": False}, 0x34), ({}, 0x33)])
async def test_no_tlvs_where_none_are_wanted_or_known(start, options, version):
    peer, _ = await bound(await start(**options), version=version)
    await submit(peer)
    assert (await peer.answer()).tlvs == ()


@pytest.mark.parametrize(
    ("receipts", "state", "registered_delivery", "reported"),
    [
        (Receipts.REQUESTED, "DELIVRD", 0, False), (Receipts.REQUESTED, "DELIVRD", 1, True),
        (Receipts.REQUESTED, "DELIVRD", 2, False), (Receipts.REQUESTED, "UNDELIV", 2, True),
        (Receipts.REQUESTED, "DELIVRD", 3, True), (Receipts.REQUESTED, "UNDELIV", 3, False),
        (Receipts.ALL, "DELIVRD", 0, True),
    ],
)  # fmt: skip
async def test_who_gets_a_report(start, receipts, state, registered_delivery, reported):
    operator = await start(receipts=receipts, states={state: 1})
    peer, _ = await bound(operator)
    await submit(peer, registered_delivery=registered_delivery)
    assert operator.summary().reports == reported


async def test_data_sm_and_submit_multi(start):
    operator = await start()
    peer, _ = await bound(operator)
    await peer.request(c.DATA_SM, mt().encode_data_sm())
    assert (await peer.receive())[0] == (c.DATA_SM_RESP, 0, peer.sequence)
    assert (await peer.answer()).source == b"467"
    await peer.request(c.SUBMIT_MULTI, b"\0\0\x01123\0\x02\x01\x01\x01461\0\x01\x01\x01462\0\0\0\0\0\0\x01\0\0\0\x02hi")
    (command, status, _), frame = await peer.receive()
    assert (command, status, frame[-2:]) == (c.SUBMIT_MULTI_RESP, 0, b"\0\0")
    receipts = [await peer.answer(), await peer.answer()]
    assert [receipt.source for receipt in receipts] == [b"461", b"462"]
    assert len({receipt.tlv(c.TLV_RECEIPTED_MESSAGE_ID) for receipt in receipts}) == 1


async def test_early_report_comes_before_the_response(start):
    peer, _ = await bound(await start(early=1.0, early_gap_ms=10))
    await peer.request(c.SUBMIT_SM, mt().encode())
    await peer.answer()
    assert (await peer.receive())[0][:2] == (c.SUBMIT_SM_RESP, 0)


async def test_final_report_waits_for_the_answer_to_the_intermediate_one(start):
    operator = await start(enroute=1.0)
    peer, _ = await bound(operator)
    await submit(peer)
    (_, _, sequence), frame = await peer.receive()
    assert b"stat:ENROUTE" in frame
    with trio.move_on_after(0.05) as waiting:
        await peer.receive()
    assert waiting.cancelled_caught
    await peer.stream.send_all(pack(c.DELIVER_SM_RESP, 0, sequence, b"\0"))
    assert b"stat:DELIVRD" in (await peer.answer()).short_message


async def test_overlapping_reports_keep_their_bind_and_order(start):
    operator = await start(enroute=1.0, overlap=True, spread=Spread.ROUND_ROBIN)
    peer, _ = await bound(operator)
    await bound(operator)
    await bound(operator)
    for _ in range(3):
        await submit(peer)
    ways = {}
    for event in operator.ledger.events:
        if isinstance(event, Sent):
            ways.setdefault((event.n - 1) // 2, []).append(event.bind)
    assert [len(way) for way in ways.values()] == [2, 2, 2]
    assert all(len(set(way)) == 1 for way in ways.values())


async def test_errors_and_throttling_take_their_share(start):
    operator = await start(error=0.2, throttle=0.3)
    peer, _ = await bound(operator)
    statuses = [(await submit(peer, registered_delivery=0))[0] for _ in range(200)]
    assert 25 <= statuses.count(c.ESME_RSYSERR) <= 55
    assert 40 <= statuses.count(c.ESME_RTHROTTLED) <= 80
    summary = operator.summary()
    assert summary.accepted == statuses.count(c.ESME_ROK)
    assert sum(summary.refused.values()) == 200 - summary.accepted


async def test_full_queue_refuses_submits(start):
    operator = await start(max_queue=2)
    peer, _ = await bound(operator, c.BIND_TRANSMITTER)
    assert [(await submit(peer))[0] for _ in range(3)] == [c.ESME_ROK, c.ESME_ROK, c.ESME_RMSGQFUL]


async def test_deliver_window(start):
    operator = await start(window=2)
    sender, _ = await bound(operator, c.BIND_TRANSMITTER)
    receiver, _ = await bound(operator, c.BIND_RECEIVER)
    for _ in range(5):
        await submit(sender)
    assert sum(isinstance(event, Sent) for event in operator.ledger.events) == 2
    for _ in range(5):
        await receiver.answer()
    await operator.wait_idle()


async def test_reports_wait_for_a_receiver(start):
    operator = await start()
    sender, _ = await bound(operator, c.BIND_TRANSMITTER)
    await submit(sender)
    assert operator.summary().open == 1
    receiver, _ = await bound(operator, c.BIND_RECEIVER)
    await receiver.answer()
    await operator.wait_idle()


async def test_unanswered_report_goes_out_again_on_another_bind(start):
    operator = await start(answer_timeout_s=0.1)
    first, _ = await bound(operator)
    second, _ = await bound(operator)
    await submit(first)
    await first.receive()
    await second.answer()
    await operator.wait_idle()
    ways = [(event.bind, event.attempt) for event in operator.ledger.events if isinstance(event, Sent)]
    assert ways == [("b1", 1), ("b2", 2)]
    assert [event.why for event in operator.ledger.events if isinstance(event, Unanswered)] == ["timeout"]


async def test_late_answer_settles(start):
    operator = await start(answer_timeout_s=0.1, max_attempts=0)
    peer, _ = await bound(operator)
    await submit(peer)
    (_, _, first), _ = await peer.receive()
    await peer.receive()
    await peer.stream.send_all(pack(c.DELIVER_SM_RESP, 0, first, b"\0"))
    await operator.wait_idle()
    answers = [event for event in operator.ledger.events if isinstance(event, Answered)]
    assert [(event.status, event.late) for event in answers] == [(0, True)]
    assert operator.summary().late_answers == 1


async def test_report_on_a_lost_bind_goes_out_again_at_once(start):
    operator = await start()
    first, _ = await bound(operator)
    second, _ = await bound(operator)
    await submit(first)
    await first.receive()
    await first.stream.aclose()
    assert b"text:tag-1" in (await second.answer()).short_message
    await operator.wait_idle()
    assert [event.why for event in operator.ledger.events if isinstance(event, Unanswered)] == ["bind lost"]


async def test_what_is_not_delivered_outlives_a_restart(start):
    operator = await start()
    peer, _ = await bound(operator)
    await submit(peer)
    await peer.receive()
    operator.shut()
    operator.shut()  # nothing more
    assert await peer.receive() == (None, b"")
    with pytest.raises(OSError, match="connect"):
        await dial(operator)
    operator.reopen()
    with trio.fail_after(100):
        while True:
            try:
                again, _ = await bound(operator)
                break
            except OSError:  # it does not listen yet
                await trio.lowlevel.checkpoint()
    assert b"text:tag-1" in (await again.answer()).short_message
    await operator.wait_idle()
    assert [event.why for event in operator.ledger.events if isinstance(event, Unanswered)] == ["bind lost"]


@pytest.mark.parametrize("status", [c.ESME_RTHROTTLED, c.ESME_RMSGQFUL, c.ESME_RSYSERR])
async def test_temporary_errors_are_tried_again(start, status):
    operator = await start(retry_ms=5)
    peer, _ = await bound(operator)
    await submit(peer)
    for answer in (status, status, c.ESME_ROK):
        await peer.answer(answer)
    await operator.wait_idle()
    assert (operator.summary().retries, operator.summary().deliveries_accepted) == (2, 1)


@pytest.mark.parametrize("status", [c.ESME_RX_T_APPN, c.ESME_RX_P_APPN, 0x400])
async def test_permanent_errors_are_not(start, status):
    operator = await start(retry_ms=5)
    peer, _ = await bound(operator)
    await submit(peer)
    await peer.answer(status)
    await operator.wait_idle()
    assert [event.status for event in operator.ledger.events if isinstance(event, Abandoned)] == [status]


async def test_attempts_are_used_up(start):
    operator = await start(retry_ms=1, max_attempts=3)
    peer, _ = await bound(operator)
    await submit(peer)
    for _ in range(3):
        await peer.answer(c.ESME_RTHROTTLED)
    await operator.wait_idle()
    assert operator.summary().abandoned == 1


async def test_answers_to_nothing_are_counted(start):
    operator = await start()
    peer, _ = await bound(operator)
    await peer.stream.send_all(pack(c.DELIVER_SM_RESP, 0, 99, b"\0"))
    await submit(peer, registered_delivery=0)
    assert operator.summary().unknown_answers == 1


async def test_same_seed_same_ids_and_ways(start):
    async def play():
        operator = await start(spread=Spread.RANDOM, seed=7, error=0.1)
        first, _ = await bound(operator)
        await bound(operator)
        await bound(operator)
        for _ in range(40):
            await first.request(c.SUBMIT_SM, mt().encode())
        await first.request(c.ENQUIRE_LINK)
        answer = None
        while answer != c.ENQUIRE_LINK_RESP:
            (answer, _, _), _ = await first.receive()
        events = operator.ledger.events
        ids = [event.id for event in events if isinstance(event, Accepted)]
        operator.drop("b2")
        operator.drop("b3")
        return ids, [(event.n, event.bind) for event in events if isinstance(event, Sent) and event.attempt == 1]

    assert await play() == await play()


def test_plan_depends_on_the_seed_and_the_place_alone():
    options = OperatorOptions(
        seed=3, early=0.5, enroute=0.5, delay_ms=(0, 100), error=0.3, states={"DELIVRD": 1, "UNDELIV": 1}
    )
    one, two = Plan(options), Plan(options)
    fates = [one.next() for _ in range(50)]
    assert fates == [two.next() for _ in range(50)]
    assert {fate.state for fate in fates} == {"DELIVRD", "UNDELIV"}
    other = Plan(OperatorOptions(seed=4))
    assert fates[0].number != other.next().number


def test_misroute_takes_its_share():
    plan = Plan(OperatorOptions(spread=Spread.OTHER, misroute=0.9))
    spreads = [plan.next().spread for _ in range(1000)]
    assert 850 < spreads.count(Spread.OTHER) < 950
    assert set(spreads) == {Spread.OTHER, Spread.SAME}


def binds(*nodes):
    account = Account("shop")
    for number, node in enumerate(nodes):
        bind = Bind(f"b{number}", "h", None)
        bind.live, bind.command, bind.node = True, c.BIND_TRANSCEIVER, node
        account.receivers.append(bind)
    return account.receivers


@pytest.mark.parametrize(
    ("spread", "nodes", "expected"),
    [
        (Spread.SAME, "aab", {0}),
        (Spread.OTHER, "aab", {2}),
        (Spread.OTHER, "aaa", {1, 2}),
        (Spread.OTHER, "a", {0}),
        (Spread.RANDOM, "aab", {0, 1, 2}),
        (Spread.ROUND_ROBIN, "aab", {0, 1, 2}),
    ],
)
def test_choice_of_a_bind(spread, nodes, expected):
    receivers = binds(*nodes)
    found = {choose(spread, receivers, receivers[0], n / 10, n) for n in range(10)}
    assert found == {receivers[number] for number in expected}


@pytest.mark.parametrize(("nodes", "expected"), [("aab", {0, 1}), ("bbc", {0, 1, 2})])
def test_same_falls_back_to_the_node_and_then_to_any(nodes, expected):
    receivers = binds(*nodes)
    gone = Bind("b9", "h", None)
    gone.node = "a"
    found = {choose(Spread.SAME, receivers, gone, n / 10, n) for n in range(10)}
    assert found == {receivers[number] for number in expected}


async def test_mo_and_parts_over_different_binds(start):
    mo = MoOptions(rate=1000, count=3, after_binds=2, concatenated=1.0, parts=2, text="WIN", destinations=("7000",))
    operator = await start(mo=mo)
    one, _ = await bound(operator)
    two, _ = await bound(operator)
    messages = [[await peer.answer() for _ in range(3)] for peer in (one, two)]
    await operator.wait_idle()
    parts = sorted((message.short_message[3], message.short_message[5]) for peer in messages for message in peer)
    assert parts == [(reference, part) for reference in (1, 2, 3) for part in (1, 2)]
    assert all(message.short_message[6:].startswith(b"WIN ") for peer in messages for message in peer)


async def test_mo_may_answer_what_was_submitted_until_there_are_enough(start):
    operator = await start(mo=MoOptions(rate=1000, answers=1.0))
    sender, _ = await bound(operator, c.BIND_TRANSMITTER)
    await submit(sender, registered_delivery=0)
    receiver, _ = await bound(operator, c.BIND_RECEIVER)  # and only now MO begin
    message = await receiver.answer()
    assert (message.source, message.destination) == (b"467", b"123")
    operator.make_no_more_mo()
    made = operator.summary().mo

    async def answer_all():
        while True:
            await receiver.answer()

    async with trio.open_nursery() as answering:
        answering.start_soon(answer_all)
        await operator.wait_idle()
        answering.cancel_scope.cancel()
    assert operator.summary().mo == made


async def test_stop_unbinds(start):
    operator = await start()
    peer, _ = await bound(operator)

    async def answer():
        (command, _, sequence), _ = await peer.receive()
        assert command == c.UNBIND
        await peer.stream.send_all(pack(c.UNBIND_RESP, 0, sequence))

    async with trio.open_nursery() as both:
        both.start_soon(answer)
        both.start_soon(operator.stop)
    assert operator.binds == {}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"error": 0.6, "throttle": 0.6}, "more than every message"),
        ({"early": 1.5}, "early: 1.5"),
        ({"states": {}}, "no state has a weight"),
        ({"states": {"FINE": 1}}, "FINE is not one of"),
        ({"delay_ms": (5, 1)}, "delay_ms"),
        ({"window": 0}, "window"),
    ],
)
def test_options_that_cannot_be(wrong, why):
    with pytest.raises(ValueError, match=why):
        OperatorOptions(**wrong)


@pytest.mark.foreign
async def test_against_python_smpplib(start):
    """A client that none of us wrote binds, submits, and reads the report."""
    operator = await start(accounts={"shop": "secret"}, response_id=IdFormat.UPPER_HEX)
    responses, receipts = [], []

    def talk():
        client = smpplib.client.Client("127.0.0.1", operator.port, timeout=60, allow_unknown_opt_params=False)
        client.set_message_sent_handler(lambda pdu: responses.append((pdu.status, pdu.message_id)))
        client.set_message_received_handler(lambda pdu: receipts.append(pdu))
        client.connect()
        client.bind_transceiver(system_id="shop", password="secret")
        client.send_message(
            source_addr="123", destination_addr="46701234567", registered_delivery=1, short_message=b"tag-9 hello"
        )
        while not receipts:
            client.read_once()
        client.unbind()
        client.disconnect()

    await trio.to_thread.run_sync(talk)
    ((status, message_id),) = responses
    (receipt,) = receipts
    assert status == c.ESME_ROK
    assert (receipt.receipted_message_id, receipt.message_state) == (message_id, 2)
    assert receipt.source_addr == b"46701234567"
    assert receipt.short_message.startswith(b"id:" + message_id)
    await operator.wait_idle()
