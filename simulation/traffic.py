"""What the operator and the gateways mean to do in one seed: every MT, report and MO, drawn beforehand."""

import random
from collections.abc import Sequence
from typing import Final, Literal

from attrs import frozen

from protocols.peer.frames import PartOf
from ring.coordinator import name_of

OPERATOR: Final = "acme"


@frozen
class Arrival:
    """One deliver_sm of the operator's.

    Its trace says all that a machine must not: `m7-f` is the final report of message 7, `m7-i1` an intermediate one,
    `s3/2` a part of what subscriber s3 has sent; what follows a `#` counts how often the operator has sent it again.
    """

    trace: str
    kind: Literal["dlr", "mo"]
    message_id: bytes = b""
    destination: bytes = b""
    final: bool = False
    designated: str = ""
    part: PartOf | None = None


def is_final(trace: str) -> bool:
    return trace.partition("#")[0].endswith("-f")


def sender_of(trace: str) -> str:
    """The subscriber that has sent this MO."""
    return trace.partition("/")[0]


@frozen
class Submission:
    """An MT of a gateway: what the operator answers it with, and when."""

    at: float
    node: str
    message_id: bytes
    destination: bytes


@frozen
class Sending:
    """The operator sends it to `node`, or to another one that it has a bind with."""

    at: float
    node: str
    arrival: Arrival
    owner: str  # the node whose gateway it is for; empty: nobody's, or (an MO) anybody's


@frozen
class Traffic:
    submissions: Sequence[Submission]
    sendings: Sequence[Sending]
    conversations: frozenset[tuple[str, str]]  # node and subscriber


@frozen
class Mix:
    """How much there is of what, in one seed."""

    messages: tuple[int, int] = (3, 20)
    mo: float = 0.3  # of all
    parts: float = 0.55  # of the MO: concatenated
    nobodys: float = 0.1  # of the reports
    inexact: float = 0.15  # of the messages: the report spells the id in another way
    intermediates: float = 0.3  # of the messages: one or two before the final one
    after_s: tuple[float, float] = (0.2, 6.0)  # the response, comes the first report; but half come together with it
    scattered: float = 0.2  # of the messages: each report comes in at a node of its own


def draw(
    choose: random.Random, mix: Mix, rings: Sequence[Sequence[str]], gateways: dict[str, str], lasts_s: float
) -> Traffic:
    """`rings`: the nodes of one ring, or of two that are joined; an MO stays in one, a report comes in anywhere.

    `gateways`: the gateway of each node.
    """
    every = [node for ring in rings for node in ring]
    submissions: list[Submission] = []
    sendings: list[Sending] = []
    conversations: set[tuple[str, str]] = set()
    for number in range(choose.randint(*mix.messages)):
        at = choose.uniform(0.0, lasts_s)
        if choose.random() < mix.mo:
            sender = f"s{number}"
            nodes = choose.choice(rings)
            if choose.random() < 0.3:
                conversations.add((choose.choice(nodes), sender))
            sendings.extend(_mo(choose, mix, sender, at, nodes, gateways))
        else:
            owner = "" if choose.random() < mix.nobodys else choose.choice(every)
            response_id, reported = _ids(choose, number, mix)
            destination = b"4479%05d" % number
            if owner:
                submissions.append(Submission(at, owner, response_id, destination))
            sendings.extend(_reports(choose, mix, number, at, owner, reported, destination, every))
    return Traffic(submissions, sendings, frozenset(conversations))


def _ids(choose: random.Random, number: int, mix: Mix) -> tuple[bytes, bytes]:
    """As the response spells it, and as the reports do."""
    value = 0xA0000000 + number * 0x1357
    if choose.random() < mix.inexact:
        return b"%x" % value, b"%d" % value
    return (b"%x" % value,) * 2


def _reports(
    choose: random.Random,
    mix: Mix,
    number: int,
    submitted_at: float,
    owner: str,
    message_id: bytes,
    destination: bytes,
    nodes: Sequence[str],
) -> list[Sending]:
    names = [f"m{number}-f"]
    if choose.random() < mix.intermediates:
        names = [*(f"m{number}-i{count}" for count in range(choose.randint(1, 2))), *names]
        if choose.random() < 0.1:
            names.reverse()  # the operator itself has them out of order
    scattered = choose.random() < mix.scattered
    node = choose.choice(nodes)
    at = submitted_at + choose.choice((choose.uniform(-0.2, 0.2), choose.uniform(*mix.after_s)))
    found = []
    for name in names:
        arrival = Arrival(name, "dlr", message_id, destination, is_final(name))
        found.append(Sending(max(at, 0.0), choose.choice(nodes) if scattered else node, arrival, owner))
        at += choose.choice((0.0, choose.uniform(0.0, 0.5), choose.uniform(0.0, 10.0)))
    return found


def _mo(
    choose: random.Random, mix: Mix, sender: str, at: float, nodes: Sequence[str], gateways: dict[str, str]
) -> list[Sending]:
    owner = choose.choice(nodes)
    in_parts = choose.random() < mix.parts
    if not in_parts and choose.random() < 0.5:
        arrival = Arrival(f"{sender}/0", "mo", b"", sender.encode(), designated=gateways[owner])
        return [Sending(at, choose.choice(nodes), arrival, owner)]
    if not in_parts:
        return [Sending(at, choose.choice(nodes), Arrival(f"{sender}/0", "mo", b"", sender.encode()), "")]
    message = name_of(OPERATOR, sender.encode())
    rule = choose.choice(("", "", gateways[owner]))
    keyword = choose.random() < 0.4  # only the first part says which rule applies
    parts = []
    for count in range(choose.randint(2, 4)):
        known = not (keyword and count)
        part = PartOf(message, rule if known else "", known)
        parts.append(Arrival(f"{sender}/{count}", "mo", b"", sender.encode(), part=part))
    choose.shuffle(parts)
    return [Sending(at + choose.uniform(0.0, 3.0), choose.choice(nodes), part, "") for part in parts]
