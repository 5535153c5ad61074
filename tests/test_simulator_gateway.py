"""Gateways against an operator, both ours, over loopback sockets; judged by their ledgers."""

from functools import partial

import pytest
import trio
from relay_world import mo
from smpp_peer import Peer

from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.ids import IdFormat
from dlrproxy.simulator.judge import judge
from dlrproxy.simulator.ledger import Report, Reported, Sent, Submitted, Unlinked
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import BindType, GatewayOptions, MoOptions, OperatorOptions, Spread
from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER, split
from protocols.smpp.pdu import pack, parse


@pytest.fixture
async def start_operator(nursery):
    started = []

    async def start(**options):
        operator = Operator(OperatorOptions(port=0, **options))
        await nursery.start(operator.run)
        started.append(operator)
        return operator

    yield start
    for operator in started:
        operator.drop()
        await operator.stop()


def gateway(operator, name="gw1", **options):
    defaults = {"messages": 200, "linger_s": 0.0, "give_up_s": 100.0, "reconnect_ms": (5, 50), "resubmit_ms": 5.0}
    return Gateway(GatewayOptions(port=operator.port, name=name, **{**defaults, **options}))


def verdict(operator, *gateways):
    return judge(operator.ledger.events, {each.options.name: each.ledger.events for each in gateways})


async def until(holds):
    """Wait until a count makes it so; the time-out of the test is the limit."""
    while not holds():  # noqa: ASYNC110 - counts, not events
        await trio.sleep(0.005)


async def play(operator, *gateways):
    """Run all gateways to their end, and give the verdict."""
    async with trio.open_nursery() as running:
        for each in gateways:
            running.start_soon(each.run)
    return verdict(operator, *gateways)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bind_type": BindType.PAIR},
        {"binds": 3, "window": 2},
        {"rate": 2000.0, "binds": 2},
        {"bind_type": BindType.PAIR, "binds": 2, "rate": 2000.0},
        {"interface_version": 0x33},
    ],
    ids=str,
)
async def test_directly_connected_every_report_arrives(start_operator, options):
    # On another socket than the response, a report at once after it may be read before it.
    pair = options.get("bind_type") is BindType.PAIR
    operator = await start_operator(delay_ms=(250.0, 250.0) if pair else (0.0, 0.0))
    one = gateway(operator, **options)
    found = await play(operator, one)
    assert (found.submitted, found.reports_sent, found.delivered_to_owner) == (200, 200, 200)
    assert (found.lost, found.delivered_elsewhere, found.duplicates, found.order_violations) == (0, 0, 0, 0)
    assert found.p50_ms is not None
    assert (one.summary().final, one.summary().unfinished, one.summary().unmatched) == (200, 0, 0)


@pytest.mark.parametrize("response", IdFormat)
@pytest.mark.parametrize("receipt", IdFormat)
async def test_every_pair_of_id_formats_can_be_judged(start_operator, response, receipt):
    operator = await start_operator(response_id=response, receipt_id=receipt)
    one = gateway(operator, messages=20)
    assert (await play(operator, one)).delivered_to_owner == 20
    expected = 0 if response is receipt or IdFormat.UUID in (response, receipt) else 20
    assert one.summary().matched_by_number == expected


async def test_spread_to_the_other_node_is_seen_as_elsewhere(start_operator):
    operator = await start_operator(spread=Spread.OTHER)
    both = [gateway(operator, name, system_type=name, messages=0) for name in ("gw1", "gw2")]
    senders = [gateway(operator, each.options.name, system_type=each.options.name) for each in both]
    async with trio.open_nursery() as running:
        for each in both:  # so that each node has a receiver from the first message to the last report
            running.start_soon(each.run)
        await operator.wait_bound(2)
        for each in senders:
            running.start_soon(each.run)
        await until(lambda: all(each.summary().accepted == 200 for each in senders))
        await operator.wait_idle()
        for each in (*both, *senders):
            each.stop()
    ledgers = {
        receiver.options.name: sender.ledger.events + receiver.ledger.events
        for receiver, sender in zip(both, senders, strict=True)
    }
    found = judge(operator.ledger.events, ledgers)
    assert (found.delivered_elsewhere, found.delivered_to_owner) == (400, 0)
    assert not found.passed


async def test_misrouted_share(start_operator):
    operator = await start_operator(spread=Spread.OTHER, misroute=0.25)
    other = gateway(operator, "gw2", messages=0, system_type="n2")
    one = gateway(operator, "gw1", messages=400, system_type="n1")
    async with trio.open_nursery() as running:
        running.start_soon(other.run)
        await operator.wait_bound(1)
        running.start_soon(one.run)
        await until(lambda: operator.summary().deliveries_accepted == 400)
        one.stop()
        other.stop()
    found = verdict(operator, one, other)
    assert 60 < found.delivered_elsewhere < 140
    assert found.delivered_elsewhere + found.delivered_to_owner == 400


async def test_early_reports_are_seen_as_out_of_order(start_operator):
    # So late that a gateway that ended with its last report would not have the last responses.
    operator = await start_operator(early=1.0, early_gap_ms=100.0)
    one = gateway(operator, messages=20)
    found = await play(operator, one)
    assert (found.delivered_to_owner, found.order_violations, one.summary().accepted) == (20, 20, 20)


async def test_intermediate_reports_come_first(start_operator):
    operator = await start_operator(enroute=1.0, delay_ms=(0.0, 5.0))
    found = await play(operator, gateway(operator))
    assert (found.reports_made, found.delivered_to_owner, found.order_violations) == (400, 400, 0)


async def test_throttled_submits_are_tried_again(start_operator):
    operator = await start_operator(throttle=0.2, error=0.1)
    one = gateway(operator)
    found = await play(operator, one)
    summary = one.summary()
    assert (found.delivered_to_owner, summary.unfinished, summary.resubmitted) == (200, 0, 0)
    assert set(summary.errors) == {"ESME_RTHROTTLED", "ESME_RSYSERR"}
    assert summary.submitted == 200 + sum(summary.errors.values())


@pytest.mark.parametrize(
    ("options", "accepted", "abandoned"),
    [
        ({"refuse_temporary": 0.3, "temporary_status": c.ESME_RMSGQFUL}, 200, 0),
        ({"refuse_permanent": 1.0}, 0, 200),
        ({"answer_delay_ms": (1.0, 5.0)}, 200, 0),
    ],
    ids=str,
)
async def test_answers_to_reports(start_operator, options, accepted, abandoned):
    operator = await start_operator(retry_ms=2.0)
    one = gateway(operator, **options)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        # One that refuses every report has no end of its own.
        await until(lambda: one.finished.is_set() or operator.summary().abandoned == 200)
        one.stop()
    found, summary = verdict(operator, one), operator.summary()
    assert (summary.deliveries_accepted, summary.abandoned) == (accepted, abandoned)
    assert (found.delivered_to_owner, found.duplicates, found.lost) == (accepted, 0, 0)


async def test_delayed_answers_are_written_before_the_unbind(start_operator):
    operator = await start_operator()
    one = gateway(operator, messages=5, answer_delay_ms=(60_000.0, 60_000.0))
    found = await play(operator, one)
    assert (operator.summary().deliveries_accepted, operator.summary().open) == (5, 0)
    assert (found.delivered_to_owner, found.duplicates, found.resent) == (5, 0, 0)


async def test_silent_gateway_makes_the_operator_use_another_bind(start_operator):
    operator = await start_operator(answer_timeout_s=0.1)
    other = gateway(operator, "gw2", messages=0)
    silent = gateway(operator, "gw1", messages=5, silent=1.0)
    async with trio.open_nursery() as running:
        running.start_soon(other.run)
        await operator.wait_bound(1)
        running.start_soon(silent.run)
        await until(lambda: operator.summary().deliveries_accepted == 5)
        silent.stop()
        other.stop()
    # A busy machine may give the other one's answer up as well, and try both again.
    ways = {
        (event.attempt, event.bind)
        for event in operator.ledger.events
        if isinstance(event, Sent) and event.attempt <= 2
    }
    assert ways == {(1, "b2"), (2, "b1")}
    statuses = [event.status for event in silent.ledger.events if isinstance(event, Reported)]
    assert len(statuses) >= 5
    assert set(statuses) == {None}


async def test_lost_links_come_back_and_nothing_stays_unfinished(start_operator):
    operator = await start_operator(delay_ms=(0.0, 30.0), window=2)
    one = gateway(operator, messages=2000, rate=4000.0, binds=2)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        for accepted, cut in ((100, operator.drop), (200, one.drop), (300, operator.drop)):
            await one.wait_bound()
            await until(lambda accepted=accepted: one.summary().accepted >= accepted)
            cut()
    await operator.wait_idle()
    found, summary = verdict(operator, one), one.summary()
    assert (summary.unfinished, found.lost, found.delivered_elsewhere) == (0, 0, 0)
    assert summary.reconnects >= 6
    assert found.submitted >= 2000
    assert found.reports_sent == found.reports_made
    assert found.duplicates == found.resent


async def test_operator_that_comes_later_and_goes_away(start_operator):
    operator = await start_operator()
    port = operator.port
    await operator.stop()
    waiting = gateway(operator, messages=10)
    async with trio.open_nursery() as running:
        running.start_soon(waiting.run)
        await until(lambda: any(isinstance(event, Unlinked) for event in waiting.ledger.events))
        again = Operator(OperatorOptions(port=port))
        await running.start(again.run)
        await waiting.finished.wait()
        await again.stop()
    assert waiting.summary().final == 10


async def test_a_gateway_that_leaves_comes_back_with_all_its_messages(start_operator):
    operator = await start_operator(delay_ms=(0.0, 30.0))
    one = gateway(operator, messages=2000, rate=4000.0)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: one.summary().accepted >= 100)
        one.leave()
        await until(lambda: not operator.binds)
        one.come_back()
    await operator.wait_idle()
    found = verdict(operator, one)
    assert (one.summary().unfinished, one.open, one.unanswered, found.lost) == (0, 0, 0, 0)
    assert one.summary().reconnects >= 1


async def test_a_frozen_gateway_reads_nothing_and_keeps_its_link(start_operator):
    operator = await start_operator(delay_ms=(20.0, 30.0))
    one = gateway(operator, messages=20)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await one.wait_bound()
        one.freeze()
        known = len(one.ledger.events)
        await until(lambda: any(isinstance(event, Sent) for event in operator.ledger.events))
        assert len(one.ledger.events) == known
        assert list(operator.binds) == ["b1"]
        one.thaw()
    assert one.summary().final == 20
    assert one.summary().reconnects == 0


async def test_the_way_of_answering_can_be_changed(start_operator):
    operator = await start_operator(retry_ms=5.0)
    one = gateway(operator, messages=10, refuse_temporary=1.0)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: operator.summary().retries > 10)
        assert one.summary().final == 0
        one.answer_reports()
    assert one.summary().final == 10


async def test_a_gateway_may_have_made_enough(start_operator):
    operator = await start_operator()
    one = gateway(operator, messages=1_000_000, rate=1000.0, linger_s=float("inf"), give_up_s=float("inf"))
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: one.summary().accepted >= 10)
        one.make_no_more()
        await until(lambda: not one.open)
        made = one.summary().messages
        await operator.wait_idle()
        one.stop()
    assert one.summary().messages == made == one.summary().final
    assert set(one.message_ids) == {event.id for event in operator.ledger.events if isinstance(event, Report)}


class SilentOperator:
    """Binds everybody and answers no submit; keeps what it was sent, connection by connection."""

    def __init__(self):
        self.sessions = []

    async def serve(self, stream):
        frames = []
        self.sessions.append(frames)
        rest = b""
        async with stream:
            async for data in stream:
                found, rest = split(rest + data)
                for frame in found:
                    _, command, _, sequence = HEADER.unpack_from(frame)
                    if command == c.SUBMIT_SM:
                        frames.append((sequence, parse(frame).short_message.split()[0].decode()))
                    elif command != c.ENQUIRE_LINK:
                        await stream.send_all(pack(command | c.RESPONSE_BIT, 0, sequence, b"x\0"))


async def test_unanswered_submits_are_submitted_again_with_their_tags(nursery):
    silent = SilentOperator()
    listeners = await nursery.start(partial(trio.serve_tcp, silent.serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    one = Gateway(GatewayOptions(port=port, messages=3, window=3, response_timeout_s=0.1, reconnect_ms=(5, 5)))
    nursery.start_soon(one.run)
    await until(lambda: len(silent.sessions) >= 2 and len(silent.sessions[1]) >= 3)
    nursery.cancel_scope.cancel()
    (first, second, *_) = silent.sessions
    assert [tag for _, tag in first] == [tag for _, tag in second]
    assert len(first) == 3
    assert second[0][0] > first[-1][0], "sequence numbers continue over reconnects"
    assert one.resubmitted >= 3
    attempts = [event.attempt for event in one.ledger.events if isinstance(event, Submitted)]
    assert attempts[:6] == [1, 1, 1, 2, 2, 2]


async def test_a_delayed_answer_does_not_outlive_its_connection(nursery):
    """On the next one its sequence number would be another delivery's."""
    connections = []

    async def serve(stream):
        peer = Peer(stream)
        connections.append(commands := [])
        async with stream:
            while (frame := await peer.receive()) is not None:
                _, command, _, sequence = HEADER.unpack_from(frame)
                commands.append(command)
                if not command & c.RESPONSE_BIT:
                    await peer.send(pack(command | c.RESPONSE_BIT, 0, sequence, b"x\0" * (command in c.BINDS)))
                if command in c.BINDS and len(connections) == 1:
                    await peer.send(mo(7))
                    await until(lambda: one._owed)
                    return

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    one = Gateway(GatewayOptions(port=port, messages=0, answer_delay_ms=(200.0, 200.0), reconnect_ms=(5, 5)))
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: len(connections) == 2 and not one._owed)
        await one.wait_bound()
        one.stop()
    nursery.cancel_scope.cancel()
    assert connections == [[c.BIND_TRANSCEIVER], [c.BIND_TRANSCEIVER, c.UNBIND]]


async def test_silent_link_is_enquired_and_closed(nursery, monkeypatch):
    monkeypatch.setattr("dlrproxy.simulator.session.ENQUIRE_ANSWER_S", 0.1)
    silent = SilentOperator()
    listeners = await nursery.start(partial(trio.serve_tcp, silent.serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    one = Gateway(GatewayOptions(port=port, messages=0, enquire_link_s=0.1, reconnect_ms=(5, 5)))
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: one.reconnects >= 2)
        one.stop()
    nursery.cancel_scope.cancel()
    whys = [event.why for event in one.ledger.events if isinstance(event, Unlinked)]
    assert "closed by the peer" not in whys


async def test_refused_bind_is_told(start_operator):
    operator = await start_operator(accounts={"user": "other"})
    one = gateway(operator)
    async with trio.open_nursery() as running:
        running.start_soon(one.run)
        await until(lambda: any(isinstance(event, Unlinked) for event in one.ledger.events))
        one.stop()
    reasons = {event.why for event in one.ledger.events if isinstance(event, Unlinked)}
    assert reasons == {"bind refused: ESME_RINVPASWD"}
    assert one.summary().messages == 0


async def test_a_gateway_without_progress_gives_up(start_operator):
    operator = await start_operator(accounts={"user": "other"})
    one = gateway(operator, give_up_s=0.2)
    await one.run()
    assert not one.finished.is_set()
    assert one.summary().unfinished == 200


async def test_mo_reach_gateways_and_split_parts_are_seen(start_operator):
    operator = await start_operator(mo=MoOptions(rate=500, count=40, after_binds=2, concatenated=0.5))
    both = [gateway(operator, name, messages=0) for name in ("gw1", "gw2")]
    async with trio.open_nursery() as running:
        for each in both:
            running.start_soon(each.run)
        await until(lambda: operator.summary().mo >= 40)
        await operator.wait_idle()
        for each in both:
            each.stop()
    found = verdict(operator, *both)
    assert found.mo_sent == found.mo_delivered > 40
    assert found.mo_split == found.mo_sent - 40
    assert (found.mo_lost, found.mo_duplicates, found.unexpected) == (0, 0, 0)


async def test_no_reports_asked_for(start_operator):
    operator = await start_operator()
    one = gateway(operator, registered_delivery=0)
    found = await play(operator, one)
    assert (found.submitted, found.reports_made, one.summary().unfinished) == (200, 0, 0)


async def test_destinations_come_from_the_seed(start_operator):
    async def destinations(seed):
        operator = await start_operator()
        one = gateway(operator, messages=20, seed=seed)
        await one.run()
        return [event.destination for event in one.ledger.events if isinstance(event, Submitted)]

    assert await destinations(1) == await destinations(1) != await destinations(2)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"bind_type": BindType.RECEIVER, "messages": 1}, "a receiver cannot submit"),
        ({"silent": 0.6, "refuse_permanent": 0.6}, "more than every message"),
        ({"reconnect_ms": (5, 1)}, "reconnect_ms"),
        ({"name": "my gateway"}, "name: 'my gateway'"),
        ({"source": "čp"}, "source"),
        ({"run": "longer"}, "at most four"),
        ({"messages": 10_000_000}, "messages"),
    ],
)
def test_options_that_cannot_be(wrong, why):
    with pytest.raises(ValueError, match=why):
        GatewayOptions(**wrong)
