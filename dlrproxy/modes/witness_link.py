"""The witness over UDP: the server's loop, and a node's questions."""

import secrets
from typing import Final, Protocol

import trio

from dlrproxy.config import Config
from dlrproxy.logs import logger
from dlrproxy.modes.cluster import RELEASE_S
from dlrproxy.modes.witness import MAX_DATAGRAM, NONCE_SIZE, Borrower, Verdict, Wish, Witness

TRIES: Final = 3  # of one question, each waited for a third of its time
_MOST_AGAIN: Final = 2  # a challenge is learned by one; the second is for a witness that was restarted in between


class Lender(Protocol):
    """What the driver of a pair asks."""

    @property
    def refused(self) -> str:
        """Why the last request was."""

    async def borrow(self, within_s: float) -> float | None:
        """When the request that was granted was sent, on trio's clock; None: none was within that time."""

    async def give_back(self, within_s: float) -> bool:
        """Whether the witness has heard of it. The node must not count on the lease any more."""


class RemoteWitness:
    """One at an address, for one node. A `Lender`. Used by one task at a time."""

    def __init__(self, host: str, port: int, borrower: Borrower) -> None:
        self._host = host
        self._port = port
        self._borrower = borrower
        self.refused = "it has not been asked"

    async def borrow(self, within_s: float) -> float | None:
        verdict, sent_at = await self._ask(Wish.BORROW, within_s)
        return sent_at if verdict is Verdict.LENT else None

    async def give_back(self, within_s: float) -> bool:
        return (await self._ask(Wish.GIVE_BACK, within_s))[0] is Verdict.GIVEN_BACK

    async def _ask(self, wish: Wish, within_s: float) -> tuple[Verdict | None, float]:
        """The verdict, and when its request was sent."""
        self.refused = f"the witness at {self._host}:{self._port} does not answer"
        for _ in range(TRIES):
            with trio.move_on_after(within_s / TRIES):
                try:
                    return await self._try(wish)
                except OSError as error:
                    self.refused = f"the witness at {self._host}:{self._port} cannot be reached: {error}"
                    await trio.sleep(within_s / TRIES)  # until this try's time is up
        return None, 0.0

    async def _try(self, wish: Wish) -> tuple[Verdict, float]:
        """Raises OSError."""
        (family, kind, protocol, _, address), *_ = await trio.socket.getaddrinfo(
            self._host, self._port, type=trio.socket.SOCK_DGRAM
        )
        with trio.socket.socket(family, kind, protocol) as socket:
            await socket.connect(address)  # only its datagrams are read
            for _ in range(_MOST_AGAIN):
                sent_at = trio.current_time()
                await socket.send(self._borrower.request(wish, secrets.token_bytes(NONCE_SIZE)))
                verdict = await self._answer(socket)
                if verdict is not Verdict.AGAIN:
                    break
        self.refused = self._borrower.refused if verdict is Verdict.REFUSED else ""
        return verdict, sent_at

    async def _answer(self, socket: trio.socket.SocketType) -> Verdict:
        """To the request just sent; others are passed over."""
        while True:
            verdict = self._borrower.answered(await socket.recv(MAX_DATAGRAM))
            if verdict is not None:
                return verdict


def witness_of(config: Config) -> RemoteWitness | None:
    """The one that a node of a pair is told to ask; None: it is told of none."""
    pair = config.pair
    if pair is None or pair.witness is None or pair.witness_secret is None:
        return None
    name = "+".join(sorted(config.node_names))
    # The binds of a node that has to let go are released by then, and the other one may begin.
    least_s = pair.fence_after_s + RELEASE_S
    borrower = Borrower(pair.witness_secret.reveal(), name, config.node.name, least_s)
    return RemoteWitness(pair.witness.host, pair.witness.port, borrower)


async def serve(
    witness: Witness, host: str, port: int, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer until cancelled; starts with the port. Raises OSError where the address cannot be had."""
    log = logger("witness")
    (family, kind, protocol, _, address), *_ = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_DGRAM, flags=trio.socket.AI_PASSIVE
    )
    with trio.socket.socket(family, kind, protocol) as socket:
        await socket.bind(address)
        port = socket.getsockname()[1]
        log.info("witness.listening", host=host, port=port, lease_s=witness.lease_s)
        task_status.started(port)
        holders: dict[str, str] = {}
        while True:
            datagram, sender = await socket.recvfrom(MAX_DATAGRAM)
            answer = witness.answer(datagram, secrets.token_bytes(NONCE_SIZE), trio.current_time())
            if answer is None:
                log.debug("witness.ignored", sender=sender[0])
                continue
            for pair, lease in witness.leases.items():
                if holders.get(pair) != lease.holder:
                    holders[pair] = lease.holder
                    log.info("witness.lent", pair=pair, to=lease.holder or "nobody")
            try:
                await socket.sendto(answer, sender)
            except OSError as error:  # no way back to it now; it asks again
                log.debug("witness.unanswered", sender=sender[0], error=str(error))
