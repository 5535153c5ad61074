"""The custody machine: accept, walk, claim, settle, deliver, park."""

from attrs import evolve
from custody_world import SETTINGS, World

from dlrproxy.logs import ROUTE_EVENTS
from protocols.smpp.constants import ESME_RSYSERR, ESME_RX_P_APPN
from ring.accepting import Offer
from ring.settings import OperatorPolicy
from ring.shelf import Alarm, Alarms
from ring.topology import Topology


def events(world: World, trace: str) -> list[tuple[str, str]]:
    return [(note.event, node) for node, note in world.notes if note.envelope.trace == trace]


def test_a_report_at_the_wrong_node_goes_round_to_its_owner():
    world = World(4)
    world.submit("n3", b"id1")
    world.report("n0", b"id1", "t1", owner="n3")
    world.settle_down()
    walked = events(world, "t1")
    assert walked[:5] == [
        ("received", "n0"),
        ("forwarded", "n0"),
        ("forwarded", "n1"),
        ("forwarded", "n2"),
        ("claimed", "n3"),
    ]
    assert set(walked[5:]) == {("settled", "n0"), ("delivered", "n3")}
    world.check()


def test_the_operator_is_answered_only_after_the_row_is_durable():
    world = World(2)
    world.report("n0", b"id1", "t1", owner="")
    assert not world.accepted
    world.commit("n0")
    assert world.accepted == {"t1": ""}


def test_the_owner_delivers_once_it_has_it_on_disk_and_the_origin_has_let_go():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    assert not world.wires.get(("n1", "n0"))  # not claimed before it is durable
    world.commit("n1")
    world.deliver_frame(("n1", "n0"))
    assert not world.wires["n0", "n1"]  # not let go before that is durable
    world.commit("n0")
    assert not world.delivered
    world.deliver_frame(("n0", "n1"))
    assert [delivery.node for delivery in world.delivered] == ["n1"]


def test_an_unclaimed_lap_waits_and_goes_round_again_and_parks_in_the_end():
    world = World(3)
    world.report("n0", b"nobody", "t1", owner="")
    world.recover()
    names = [event for event, _ in events(world, "t1")]
    assert names.count("waiting") > 3
    assert names[-1] == "parked"
    note = world.notes[-1][1]
    assert dict(note.fields)["reason"] == "unclaimed"
    world.check()


def test_it_parks_as_owner_unreachable_when_a_node_never_answered():
    world = World(3)
    world.crash("n2")
    world.report("n0", b"id1", "t1", owner="")
    for _ in range(80):
        world.settle_down()
        world.advance(20)
    assert dict(world.notes[-1][1].fields)["reason"] == "owner_unreachable"


def test_a_node_that_joins_wakes_what_waits():
    world = World(3)
    world.submit("n2", b"id1")
    world.crash("n2")
    world.report("n0", b"id1", "t1", owner="n2")
    world.settle_down()
    assert ("waiting", "n0") in events(world, "t1")
    world.start("n2")
    world.settle_down()
    world.check()


def test_a_response_that_comes_just_after_the_envelope_passed_still_claims_it():
    world = World(3)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert not world.delivered
    world.submit("n1", b"id1")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n1"]
    world.check()


def test_a_response_at_the_origin_takes_its_own_waiting_report():
    world = World(3)
    world.report("n0", b"id1", "t1", owner="n0")
    world.settle_down()
    world.submit("n0", b"id1")
    world.settle_down()
    world.check()


def test_a_forwarder_forgets_what_passed():
    world = World(2)
    world.report("n0", b"id1", "t1", owner="")
    world.settle_down()
    machine = world.nodes["n1"].machine
    assert machine is not None
    assert machine.watching
    world.advance(2)
    assert not machine.watching


def test_a_forwarder_remembers_what_passed_for_so_long_after_its_last_lap():
    world = World(2, evolve(SETTINGS, walk_retry_min_s=0.6, walk_retry_max_s=0.6))
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    world.advance(0.6)  # SETTINGS.watch_s is 1 s: between the two laps, and after the second one, less has passed
    world.settle_down()
    world.advance(0.5)
    world.submit("n1", b"id1")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n1"]
    world.check()


def test_reports_of_one_message_keep_their_order_whatever_the_gateway_does():
    world = World(3)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "first", owner="n1", final=False)
    world.report("n0", b"id1", "second", owner="n1")
    for _ in range(30):  # until the first is at the gateway
        if world.nodes["n1"].at_gateway:
            break
        world.busy_steps()[0]()
    world.answer("n1", ESME_RSYSERR)
    world.settle_down()
    world.advance(2)
    world.settle_down()
    world.advance(5)
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered if delivery.answered] == ["first", "second"]


def test_an_intermediate_report_after_the_final_one_is_not_delivered():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "final", owner="n1")
    world.settle_down()
    world.report("n0", b"id1", "late", owner="n1", final=False)
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["final"]
    assert ("superseded", "n1") in events(world, "late")


def test_a_permanent_error_parks_the_report_at_the_owner():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    for _ in range(30):
        if world.nodes["n1"].at_gateway:
            break
        world.busy_steps()[0]()
    world.answer("n1", ESME_RX_P_APPN)
    world.settle_down()
    assert world.custodies("t1") == [("n1", "parked")]
    assert ("parked", "n1") in events(world, "t1")


def test_a_late_claim_takes_a_parked_entry_with_it():
    world = World(2, evolve(SETTINGS, claim_for_s=0.0, watch_s=100.0))
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert world.custodies("t1") == [("n0", "parked")]
    world.submit("n1", b"id1")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n1"]
    world.check()


def test_with_the_policy_local_the_local_gateway_gets_it_and_nobody_else():
    policy = {"acme": OperatorPolicy("local", "gw")}
    world = World(2, evolve(SETTINGS, operators=policy, claim_for_s=0.0, watch_s=100.0))
    world.report("n0", b"id1", "t1", owner="n0")
    world.settle_down()
    world.submit("n1", b"id1")  # too late
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n0"]
    assert ("claim_refused", "n1") in events(world, "t1")
    world.check()


def test_with_the_policy_drop_it_is_dropped_with_a_route_event():
    policy = {"acme": OperatorPolicy("drop", "gw")}
    world = World(2, evolve(SETTINGS, operators=policy, claim_for_s=0.0))
    world.report("n0", b"id1", "t1", owner="")
    world.settle_down()
    assert ("dropped", "n0") in events(world, "t1")
    assert world.custodies("t1") == []


def test_an_owner_by_a_rule_not_learned_is_found_in_the_second_lap_and_waits_for_the_grant():
    world = World(3)
    world.submit("n2", b"38601fa", inexact=b"0059113978")
    world.report("n0", b"0059113978", "t1", owner="n2")
    world.settle_down()
    claims = [note for node, note in world.notes if note.event == "claimed"]
    assert [note.lap for note in claims] == [2]
    world.check()


def test_an_exact_owner_goes_before_an_inexact_one():
    world = World(3)
    world.submit("n1", b"38601fa", inexact=b"59113978")
    world.submit("n2", b"59113978")
    world.report("n0", b"59113978", "t1", owner="n2")
    world.recover()
    world.check()


def test_an_mo_goes_to_one_node_with_a_bound_gateway():
    world = World(3)
    world.set_gateway("n0", up=False)
    world.report("n0", b"", "mo1", owner="n1", kind="mo")
    world.settle_down()
    assert [delivery.node for delivery in world.delivered] == ["n1"]
    world.check()


def test_an_mo_that_two_nodes_claim_is_granted_to_one():
    world = World(3)
    world.set_gateway("n0", up=False)
    world.settle_down()
    world.mo("n0", "mo1")
    for claimer in ("n1", "n2"):
        while not any(node == claimer and note.event == "claimed" for node, note in world.notes):
            world.busy_steps()[0]()
        if claimer == "n1":
            world.cut_link("n0", "n1")  # its claim is lost with the link, and the origin asks n2
    world.heal_link("n0", "n1")
    world.settle_down()
    assert len(world.delivered) == 1
    assert [node for node, note in world.notes if note.event == "claim_refused"] in (["n1"], ["n2"])
    world.check()


def test_a_full_custody_refuses_and_the_operator_keeps_it():
    world = World(2, evolve(SETTINGS, max_messages=1))
    assert world.report("n0", b"a", "t1", owner="")
    assert not world.report("n0", b"b", "t2", owner="")


def test_an_owner_whose_custody_is_full_is_asked_again_later():
    world = World(2, evolve(SETTINGS, max_messages=1))
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    world.report("n1", b"other", "mine", owner="")
    world.settle_down()
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert ("busy", "n1") in events(world, "t1")
    assert world.custodies("t1") == [("n0", "custody")]


def test_with_the_parked_quota_full_nothing_is_dropped():
    world = World(1, evolve(SETTINGS, max_parked=1, claim_for_s=0.0))
    for trace in ("t1", "t2"):
        world.report("n0", trace.encode(), trace, owner="")
        world.settle_down()
    assert world.custodies("t1") == [("n0", "parked")]
    assert world.custodies("t2") == [("n0", "custody")]
    assert ("parking_full", "n0") in events(world, "t2")


def test_a_report_without_an_id_parks_at_once():
    world = World(2)
    world.report("n0", b"", "t1", owner="")
    world.settle_down()
    assert world.custodies("t1") == [("n0", "parked")]
    assert not world.forwards


def test_what_is_with_a_session_is_not_sent_again_until_that_session_answers_or_ends():
    world = World(1)
    machine = world.nodes["n0"].machine
    assert machine is not None
    offer = Offer("acme", "dlr", b"id1", b"4479", b"pdu-t1", True, "t1", gateway="gw", local=True, sent=True)
    key, out = machine.accept(offer, world.now)
    assert key is not None
    world.owners["t1"] = "n0"
    world._offers["n0", key] = "t1"
    world.do("n0", out)
    world.settle_down()
    world.advance(1000)
    assert not world.delivered
    world.do("n0", machine.answered(key, None, world.now))
    assert [delivery.trace for delivery in world.delivered] == ["t1"]


def test_a_claim_of_a_restarted_origin_with_another_data_directory_parks_where_a_grant_is_needed():
    world = World(2)
    world.set_gateway("n0", up=False)
    world.settle_down()
    world.report("n0", b"", "mo1", owner="n1", kind="mo")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    world.commit("n1")  # claimed; the claim is on the wire
    world.crash("n0")
    world.nodes["n0"].store_id = b"\xff" * 8
    world.nodes["n0"].disk.rows.clear()
    world.start("n0")
    world.settle_down()
    assert world.custodies("mo1") == [("n1", "parked")]
    assert dict(next(n for _, n in world.notes if n.event == "parked").fields)["reason"] == "origin_lost"


def test_every_route_event_says_what_the_documents_say():
    world = World(3)
    world.submit("n2", b"id1")
    world.report("n0", b"id1", "t1", owner="n2")
    world.report("n0", b"nobody", "t2", owner="")
    world.recover()
    for _, note in world.notes:
        documented = ROUTE_EVENTS[f"{note.envelope.kind}.{note.event}"].fields
        assert {name for name, _ in note.fields} <= set(documented), note.event


def test_an_intermediate_report_behind_a_final_one_stays_undelivered_over_a_restart():
    world = World(1)
    world.set_gateway("n0", up=False)
    world.submit("n0", b"id1")
    for trace, final in (("final", True), ("late", False)):
        world.report("n0", b"id1", trace, owner="n0", final=final)
    world.settle_down()
    world.advance(400)  # both have found their owner here, and wait for its gateway
    world.settle_down()
    world.set_gateway("n0", up=True)
    while not world.nodes["n0"].at_gateway:
        world.busy_steps()[0]()
    world.answer("n0")
    while world.nodes["n0"].disk.pending and "late" not in world.superseded:
        world.commit("n0")
    world.nodes["n0"].finished.clear()  # the restarted node has nothing but its rows
    world.crash("n0")
    world.start("n0")
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["final"]


def test_a_full_session_is_tried_once_an_answer_and_keeps_the_order():
    world = World(1)
    node = world.nodes["n0"]
    node.room = 2
    world.set_gateway("n0", up=False)
    for number in range(40):
        world.submit("n0", b"id%d" % number)
        world.report("n0", b"id%d" % number, f"t{number:02}", owner="n0")
    world.settle_down()
    world.advance(400)
    while node.disk.pending:
        world.commit("n0")
    node.unsent = 0
    world.set_gateway("n0", up=True)
    tried = node.unsent
    for _ in range(20):
        world.answer("n0")
        while node.disk.pending:
            world.commit("n0")
    assert node.unsent - tried <= 40
    traces = [delivery.trace for delivery in world.delivered]
    assert traces == sorted(traces)
    assert len(traces) >= 22


def test_a_node_whose_store_takes_no_writes_claims_nothing():
    world = World(2)
    world.submit("n1", b"id1")
    world.nodes["n1"].taking = False
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert ("busy", "n1") in events(world, "t1")
    world.nodes["n1"].taking = True
    world.recover()
    world.check()


def retopologize(world, name, *nodes):
    machine = world.nodes[name].machine
    world.do(name, machine.retopologize(Topology(nodes, name), world.now))
    world.settle_down()


def claimed_of_a_node_that_died_before_it_let_go():
    """n1 has claimed a report of n0, which is down and has not heard of it."""
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    world.commit("n0")
    world.deliver_frame(("n0", "n1"))
    world.commit("n1")
    world.crash("n0")
    return world


def test_what_waits_for_a_node_that_is_configured_no_more_is_parked_after_claim_for_s():
    world = claimed_of_a_node_that_died_before_it_let_go()
    retopologize(world, "n1", "n1")
    world.advance(SETTINGS.claim_for_s - 1)
    world.settle_down()
    assert world.custodies("t1")[-1] == ("n1", "custody")
    machine = world.nodes["n1"].machine
    world.advance(1)
    world.settle_down()
    assert world.custodies("t1")[-1] == ("n1", "parked")
    assert dict(next(n for _, n in world.notes if n.event == "parked").fields)["reason"] == "origin_removed"
    assert machine.count().items == 0


def test_what_a_node_was_granted_is_still_its_own_when_it_has_been_taken_out_and_put_back():
    world = World(2)
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert events(world, "t1")[-1] == ("settled", "n0")  # the only copy is n1's, and the only word on it n0's
    world.crash("n1")
    retopologize(world, "n0", "n0")
    retopologize(world, "n0", "n0", "n1")
    world.recover()
    world.check()
    assert [world.nodes[name].machine.count().items for name in world.names] == [0, 0]


def test_what_a_node_has_granted_is_finished_when_it_has_been_taken_out_and_put_back():
    world = claimed_of_a_node_that_died_before_it_let_go()
    retopologize(world, "n1", "n1")
    retopologize(world, "n1", "n0", "n1")
    world.advance(SETTINGS.claim_for_s + 1)
    world.recover()
    world.check()
    assert [world.nodes[name].machine.count().items for name in world.names] == [0, 0]


def test_a_node_forgets_what_it_granted_to_one_that_is_gone_for_good():
    world = World(2)
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    world.crash("n1")
    retopologize(world, "n0", "n0")
    world.advance(SETTINGS.claim_for_s)
    world.settle_down()
    assert world.nodes["n0"].machine.count().items == 0


def test_what_a_gateway_still_has_of_a_node_that_is_gone_for_good_is_finished_first():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    while not world.nodes["n1"].at_gateway:
        world.busy_steps()[0]()
    world.crash("n0")
    machine = world.nodes["n1"].machine
    world.do("n1", machine.retopologize(Topology(("n1",), "n1"), world.now))
    world.advance(SETTINGS.claim_for_s)
    assert machine.count().items == 1
    world.settle_down()  # the gateway answers
    world.advance(SETTINGS.claim_for_s)
    world.settle_down()
    assert machine.count().items == 0
    assert [delivery.trace for delivery in world.delivered] == ["t1"]


def test_with_the_parked_quota_full_a_refused_claim_is_not_delivered_instead():
    world = World(2, evolve(SETTINGS, max_parked=0))
    world.set_gateway("n0", up=False)
    world.settle_down()
    world.mo("n0", "mo1")
    for _ in range(50):
        if any(note.event == "claimed" for _, note in world.notes):
            break
        world.busy_steps()[0]()
    world.crash("n0")
    world.nodes["n0"].store_id = b"\xff" * 8
    world.nodes["n0"].disk.rows.clear()
    world.start("n0")
    for _ in range(5):
        world.settle_down()
        world.advance(30)
    assert ("parking_full", "n1") in events(world, "mo1")
    assert not world.delivered
    assert world.custodies("mo1") == [("n1", "custody")]


def test_moved_alarms_do_not_pile_up():
    alarms = Alarms()
    for count in range(100_000):
        alarms.set(float(count), Alarm.PUMP, ("acme", "gw"))
    assert len(alarms._heap) < 5_000
    assert alarms.due(1e9) == [(Alarm.PUMP, ("acme", "gw"))]


def test_the_word_on_an_earlier_claim_is_not_taken_for_the_word_on_a_later_one():
    world = World(2)
    world.submit("n1", b"id1")
    world.report("n0", b"id1", "t1", owner="n1")
    world.commit("n0")
    [forward] = world.wires["n0", "n1"]
    world.deliver_frame(("n0", "n1"))
    world.commit("n1")
    world.deliver_frame(("n1", "n0"))
    world.commit("n0")
    [granted] = world.wires["n0", "n1"]
    world.settle_down()
    world.advance(1)
    world.settle_down()
    assert [delivery.trace for delivery in world.delivered] == ["t1"]
    world.wires["n0", "n1"].extend([forward, granted])  # both come once more, late: it is claimed again
    world.deliver_frame(("n0", "n1"))
    world.commit("n1")
    world.deliver_frame(("n0", "n1"))
    world.settle_down()
    assert len(world.delivered) == 1
    assert ("claim_refused", "n1") in events(world, "t1")
    world.check()


def test_an_origin_does_not_wait_for_ever_for_a_claimer_that_lost_its_data_directory():
    world = World(2)
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    assert world.custodies("t1") == [("n1", "custody")]
    world.crash("n1")
    world.nodes["n1"].store_id = b"\xff" * 8
    world.nodes["n1"].disk.rows.clear()
    world.start("n1")
    world.settle_down()
    origin = world.nodes["n0"].machine
    assert origin is not None
    assert origin.count().items == 0
    assert not world.nodes["n0"].disk.rows


def test_an_origin_asks_a_claimer_that_lost_its_data_directory_again_where_the_answer_is_lost():
    world = World(2)
    world.submit("n1", b"id1")
    world.set_gateway("n1", up=False)
    world.report("n0", b"id1", "t1", owner="n1")
    world.settle_down()
    world.crash("n1")
    world.nodes["n1"].store_id = b"\xff" * 8
    world.nodes["n1"].disk.rows.clear()
    world.start("n1")
    while not world.wires["n1", "n0"]:
        world.busy_steps()[0]()
    world.wires["n1", "n0"].clear()  # its outbox was full
    world.settle_down()
    assert world.nodes["n0"].disk.rows
    world.advance(SETTINGS.walk_retry_max_s + 0.1)
    world.settle_down()
    assert not world.nodes["n0"].disk.rows
