"""ring/handshake.py: two machines back to back, and everything that must not become a link."""

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.peer import hello as wire
from protocols.peer.frames import VERSION
from protocols.peer.hello import Challenge, Introduction, Ready
from ring import handshake
from ring.handshake import Agreed, Channel, DiallerHandshake, ListenerHandshake, Refused, Terms, dials

SECRET = b"0123456789abcdef"
CERTIFICATE = b"c" * 32  # the fingerprint of the listener's
DIALLER_NONCE, LISTENER_NONCE = b"d" * 32, b"l" * 32


def terms(node, **changes):
    names = {"gw1", "gw2", "gw3"} - {node}
    mine = Terms(
        node=node,
        cluster="prod",
        store_id=node.encode().ljust(8, b"-"),
        boot=b"boot-" + node.encode(),
        peers={name: frozenset({name, f"10.0.0.{name[-1]}"}) for name in names},
        secret=SECRET,
    )
    return attrs.evolve(mine, **changes)


def dialler(own=None, channel=None, **changes):
    own = own or terms("gw1")
    return DiallerHandshake(
        own, channel or Channel(CERTIFICATE), DIALLER_NONCE, **({"peer": "gw2", "dial": 7} | changes)
    )


def listener(own=None, channel=None):
    return ListenerHandshake(own or terms("gw2"), channel or Channel(CERTIFICATE), LISTENER_NONCE)


@attrs.frozen
class Ended:
    dialler: object
    listener: object
    to_dialler: list
    to_listener: list


def converse(dialling, listening):
    """Carry messages between the two until both are done, or until one has closed."""
    to_dialler, to_listener = [listening.opening()], []
    ends = {"dialler": None, "listener": None}
    for _ in range(4):
        for name, machine, inbox, outbox in (
            ("dialler", dialling, to_dialler, to_listener),
            ("listener", listening, to_listener, to_dialler),
        ):
            step = machine.receive(inbox[-1])
            if step.send:
                outbox.append(step.send)
            if step.outcome is not None:
                ends[name] = step.outcome
                if isinstance(step.outcome, Refused) and not step.send:
                    return Ended(ends["dialler"], ends["listener"], to_dialler, to_listener)
            if all(ends.values()):
                return Ended(ends["dialler"], ends["listener"], to_dialler, to_listener)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("secret", [SECRET, None])
def test_two_nodes_of_one_ring_agree(secret):
    ended = converse(dialler(terms("gw1", secret=secret, capabilities=("a",))), listener(terms("gw2", secret=secret)))
    assert isinstance(ended.dialler, Agreed)
    assert isinstance(ended.listener, Agreed)
    assert ended.dialler.version == ended.listener.version == VERSION
    assert ended.dialler.hello.node == "gw2"
    assert ended.dialler.hello.store_id == b"gw2-----"
    assert ended.listener.hello.node == "gw1"
    assert ended.listener.hello.boot == b"boot-gw1"
    assert ended.listener.hello.dial == 7
    assert ended.listener.hello.capabilities == ("a",)


def test_the_name_that_sorts_first_dials():
    assert dials("gw1", "gw2")
    assert not dials("gw2", "gw1")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((4, 4), (1, 4), 4), ((1, 9), (3, 5), 5)],
)
def test_the_highest_common_version_is_spoken(ours, theirs, expected):
    ended = converse(
        dialler(terms("gw1", oldest=ours[0], newest=ours[1])),
        listener(terms("gw2", oldest=theirs[0], newest=theirs[1])),
    )
    assert ended.dialler.version == ended.listener.version == expected


@pytest.mark.parametrize(("ours", "theirs"), [((1, 2), (3, 4)), ((3, 4), (1, 2))])
def test_without_a_common_version_both_logs_name_both_ranges(ours, theirs):
    ended = converse(
        dialler(terms("gw1", oldest=ours[0], newest=ours[1])),
        listener(terms("gw2", oldest=theirs[0], newest=theirs[1])),
    )
    for refused in (ended.dialler, ended.listener):
        assert refused.reason == "no_common_version"
        assert (
            f"gw1 speaks {'the versions ' if refused is ended.dialler else ''}{ours[0]} to {ours[1]}" in refused.detail
        )
        assert f"{theirs[0]} to {theirs[1]}" in refused.detail


REFUSED_BY_LISTENER = {
    "other cluster": (terms("gw1", cluster="test"), "other_cluster", "its cluster is 'test', ours is 'prod'"),
    "unknown node": (terms("gw0"), "unknown_node", "'gw0' is not among the peers gw1, gw3"),
    "own name": (terms("gw2", peers={"gw2": frozenset()}), "own_name", "another process calls itself gw2"),
    "sorts behind": (terms("gw3"), "wrong_direction", "gw3 dialled gw2, which is for gw2 to do"),
    "another secret": (terms("gw1", secret=b"another secret.."), "wrong_secret", "the proof of gw1 does not hold"),
    "no secret": (terms("gw1", secret=None), "wrong_secret", "gw1 uses no shared secret, this node demands one"),
}


@pytest.mark.parametrize("case", REFUSED_BY_LISTENER)
def test_whoever_does_not_belong_learns_nothing(case):
    stranger, reason, detail = REFUSED_BY_LISTENER[case]
    ended = converse(dialler(stranger), listener())
    assert ended.listener.reason == reason
    assert detail in ended.listener.detail
    assert ended.listener.node == stranger.node
    assert ended.to_dialler == [wire.encode(Challenge(LISTENER_NONCE))]  # and then the connection is closed


def test_a_secret_that_only_the_dialler_has_is_told_in_the_log():
    ended = converse(dialler(), listener(terms("gw2", secret=None)))
    assert ended.listener.reason == "wrong_secret"
    assert ended.listener.detail == "gw1 uses a shared secret, this node has none"


def test_a_url_that_leads_to_another_node_is_noticed_at_both_ends():
    ended = converse(dialler(peer="gw3"), listener())
    assert ended.listener.reason == "wrong_node"
    assert "gw1 means to talk to 'gw3' and reached gw2" in ended.listener.detail
    assert met_by_dialler(terms("gw3")).reason == "wrong_node"


def met_by_dialler(own, secret=SECRET, channel=None, nonce=LISTENER_NONCE, role=b"listener"):
    """What the dialler makes of a listener that is not bound by our code: it answers with any hello it likes."""
    machine = dialler(channel=channel)
    step = machine.receive(wire.encode(Challenge(LISTENER_NONCE)))
    theirs = wire.decode(step.send)
    packed = wire.encode_hello(
        wire.Hello(own.node, "gw1", own.cluster, own.oldest, own.newest, own.store_id, own.boot, 0, nonce)
    )
    proof = handshake._proof(secret, role, (CERTIFICATE, LISTENER_NONCE, theirs.hello, packed))
    step = machine.receive(wire.encode(Introduction(packed, proof)))
    assert not step.send
    return step.outcome


def test_the_dialler_refuses_a_listener_that_is_not_whom_it_dialled():
    assert isinstance(converse(dialler(), listener()).dialler, Agreed)
    assert met_by_dialler(terms("gw3")).reason == "wrong_node"
    assert met_by_dialler(terms("gw1")).reason == "own_name"
    assert met_by_dialler(terms("gw2", cluster="test")).reason == "other_cluster"
    assert met_by_dialler(terms("gw2"), secret=b"another").reason == "wrong_secret"
    assert met_by_dialler(terms("gw2"), secret=None).reason == "wrong_secret"
    assert met_by_dialler(terms("gw2"), nonce=b"short").reason == "not_a_handshake"
    assert met_by_dialler(terms("gw2", oldest=8, newest=9)).reason == "no_common_version"


def test_the_listeners_proof_is_not_the_diallers_sent_back():
    assert met_by_dialler(terms("gw2"), role=b"dialler").reason == "wrong_secret"


def test_a_man_in_the_middle_who_shows_his_own_certificate_is_noticed():
    ended = converse(dialler(channel=Channel(b"m" * 32)), listener())
    assert ended.listener.reason == "wrong_secret"
    assert "somebody stands between" in ended.listener.detail
    assert met_by_dialler(terms("gw2"), channel=Channel(b"m" * 32)).reason == "wrong_secret"


def test_an_introduction_cannot_be_used_twice():
    first = converse(dialler(), listener())
    again = ListenerHandshake(terms("gw2"), Channel(CERTIFICATE), b"another nonce of thirty-two byte")
    again.opening()
    assert again.receive(first.to_listener[0]).outcome.reason == "wrong_secret"


@pytest.mark.parametrize("name", ["gw1", "10.0.0.1"])
def test_a_certificate_names_the_node_or_its_host(name):
    ended = converse(dialler(), listener(channel=Channel(CERTIFICATE, frozenset({name, "other"}))))
    assert isinstance(ended.listener, Agreed)


@pytest.mark.parametrize("names", [{"gw3"}, {"10.0.0.3", "gw"}, {"*"}, {"*.example"}, set()])
def test_a_certificate_of_another_node_is_refused(names):
    ended = converse(dialler(), listener(channel=Channel(CERTIFICATE, frozenset(names))))
    assert ended.listener.reason == "certificate_names_another"
    assert "the certificate of gw1 must name 10.0.0.1 or gw1" in ended.listener.detail
    met = met_by_dialler(terms("gw2"), channel=Channel(CERTIFICATE, frozenset(names)))
    assert met.reason == "certificate_names_another"


def test_nothing_is_proven_before_the_proof():
    listening = listener()
    dialling = dialler()
    step = dialling.receive(listening.opening())
    assert not step.proven
    step = listening.receive(step.send)
    assert step.proven
    assert step.outcome is None  # not before the dialler is ready
    step = dialling.receive(step.send)
    assert step.proven
    assert isinstance(step.outcome, Agreed)
    assert isinstance(listening.receive(step.send).outcome, Agreed)


OUT_OF_TURN = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    wire.encode(Ready()),
    wire.encode(Introduction(b"", b"")),
    wire.encode(Introduction(b"\xc0", b"p" * 32)),
    wire.encode(Introduction(b"x" * 5000, b"")),
    b"\x93\x66" + b"\xc4\x00" * 2 + b"\x91" * 4000,
    wire.encode(Challenge(b"short")),
]


@pytest.mark.parametrize("data", OUT_OF_TURN, ids=range(len(OUT_OF_TURN)))
@pytest.mark.parametrize("make", [listener, dialler])
def test_anything_else_is_no_handshake(make, data):
    machine = make()
    if make is listener:
        machine.opening()
    step = machine.receive(data)
    assert step.outcome.reason == "not_a_handshake"
    assert step.send == b""
    assert not step.proven


def test_a_refusal_is_for_good():
    listening = listener()
    listening.opening()
    introduction = dialler().receive(wire.encode(Challenge(LISTENER_NONCE))).send
    assert listening.receive(b"junk").outcome.reason == "not_a_handshake"
    assert listening.receive(introduction).outcome.reason == "not_a_handshake"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_any_bytes_give_a_refusal_and_never_an_error(messages):
    for machine in (dialler(), listener()):
        if isinstance(machine, ListenerHandshake):
            machine.opening()
        for data in messages:
            step = machine.receive(data)
            assert isinstance(step.outcome, Refused)
            assert not step.send


@given(st.data())
def test_a_changed_byte_anywhere_in_an_introduction_is_noticed(data):
    listening, dialling = listener(), dialler()
    to_listener = dialling.receive(listening.opening()).send
    which = data.draw(st.sampled_from(["to listener", "to dialler"]))

    def tampered(message):
        at = data.draw(st.integers(0, len(message) - 1))
        return message[:at] + bytes([message[at] ^ data.draw(st.integers(1, 255))]) + message[at + 1 :]

    if which == "to listener":
        assert isinstance(listening.receive(tampered(to_listener)).outcome, Refused)
    else:
        to_dialler = listening.receive(to_listener).send
        assert isinstance(dialling.receive(tampered(to_dialler)).outcome, Refused)


def test_fields_of_a_later_version_are_passed_over_and_covered_by_the_proof():
    listening = listener()
    listening.opening()
    fields = msgspec.msgpack.decode(dialler()._packed)
    packed = msgspec.msgpack.encode([*fields, "later", {"x": 1}])
    proof = handshake._proof(SECRET, b"dialler", (CERTIFICATE, LISTENER_NONCE, packed))
    step = listening.receive(wire.encode(Introduction(packed, proof)))
    assert step.proven
    assert step.outcome is None


def test_the_terms_do_not_show_the_secret():
    assert SECRET.decode() not in repr(terms("gw1"))
