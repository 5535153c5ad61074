"""A stranger on a link between nodes: `ring.handshake`, both roles."""

from collections.abc import Iterator

from protocols.peer import hello
from protocols.peer.hello import Challenge, Hello, Introduction, Ready
from ring.handshake import Agreed, Channel, DiallerHandshake, ListenerHandshake, Refused, Terms

_OWN, _PEER = "gw2", "gw1"  # gw1 dials gw2 and gw2 dials gw3: the name that sorts first dials
_SERVER = "gw3"
_NONCE = b"l" * hello.NONCE_BYTES
_LISTENER, _SECRET = 0x01, 0x02


def check(data: bytes) -> None:
    """Whatever a stranger sends, the handshake goes on or refuses; nobody is agreed with who did not prove to belong.

    The first byte holds flags: which role is played, and whether the ring has a secret (which no input can know).
    Messages follow, each behind two bytes with its length.
    """
    if not data:
        return
    flags, rest = data[0], data[1:]
    terms = _terms(b"a secret of the ring" if flags & _SECRET else None)
    machine: ListenerHandshake | DiallerHandshake
    if flags & _LISTENER:
        machine = ListenerHandshake(terms, Channel(), _NONCE)
        machine.opening()
    else:
        machine = DiallerHandshake(terms, Channel(), _NONCE, peer=_SERVER, dial=1)
    peer = _PEER if flags & _LISTENER else _SERVER
    while len(rest) >= 2:
        size = int.from_bytes(rest[:2], "big")
        message, rest = rest[2 : 2 + size], rest[2 + size :]
        step = machine.receive(message)
        if isinstance(step.outcome, Agreed):
            assert step.proven
            assert not flags & _SECRET
            _check_agreed(step.outcome, peer)
        if step.proven:
            assert not flags & _SECRET
        if step.send:
            hello.decode(step.send)
        if step.outcome is not None:
            assert isinstance(step.outcome, Agreed) or _explained(step.outcome)
            return


def _check_agreed(agreed: Agreed, peer: str) -> None:
    assert (agreed.hello.node, agreed.hello.to, agreed.hello.cluster) == (peer, _OWN, "prod")
    assert agreed.hello.oldest <= agreed.version <= agreed.hello.newest
    assert len(agreed.hello.nonce) == hello.NONCE_BYTES


def _explained(refused: Refused) -> bool:
    return bool(refused.reason and refused.detail)


def _terms(secret: bytes | None) -> Terms:
    peers = {name: frozenset({name}) for name in (_PEER, _SERVER)}
    return Terms(_OWN, "prod", b"store-id", b"boot", peers, secret)


def seeds() -> Iterator[bytes]:
    dialler = hello.encode_hello(_hello(_PEER))
    listener = hello.encode_hello(_hello(_SERVER))
    ready = hello.encode(Ready())
    for flags, messages in (
        (_LISTENER, (hello.encode(Introduction(dialler, b"")), ready)),
        (0, (hello.encode(Challenge(_NONCE)), hello.encode(Introduction(listener, b"")))),
        (_LISTENER | _SECRET, (hello.encode(Introduction(dialler, b"p" * 32)), ready)),
        (_SECRET, (hello.encode(Challenge(_NONCE)), hello.encode(Introduction(listener, b"p" * 32)))),
        (_LISTENER, (hello.encode(Introduction(hello.encode_hello(_hello(_PEER, oldest=7, newest=9)), b"")),)),
        (_LISTENER, (ready,)),
    ):
        yield bytes((flags,)) + b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def _hello(node: str, oldest: int = 1, newest: int = 1) -> Hello:
    return Hello(node, _OWN, "prod", oldest, newest, b"store-id", b"boot", 3, b"n" * hello.NONCE_BYTES)
