"""The witness of pairs: it lends itself to one node of each at a time. Pure: datagrams and times in, datagrams out.

    node                                        witness
    Request(nonce, challenge unknown)    -->
                                         <--    Answer(nonce, AGAIN, challenge)
    Request(nonce, that challenge)       -->    the challenge is spent; lent for `lease_s` from now, or not
                                         <--    Answer(nonce, LENT or REFUSED, the next challenge)

Both sides prove with the shared secret that they know it. The witness takes each challenge once, so a request that was
recorded and is sent again renews nothing; the node takes an answer only to the request that it has just sent, so an old
answer lends nothing. A challenge that was not spent stays: whoever sends old requests does not get in the way of new
ones. What is lost is sent again.

A node counts the lease from when it *sent* its request, the witness from when it came: so the node lets go first, and
clocks need not agree. The witness keeps nothing: for one `lease_s` after its start it lends itself to nobody, since
somebody may have a lease from before.
"""

import hmac
from enum import IntEnum
from typing import Final

import attrs
import msgspec

from protocols.peer.frames import UNDECODABLE

VERSION: Final = 1
NONCE_SIZE: Final = 16
MAX_DATAGRAM: Final = 1200  # passes every link in one piece
MAX_NAME: Final = 200
MAX_NODES: Final = 10_000  # that are remembered; more than that have no business with one witness

_MAC_SIZE: Final = 32
# A request can never be taken for an answer.
_REQUEST: Final = b"dlrproxy witness request"
_ANSWER: Final = b"dlrproxy witness answer"


class Wish(IntEnum):
    BORROW = 1
    GIVE_BACK = 2


class Verdict(IntEnum):
    LENT = 1
    REFUSED = 2
    AGAIN = 3  # with the challenge of this answer
    GIVEN_BACK = 4


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    version: int
    pair: str
    node: str
    wish: Wish
    nonce: bytes
    challenge: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    nonce: bytes  # of the request
    verdict: Verdict
    challenge: bytes  # for the next request
    lease_s: float
    holder: str = ""  # REFUSED: who has it; empty: the witness has just started
    version: int = VERSION


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def encode_request(request: Request, secret: bytes) -> bytes:
    return _sealed(_encoder.encode(request), _REQUEST, secret)


def encode_answer(answer: Answer, secret: bytes) -> bytes:
    return _sealed(_encoder.encode(answer), _ANSWER, secret)


def decode_request(datagram: bytes, secret: bytes) -> Request | None:
    """None: it is not from one who knows the secret, or of another version."""
    body = _opened(datagram, _REQUEST, secret)
    if body is None:
        return None
    try:
        request = _requests.decode(body)
    except UNDECODABLE:
        return None
    fits = len(request.nonce) == NONCE_SIZE and max(len(request.pair), len(request.node)) <= MAX_NAME
    return request if request.version == VERSION and fits else None


def decode_answer(datagram: bytes, secret: bytes) -> Answer | None:
    """None: likewise."""
    body = _opened(datagram, _ANSWER, secret)
    if body is None:
        return None
    try:
        return _answers.decode(body)
    except UNDECODABLE:
        return None


def _sealed(body: bytes, purpose: bytes, secret: bytes) -> bytes:
    return _mac(body, purpose, secret) + body


def _opened(datagram: bytes, purpose: bytes, secret: bytes) -> bytes | None:
    mac, body = datagram[:_MAC_SIZE], datagram[_MAC_SIZE:]
    return body if hmac.compare_digest(mac, _mac(body, purpose, secret)) else None


def _mac(body: bytes, purpose: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, purpose + b"\0" + body, "sha256")


@attrs.frozen
class Lease:
    holder: str
    until: float


class Witness:
    """Times are seconds of one monotonic clock."""

    def __init__(self, secret: bytes, lease_s: float, now: float) -> None:
        self.lease_s = lease_s
        self._secret = secret
        self._silent_until = now + lease_s
        self.leases: dict[str, Lease] = {}  # by pair
        self._challenges: dict[tuple[str, str], bytes] = {}  # by pair and node; not spent

    def answer(self, datagram: bytes, fresh: bytes, now: float) -> bytes | None:
        """What goes back to the sender; None: nothing. `fresh` is a challenge that was never given before."""
        request = decode_request(datagram, self._secret)
        if request is None:
            return None
        node = request.pair, request.node
        known = self._challenges.get(node)
        if known is None and len(self._challenges) >= MAX_NODES:
            return None
        if known is None or not hmac.compare_digest(known, request.challenge):
            self._challenges[node] = known or fresh
            return self._answer(request, Verdict.AGAIN)
        self._challenges[node] = fresh
        if request.wish is Wish.GIVE_BACK:
            self._give_back(request)
            return self._answer(request, Verdict.GIVEN_BACK)
        refused_for = self._in_the_way(request, now)
        if refused_for is not None:
            return self._answer(request, Verdict.REFUSED, refused_for)
        self.leases[request.pair] = Lease(request.node, now + self.lease_s)
        return self._answer(request, Verdict.LENT)

    def _in_the_way(self, request: Request, now: float) -> str | None:
        """Who has it, "" for one whom a restart has made it forget, or None: nobody else."""
        lease = self.leases.get(request.pair)
        if lease is not None and lease.holder != request.node and now < lease.until:
            return lease.holder
        if lease is None and now < self._silent_until:
            return ""
        return None

    def _give_back(self, request: Request) -> None:
        """It has let go already: the other one may have it at once."""
        lease = self.leases.get(request.pair)
        if lease is not None and lease.holder == request.node:
            self.leases[request.pair] = Lease("", float("-inf"))

    def _answer(self, request: Request, verdict: Verdict, holder: str = "") -> bytes:
        challenge = self._challenges[request.pair, request.node]
        return encode_answer(Answer(request.nonce, verdict, challenge, self.lease_s, holder), self._secret)


class Borrower:
    """A node's side: what to send, and whether an answer lends. One request is under way at a time."""

    def __init__(self, secret: bytes, pair: str, node: str, least_s: float) -> None:
        """A lease shorter than `least_s` is none: the node would not have let go in time."""
        self._secret = secret
        self._pair = pair
        self._node = node
        self._least_s = least_s
        self._challenge = b""
        self._nonce: bytes | None = None  # of the request under way
        self.refused = ""  # why the last request was; for people

    def request(self, wish: Wish, nonce: bytes) -> bytes:
        """`nonce` was never used before."""
        self._nonce = nonce
        return encode_request(Request(VERSION, self._pair, self._node, wish, nonce, self._challenge), self._secret)

    def answered(self, datagram: bytes) -> Verdict | None:
        """None: it is not the answer to the request under way. AGAIN: send another request at once."""
        answer = decode_answer(datagram, self._secret)
        if answer is None or answer.nonce != self._nonce:
            return None
        self._nonce = None
        self._challenge = answer.challenge
        if answer.verdict is Verdict.LENT and answer.lease_s < self._least_s:
            self.refused = f"the witness lends for {answer.lease_s:g} s, and this pair needs {self._least_s:g} s"
            return Verdict.REFUSED
        if answer.verdict is Verdict.REFUSED:
            self.refused = f"{answer.holder} has it" if answer.holder else "the witness has just started"
        return answer.verdict
