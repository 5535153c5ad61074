"""The operator's view of who is bound, and the choice of a bind for a report."""

from collections import deque
from collections.abc import Sequence

from dlrproxy.simulator.options import Spread
from dlrproxy.simulator.stream import SmppStream
from protocols.smpp import constants as c


class Delivery:
    """A report or MO on its way to a gateway, over as many attempts as it takes."""

    __slots__ = (
        "account", "attempts", "before", "body", "choice", "following", "last", "number", "origin", "settled", "spread"
    )  # fmt: skip

    def __init__(
        self, number: int, account: "Account", body: bytes, origin: "Bind | None", spread: Spread, choice: float
    ) -> None:
        self.number = number
        self.account = account
        self.body = body
        self.origin = origin
        self.spread = spread
        self.choice = choice
        self.attempts = 0
        self.last: Bind | None = None  # where it was sent last
        self.settled = False  # accepted by the peer, or abandoned
        self.before: Delivery | None = None  # the message's report before this one
        self.following: Delivery | None = None  # the one that is due, and waits for this one to be settled


class Bind:
    """One session. Before its bind request it has no account and no command."""

    __slots__ = (
        "account", "command", "host", "late", "live", "name", "node", "sequence", "stream", "tlvs", "unanswered",
        "waiting",
    )  # fmt: skip

    def __init__(self, name: str, host: str, stream: SmppStream) -> None:
        self.name = name
        self.host = host
        self.stream = stream
        self.account: Account | None = None
        self.command = 0
        self.node = ""
        self.tlvs = True  # from interface_version 0x34 on
        self.live = False
        self.sequence = 0
        self.unanswered: dict[int, tuple[Delivery, float]] = {}  # by sequence number, with when to give up waiting
        self.late: dict[int, Delivery] = {}  # given up waiting for; the answer may still come
        self.waiting: deque[Delivery] = deque()  # for room in the window

    @property
    def submits(self) -> bool:
        return self.live and self.command in (c.BIND_TRANSMITTER, c.BIND_TRANSCEIVER)

    @property
    def receives(self) -> bool:
        return self.live and self.command in (c.BIND_RECEIVER, c.BIND_TRANSCEIVER)

    def next_sequence(self) -> int:
        self.sequence = self.sequence % 0x7FFFFFFF + 1
        return self.sequence


class Account:
    """A system_id, its binds in the order in which they came, and what no bind is there for."""

    __slots__ = ("binds", "receivers", "stranded", "system_id", "turn")

    def __init__(self, system_id: str) -> None:
        self.system_id = system_id
        self.binds: list[Bind] = []
        self.receivers: list[Bind] = []
        self.stranded: deque[Delivery] = deque()
        self.turn = 0


def choose(spread: Spread, receivers: Sequence[Bind], origin: Bind | None, choice: float, turn: int) -> Bind:
    """The bind for a report on a message that `origin` submitted; see Spread. `receivers` is not empty.

    `choice` in [0, 1) decides where several binds come into question, `turn` which one's turn it is.
    """
    if spread is Spread.ROUND_ROBIN:
        return receivers[turn % len(receivers)]
    if spread is Spread.RANDOM or origin is None:
        return receivers[int(choice * len(receivers))]
    if spread is Spread.SAME:
        if origin.receives:
            return origin
        kin = [bind for bind in receivers if bind.node == origin.node] or receivers
    else:
        kin = (
            [bind for bind in receivers if bind.node != origin.node]
            or [bind for bind in receivers if bind is not origin]
            or receivers
        )
    return kin[int(choice * len(kin))]
