"""The active's process stands still for longer than the other one waits, and wakes up with work in its hands."""

import contextlib
import signal

import pytest
import trio
from one_node import receive, report, submit, take
from pair_processes import pair_processes
from relay_world import heads, receipt, submit_sm, submit_sm_resp

from protocols.smpp import constants as c
from protocols.smpp.framing import HEADER

pytestmark = pytest.mark.processes

IN_CUSTODY, OPEN, WHILE_FROZEN, NEVER_TOLD, LATER = b"0a1b2a", b"0a1b2b", b"0a1b2c", b"0a1b2d", b"0a1b2e"


async def heard_until_the_end(peer):
    """What comes until the other end closes, or resets what it has not read."""
    frames = []
    with contextlib.suppress(trio.BrokenResourceError):
        while (frame := await peer.receive()) is not None:
            frames.append(frame)
    return frames


async def test_what_wakes_up_after_the_other_was_promoted_says_nothing_but_goodbye(tmp_path):
    async with pair_processes(tmp_path) as (scene, nodes):
        a, b = nodes["a"], nodes["b"]
        async with trio.open_nursery() as starting:
            starting.start_soon(a.start)
            starting.start_soon(b.start)
        bind = await scene.bound()
        await a.seen("pair.serving")
        gateway = await scene.bound_gateway("a")
        for message_id in (IN_CUSTODY, OPEN, WHILE_FROZEN):
            await submit(gateway, bind, message_id)
        await bind.send(receipt(9, IN_CUSTODY))
        await receive(gateway)  # and it is not answered: it goes to custody
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 9)]
        await gateway.send(submit_sm(8))
        sequence = HEADER.unpack_from(await receive(bind))[3]

        a.send(signal.SIGSTOP)
        await bind.send(submit_sm_resp(sequence, NEVER_TOLD), receipt(10, WHILE_FROZEN))
        await gateway.send(submit_sm(9))
        await b.promote()
        await b.until_pair(lambda pair: "takes writes" in pair.refused)  # a process that may wake up at once
        second = await scene.bound()
        await b.seen("pair.serving")
        other_gateway = await scene.bound_gateway("b")
        await take(other_gateway, IN_CUSTODY)
        await report(other_gateway, second, WHILE_FROZEN)  # which a has not answered

        woken = a.mark()
        heard = {}

        async def listen(name, peer):
            heard[name] = [command for command, *_ in heads(await heard_until_the_end(peer))]

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, "operator", bind)
                nursery.start_soon(listen, "gateway", gateway)
                a.send(signal.SIGCONT)
        # A connection that has something to say is closed without a word; the others are unbound.
        assert all(frames in ([], ["unbind"]) for frames in heard.values()), heard
        await a.seen("pair.released", since=woken)
        await a.until_pair(lambda pair: pair.role == "standby")  # its server takes no more writes
        assert not a.found("pair.serving", since=woken)
        assert not await scene.listens("a")

        # Nobody was told of what came to a while it stood still: it is sent again, to b.
        await report(other_gateway, second, OPEN)
        await submit(other_gateway, second, LATER)
        await report(other_gateway, second, LATER)
        assert (await b.pair()).role == "active"
