"""What operators and gateways hear of a node that loses the quorum, and what is left of it: PDU by PDU."""

from contextlib import asynccontextmanager

import trio
from one_node import receive, report, submit, take
from relay_world import heads, receipt, sequence_of, submit_sm, submit_sm_resp
from smpp_peer import Peer, bind_request
from test_quorum_node import LONG_S, running

from dlrproxy.demo.ports import LOOPBACK
from dlrproxy.modes import quorum_node
from dlrproxy.store.sql.connection import Connection
from protocols.smpp import constants as c
from protocols.smpp.pdu import pack

OPERATOR = """
    port = {}
    reconnect_min_s = 0.05
    reconnect_max_s = 0.2
    race_window_s = 0.2
    enquire_link_s = 3600.0
"""


@asynccontextmanager
async def asking(account):
    connection = await Connection.open(account)
    try:
        yield lambda statement: connection.run(statement, LONG_S)
    finally:
        await connection.close()


async def custody(account):
    async with asking(account) as ask:
        return (await ask("SELECT node,name,content FROM items WHERE kind='custody' AND content IS NOT NULL")).rows


async def bound(smsc):
    with trio.fail_after(LONG_S):
        peer = Peer(await smsc.accept())
    request = await receive(peer)
    await peer.send(pack(c.BIND_TRANSCEIVER_RESP, c.ESME_ROK, sequence_of(request), b"smsc\0"))
    return peer


def port_of(scene, gateway):
    return scene.config.operators[0].listen[gateway].port


async def bound_gateway(scene, gateway):
    peer = Peer(await trio.open_tcp_stream(LOOPBACK, port_of(scene, gateway)))
    await peer.send(bind_request())
    assert heads([await receive(peer)]) == [("bind_transceiver_resp", c.ESME_ROK, 1)]
    return peer


async def leave(peer):
    await peer.send(pack(c.UNBIND, c.ESME_ROK, 99))
    assert heads(await peer.receive_until_end()) == [("unbind_resp", c.ESME_ROK, 99)]
    await peer.aclose()


async def listens(scene, gateway):
    try:
        stream = await trio.open_tcp_stream(LOOPBACK, port_of(scene, gateway))
    except OSError:
        return False
    await stream.aclose()
    return True


async def until_end(peer, heard):
    with trio.fail_after(LONG_S):
        heard += [head[:2] for head in heads(await peer.receive_until_end())]
    await peer.aclose()


async def test_gateways_are_answered_for_what_operators_have_accepted_then_all_are_unbound_and_custody_stays(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(quorum_node, "SETTLE_S", LONG_S)  # on a busy machine the journal's disk may need more than 1 s
    (smsc,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    operator = OPERATOR.format(smsc.socket.getsockname()[1])
    async with smsc, running(tmp_path, monkeypatch, operator=operator) as scene:
        term = await scene.term_after()
        bind, other = await bound(smsc), await bound_gateway(scene, "other")
        await submit(other, bind, b"0a1b2c")
        await leave(other)
        await bind.send(receipt(9, b"0a1b2c"))  # for which its gateway is not there: custody
        assert heads([await receive(bind)]) == [("deliver_sm_resp", c.ESME_ROK, 9)]
        kept = await custody(scene.account)
        assert len(kept) == 1

        gateway = await bound_gateway(scene, "shop")
        from_operator, from_gateway = [], []
        async with asking(scene.account) as ask:
            await ask("LOCK TABLES open_messages WRITE")  # commits stand still, as they do while a quorum is lost
            await gateway.send(submit_sm(8))
            await bind.send(submit_sm_resp(sequence_of(await receive(bind)), b"0a1b2d"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_end, bind, from_operator)
                nursery.start_soon(until_end, gateway, from_gateway)
                await scene.lose_quorum()
        assert from_gateway == [("submit_sm_resp", c.ESME_ROK), ("unbind", c.ESME_ROK)]
        assert from_operator == [("unbind", c.ESME_ROK)]
        assert not [name for name in ("shop", "other") if await listens(scene, name)]
        assert await custody(scene.account) == kept
        assert scene.node.quorum().journal_rows == 1

        scene.regain_quorum()
        await scene.term_after(term)
        bind, gateway = await bound(smsc), await bound_gateway(scene, "shop")
        await report(gateway, bind, b"0a1b2d")  # its id came from the journal
        assert scene.node.quorum().journal_rows == 0
        other = await bound_gateway(scene, "other")
        await take(other, b"0a1b2c")
        for peer in (bind, gateway, other):
            await trio.aclose_forcefully(peer.stream)
