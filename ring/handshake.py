"""Who is at the other end of a link: a machine for each role, without I/O, clock or randomness (nonces are given).

    state      listener                                       dialler
    opening    sends Challenge                                waits for Challenge, sends its Introduction
    waiting    waits for Introduction, sends its own          waits for Introduction, sends Ready: agreed
    answered   waits for Ready: agreed
    closed     after any refusal

What a peer must be: a node of the table, of this cluster, at the other end of the link that this node meant (the name
that sorts first dials), with a certificate that names it (mutual TLS) or the proof that it knows the ring's secret,
and it must speak a common version. A proof is HMAC-SHA256 under the secret over the role, the fingerprint of the
server's TLS certificate, the listener's nonce and both hellos as they were sent: it cannot be replayed (nonces),
reflected (roles), used for another node (names) or version range, nor relayed by a man in the middle, who would have to
show a certificate with another fingerprint (channel binding in the manner of tls-server-end-point, RFC 5929 4.1).

A refusal carries the details for our own log. Nothing of it goes to the other side, which sees the connection closed,
with one exception: a proven peer of another version gets the introduction, so that both logs can name both versions.
"""

import hashlib
import hmac
from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal

import attrs

from protocols.peer import hello as wire
from protocols.peer.frames import OLDEST_VERSION, VERSION
from protocols.peer.hello import Challenge, Hello, HelloError, Introduction, Ready

Reason = Literal[
    "not_a_handshake",
    "other_cluster",
    "unknown_node",
    "own_name",
    "wrong_node",
    "wrong_direction",
    "certificate_names_another",
    "wrong_secret",
    "no_common_version",
]

_LABEL: Final = b"dlrproxy ring handshake 1"


@attrs.frozen
class Refused:
    """The link must be closed. `detail` is for our log only."""

    reason: Reason
    detail: str
    node: str | None = None  # the name that the other side gave; unproven unless the reason is no_common_version


@attrs.frozen
class Agreed:
    """The other side is who it says, and both speak `version`."""

    hello: Hello
    version: int


@attrs.frozen
class Step:
    """What to do after a message: send `send` if it is not empty, then act on the outcome if there is one.

    `proven` is set from the step on at which the other side is known; from then on it may send more than a stranger.
    """

    send: bytes = b""
    proven: bool = False
    outcome: Agreed | Refused | None = None


@attrs.frozen
class Terms:
    """What this node says of itself and asks of a peer, on every link alike."""

    node: str
    cluster: str
    store_id: bytes
    boot: bytes
    peers: Mapping[str, frozenset[str]]
    """For each other node the names of which its certificate must carry one: its own, or its url's host."""
    secret: bytes | None = attrs.field(default=None, repr=False)
    oldest: int = OLDEST_VERSION
    newest: int = VERSION
    capabilities: tuple[str, ...] = ()
    release: str = ""


@attrs.frozen
class Channel:
    """What TLS tells about this connection."""

    fingerprint: bytes = b""  # SHA-256 of the listener's certificate; empty on a plain connection
    certificate_names: frozenset[str] | None = None  # of the verified peer's certificate; None without mutual TLS


class _State(Enum):
    OPENING = "opening"
    WAITING = "waiting"
    ANSWERED = "answered"
    CLOSED = "closed"


class _RefusalError(Exception):
    def __init__(self, reason: Reason, detail: str, node: str | None = None) -> None:
        super().__init__(detail)
        self.refused = Refused(reason, detail, node)


def dials(first: str, second: str) -> bool:
    """Whether `first` is the one who dials `second`: of two nodes the one whose name sorts first."""
    return first < second


class ListenerHandshake:
    """The accepting end. Send `opening()`, then give `receive` every message until a step has an outcome."""

    def __init__(self, terms: Terms, channel: Channel, nonce: bytes) -> None:
        self._terms = terms
        self._channel = channel
        self._nonce = nonce
        self._state = _State.OPENING
        self._agreed: Agreed | None = None

    def opening(self) -> bytes:
        self._state = _State.WAITING
        return wire.encode(Challenge(self._nonce))

    def receive(self, data: bytes) -> Step:
        """The next step. Call it no more once a step had an outcome."""
        try:
            message = _decode(data)
            match self._state, message:
                case _State.WAITING, Introduction():
                    return self._introduced(message)
                case _State.ANSWERED, Ready() if self._agreed is not None:
                    self._state = _State.CLOSED
                    return Step(proven=True, outcome=self._agreed)
                case _:
                    raise _out_of_turn(message, self._state)
        except _RefusalError as error:
            self._state = _State.CLOSED
            return Step(outcome=error.refused)

    def _introduced(self, theirs: Introduction) -> Step:
        terms = self._terms
        hello = _read_hello(theirs)
        _check_peer(hello, terms, self._channel)
        if not dials(hello.node, terms.node):
            detail = f"{hello.node} dialled {terms.node}, which is for {terms.node} to do; are the tables the same?"
            raise _RefusalError("wrong_direction", detail, hello.node)
        transcript = (self._channel.fingerprint, self._nonce, theirs.hello)
        _check_proof(theirs.proof, terms.secret, b"dialler", transcript, hello.node)
        own = _own_hello(terms, to=hello.node, dial=0, nonce=self._nonce)
        packed = wire.encode_hello(own)
        answer = Introduction(packed, _proof(terms.secret, b"listener", (*transcript, packed)))
        outcome = _agree(own, hello)
        self._state = _State.CLOSED if isinstance(outcome, Refused) else _State.ANSWERED
        self._agreed = outcome if isinstance(outcome, Agreed) else None
        return Step(wire.encode(answer), proven=True, outcome=outcome if isinstance(outcome, Refused) else None)


class DiallerHandshake:
    """The dialling end, which expects to meet `peer`. Give `receive` every message until a step has an outcome."""

    def __init__(self, terms: Terms, channel: Channel, nonce: bytes, *, peer: str, dial: int) -> None:
        self._terms = terms
        self._channel = channel
        self._peer = peer
        self._own = _own_hello(terms, to=peer, dial=dial, nonce=nonce)
        self._packed = wire.encode_hello(self._own)
        self._transcript: tuple[bytes, ...] = ()
        self._state = _State.OPENING

    def receive(self, data: bytes) -> Step:
        """The next step. Call it no more once a step had an outcome."""
        try:
            message = _decode(data)
            match self._state, message:
                case _State.OPENING, Challenge():
                    return self._challenged(message)
                case _State.WAITING, Introduction():
                    return self._introduced(message)
                case _:
                    raise _out_of_turn(message, self._state)
        except _RefusalError as error:
            self._state = _State.CLOSED
            return Step(outcome=error.refused)

    def _challenged(self, challenge: Challenge) -> Step:
        if len(challenge.nonce) != wire.NONCE_BYTES:
            raise _RefusalError("not_a_handshake", f"a nonce of {len(challenge.nonce)} bytes")
        self._transcript = (self._channel.fingerprint, challenge.nonce, self._packed)
        self._state = _State.WAITING
        return Step(wire.encode(Introduction(self._packed, _proof(self._terms.secret, b"dialler", self._transcript))))

    def _introduced(self, theirs: Introduction) -> Step:
        hello = _read_hello(theirs)
        if hello.node != self._peer:
            detail = f"dialled {self._peer} and met {hello.node or 'a node without a name'}; check that peer's url"
            raise _RefusalError("own_name" if hello.node == self._terms.node else "wrong_node", detail, hello.node)
        _check_peer(hello, self._terms, self._channel)
        transcript = (*self._transcript, theirs.hello)
        _check_proof(theirs.proof, self._terms.secret, b"listener", transcript, hello.node)
        outcome = _agree(self._own, hello)
        self._state = _State.CLOSED
        return Step(b"" if isinstance(outcome, Refused) else wire.encode(Ready()), proven=True, outcome=outcome)


def _own_hello(terms: Terms, *, to: str, dial: int, nonce: bytes) -> Hello:
    return Hello(
        node=terms.node,
        to=to,
        cluster=terms.cluster,
        oldest=terms.oldest,
        newest=terms.newest,
        store_id=terms.store_id,
        boot=terms.boot,
        dial=dial,
        nonce=nonce,
        capabilities=terms.capabilities,
        release=terms.release,
    )


def _decode(data: bytes) -> wire.Message:
    try:
        return wire.decode(data)
    except HelloError as error:
        raise _RefusalError("not_a_handshake", str(error)) from error


def _read_hello(introduction: Introduction) -> Hello:
    try:
        hello = wire.decode_hello(introduction.hello)
    except HelloError as error:
        raise _RefusalError("not_a_handshake", str(error)) from error
    if len(hello.nonce) != wire.NONCE_BYTES:
        raise _RefusalError("not_a_handshake", f"a nonce of {len(hello.nonce)} bytes")
    return hello


def _out_of_turn(message: wire.Message, state: _State) -> _RefusalError:
    return _RefusalError("not_a_handshake", f"{type(message).__name__} in state {state.value}")


def _check_peer(hello: Hello, terms: Terms, channel: Channel) -> None:
    """Everything that a peer says in its hello and that must hold, whether it proves it or not."""
    if hello.cluster != terms.cluster:
        detail = f"its cluster is {hello.cluster!r}, ours is {terms.cluster!r}"
        raise _RefusalError("other_cluster", detail, hello.node)
    if hello.node == terms.node:
        raise _RefusalError("own_name", f"another process calls itself {terms.node}", hello.node)
    if hello.node not in terms.peers:
        detail = f"{hello.node!r} is not among the peers {', '.join(sorted(terms.peers))}"
        raise _RefusalError("unknown_node", detail, hello.node)
    if hello.to != terms.node:
        detail = f"{hello.node} means to talk to {hello.to!r} and reached {terms.node}; check its url for {hello.to!r}"
        raise _RefusalError("wrong_node", detail, hello.node)
    names = channel.certificate_names
    if names is not None and not names & terms.peers[hello.node]:
        wanted = " or ".join(sorted(terms.peers[hello.node]))
        detail = f"the certificate of {hello.node} must name {wanted}; it names {', '.join(sorted(names)) or 'nobody'}"
        raise _RefusalError("certificate_names_another", detail, hello.node)


def _check_proof(given: bytes, secret: bytes | None, role: bytes, transcript: tuple[bytes, ...], node: str) -> None:
    if secret is None and given:
        raise _RefusalError("wrong_secret", f"{node} uses a shared secret, this node has none", node)
    if secret is not None and not given:
        raise _RefusalError("wrong_secret", f"{node} uses no shared secret, this node demands one", node)
    if not hmac.compare_digest(given, _proof(secret, role, transcript)):
        detail = f"the proof of {node} does not hold: it has another secret, or somebody stands between"
        raise _RefusalError("wrong_secret", detail, node)


def _proof(secret: bytes | None, role: bytes, transcript: tuple[bytes, ...]) -> bytes:
    """Empty without a secret. Every part goes in with its length, so that no two transcripts read the same."""
    if secret is None:
        return b""
    parts = (_LABEL, role, *transcript)
    return hmac.digest(secret, b"".join(len(part).to_bytes(4, "big") + part for part in parts), hashlib.sha256)


def _agree(own: Hello, theirs: Hello) -> Agreed | Refused:
    version = wire.common_version(own, theirs)
    if version is None:
        detail = (
            f"{own.node} speaks the versions {own.oldest} to {own.newest}, "
            f"{theirs.node} speaks {theirs.oldest} to {theirs.newest}"
        )
        return Refused("no_common_version", detail, theirs.node)
    return Agreed(theirs, version)
