"""Whole nodes of an active-passive pair over two real database servers: who serves, and what a change leaves."""

from functools import partial

import pytest
import structlog
import trio
from admin_world import asking
from attrs import evolve
from one_node import receive, report, submit, take
from pair_scene import LONG_S, pair_scene
from relay_world import heads, mo, receipt, submit_sm

from dlrproxy.admin.client import RefusedError
from dlrproxy.admin.pair_view import PairStatus
from dlrproxy.admin.parked import Page
from dlrproxy.admin.view import NodeStatus
from dlrproxy.front import Front
from dlrproxy.modes.replication import NOT_ASKED
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack

pytestmark = pytest.mark.processes


async def promoted(scene, name):
    """The operator's end of the bind of the node that is promoted now."""
    scene[name].promote(force=False)
    await scene.until(lambda: scene.role(name) == "active")
    bind = await scene.bound()
    await scene.active(name)
    return bind


def state(scene, name):
    return (scene.configs[name].node.data_dir / "state").read_text().split()[:3]


async def test_a_planned_switch_waits_for_nothing_keeps_everything_and_goes_back_again(tmp_path):
    # Only a server that was handed over may be promoted before that time.
    async with pair_scene(tmp_path, pair={"promote_after_s": 3600.0}) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        assert not await scene.listens("b")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2c")
        await submit(gateway, bind, b"0a1b2d")
        await report(gateway, bind, b"0a1b2c")
        await bind.send(receipt(9, b"0a1b2d"))
        await receive(gateway)  # and it is not answered: it goes to custody
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 9)]
        await scene.until(lambda: state(scene, "a") == ["active", "1", "serving"])

        async with scene.parting(bind, gateway):
            scene["a"].demote()
            await scene.until(lambda: scene.role("a") == "standby")
        assert not await scene.listens("a")
        bind = await promoted(scene, "b")
        gateway = await scene.bound_gateway("b")
        await take(gateway, b"0a1b2d")
        await submit(gateway, bind, b"0a1b2e")
        await report(gateway, bind, b"0a1b2e")
        await scene.until(lambda: state(scene, "b") == ["active", "2", "serving"])
        run = scene["b"].term.keeper.machine._run

        await trio.to_thread.run_sync(scene.servers.replicate, "a", "b")
        await scene.until(lambda: scene["b"].pair().own.alone == "no")
        async with scene.parting(bind, gateway):
            scene["b"].demote()
            scene["b"].demote()
            await scene.until(lambda: scene.role("b") == "standby")
        bind = await promoted(scene, "a")
        assert scene["a"].term.keeper.machine._run > run  # what is numbered with it never was before
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2f")
        await report(gateway, bind, b"0a1b2f")


async def test_an_active_that_does_not_listen_yet_does_not_say_that_it_serves(tmp_path, monkeypatch):
    there, go_on = trio.Event(), trio.Event()
    run = Front.run

    async def held(front, *, task_status):
        there.set()
        await go_on.wait()
        await run(front, task_status=task_status)

    monkeypatch.setattr(Front, "run", held)
    async with pair_scene(tmp_path) as scene:
        await scene.start("a")
        with trio.fail_after(LONG_S):
            await there.wait()
        assert (scene.role("a"), scene["a"].pair().serving) == ("active", False)
        await scene.until(lambda: state(scene, "a") == ["active", "1", "starting"])  # the other's server is a replica
        go_on.set()
        await scene.bound()
        await scene.until(lambda: scene["a"].pair().serving)
        await scene.until(lambda: state(scene, "a") == ["active", "1", "serving"])


async def test_of_what_is_asked_while_the_active_hands_over_the_last_counts(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        scene["a"].demote()
        scene["a"].promote(force=False)  # before it has begun
        async with scene.parting(bind):
            bind = await scene.bound()
        await scene.active("a")
        scene["a"].demote()
        async with scene.parting(bind):
            await scene.until(lambda: scene["a"].draining == "stop" or scene.role("a") != "active")
            scene["a"].demote()
            scene["a"].promote(force=False)
            await scene.bound()
        await scene.active("a")


async def test_a_stop_of_the_active_hands_over(tmp_path):
    async with pair_scene(tmp_path, pair={"promote_after_s": 3600.0}) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2c")
        async with scene.parting(bind, gateway):
            scene["a"].stop()
            await scene.ended("a")
        assert not (tmp_path / "a" / "state").exists()
        bind = await promoted(scene, "b")
        gateway = await scene.bound_gateway("b")
        await report(gateway, bind, b"0a1b2c")


async def test_without_a_replica_a_stop_hands_nothing_over_and_the_next_start_goes_on(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        await trio.to_thread.run_sync(scene.servers.servers["b"].kill)
        await scene.until(lambda: scene.role("a") == "fenced")
        scene["a"].promote(force=True)  # it goes on alone, for a person says so
        bind = await scene.bound()
        await scene.active("a")
        async with scene.parting(bind):
            scene["a"].stop()
            await scene.ended("a")
        await scene.start("a")
        await scene.bound()
        await scene.active("a")


async def test_a_standby_says_whom_to_ask_and_is_not_promoted_beside_an_active(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        await scene.bound()
        await scene.active("a")
        ask = partial(asking, tmp_path / "b")
        with pytest.raises(RefusedError, match=r"this node is standby; ask the active one \(a\)"):
            await ask("get", "/parked", Page)
        await ask("post", "/promote", PairStatus, {})
        await scene.until(lambda: "takes writes" in scene["b"].pair().refused)
        found = await ask("get", "/status", NodeStatus)
        assert (found.custody, found.operators) == (None, ())
        assert found.pair.role == "standby"
        assert found.pair.other.writable
        assert found.pair.own.receiving
        await ask("post", "/demote", PairStatus, {})
        await scene.until(lambda: scene["b"].pair().refused == NOT_ASKED)
        found = await asking(tmp_path / "a", "get", "/status", NodeStatus)
        assert (found.pair.role, found.why_not_serving) == ("active", ())
        assert not found.pair.degraded


async def test_a_report_of_no_message_is_parked_at_once_and_mo_wait_for_a_gateway(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a")
        bind = await scene.bound()
        await scene.active("a")
        keeper = scene["a"].term.keeper
        await bind.send(receipt(3, b"unknown"))
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 3)]
        await scene.until(lambda: keeper.machine.count().parked == 1)
        assert keeper.counts["parked.unclaimed"] == 1
        await bind.send(mo(4))
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 4)]
        gateway = await scene.bound_gateway("a")
        assert heads([await receive(gateway)])[0][0] == "deliver_sm"
        assert keeper.machine.count().parked == 1


async def test_where_both_may_be_active_they_say_so_and_the_later_one_stays(tmp_path):
    async with pair_scene(tmp_path, pair={"safety": "available"}) as scene:
        await scene.start("a", "b")
        await scene.bound()
        await scene.active("a")
        with structlog.testing.capture_logs() as logged:
            scene.cut()
            await scene.until(lambda: scene["b"].pair().other is None)
            await promoted(scene, "b")
            assert scene.role("a") == "active"
            await scene.until(lambda: scene["a"].pair().degraded)
            scene.heal()
            await scene.until(lambda: scene.role("a") == "fenced")
            assert scene.role("b") == "active"
        assert {"pair.unprotected"} <= {line["event"] for line in logged}


async def test_a_reload_counts_for_the_term_that_is_there_and_for_the_next_one(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        for name in "ab":
            config = scene.configs[name]
            (operator,) = config.operators
            async with scene.parting(bind):
                await scene[name].reload(evolve(config, operators=(evolve(operator, window=7),)))
        bind = await scene.bound()
        assert scene["a"].term.fronts["acme"].relay.operator.window == 7
        async with scene.parting(bind):
            scene["a"].demote()
            await scene.until(lambda: scene.role("a") == "standby")
        await promoted(scene, "b")
        assert scene["b"].term.fronts["acme"].relay.operator.window == 7


async def test_an_active_whose_replica_is_cut_off_says_only_goodbye_and_the_other_takes_over_after_that(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2c")
        await scene.until(lambda: scene["b"].pair().not_received.transactions == 0)
        scene.cut()
        scene["b"].promote(force=False)
        heard = {}

        async def listen(peer, name):
            heard[name] = heads(await peer.receive_until_end())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, bind, "operator")
            nursery.start_soon(listen, gateway, "gateway")
            second = await scene.bound()
            assert scene["a"].term is None  # the first of b's binds comes when a has let go of everything
            assert not await scene.listens("a")
        assert [command for command, *_ in heard["operator"] if command != "enquire_link"] == ["unbind"]
        assert [command for command, *_ in heard["gateway"] if command != "enquire_link"] == ["unbind"]
        await scene.active("b")
        assert scene.role("a") == "fenced"
        gateway = await scene.bound_gateway("b")
        await report(gateway, second, b"0a1b2c")

        scene.heal()
        await scene.until(lambda: "rejoin" in scene["a"].pair().why)
        assert scene.role("b") == "active"


async def test_when_the_active_and_its_server_die_the_other_has_all_that_was_acknowledged(tmp_path):
    async with pair_scene(tmp_path) as scene:
        await scene.start("a", "b")
        bind = await scene.bound()
        await scene.active("a")
        gateway = await scene.bound_gateway("a")
        for number in range(50):
            await submit(gateway, bind, b"id%d" % number)
        scene.kill("a")
        await trio.to_thread.run_sync(scene.servers.servers["a"].kill)
        scene["b"].promote(force=False)
        second = await scene.bound()
        await scene.active("b")
        assert scene["b"].pair().degraded
        gateway = await scene.bound_gateway("b")
        for number in range(50):
            await report(gateway, second, b"id%d" % number)


async def test_a_database_that_stands_still_makes_mt_wait_and_be_refused_and_then_goes_on(tmp_path):
    async with pair_scene(tmp_path, pair={"fence_after_s": 60.0, "promote_after_s": 90.0}) as scene:
        await scene.start("a")
        bind = await scene.bound()
        await scene.active("a")
        gateway = await scene.bound_gateway("a")
        await submit(gateway, bind, b"0a1b2c")
        store = scene["a"].term.store
        scene.servers.servers["a"].pause()
        await gateway.send(submit_sm(8))
        request = await receive(bind)
        await bind.send(pack(c.SUBMIT_SM_RESP, c.ESME_ROK, int.from_bytes(request[12:16]), b"0a1b2d\0"))
        await scene.until(lambda: not store.accepting)
        await gateway.send(submit_sm(9))
        answers = heads([await receive(gateway)])
        if answers[0][2] == 8:  # the journal has it: answered before
            answers += heads([await receive(gateway)])
        assert ("submit_sm_resp", c.ESME_RMSGQFUL, 9) in answers
        scene.servers.servers["a"].go_on()
        await scene.until(lambda: store.accepting)
        if ("submit_sm_resp", c.ESME_ROK, 8) not in answers:
            assert heads([await receive(gateway)]) == [("submit_sm_resp", c.ESME_ROK, 8)]
        await report(gateway, bind, b"0a1b2d")
        await submit(gateway, bind, b"0a1b2e")
        assert scene.role("a") == "active"
