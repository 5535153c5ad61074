"""The witness of a pair: what it lends, and to whom, whatever a network does to the datagrams."""

import random

import pytest
from attrs import define

from dlrproxy.modes import witness as w
from dlrproxy.modes.witness import Borrower, Verdict, Wish, Witness

SECRET = b"a secret of some length"
LEASE_S = 8.0
FENCE_S = 6.0


class Nonces:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return self.count.to_bytes(w.NONCE_SIZE)


class Asking:
    """A witness that started long ago, and nodes that ask it without a network."""

    def __init__(self, lease_s=LEASE_S):
        self.fresh = Nonces()
        self.witness = Witness(SECRET, lease_s, -1000.0)
        self.nodes = {name: Borrower(SECRET, "a+b", name, least_s=FENCE_S + 1) for name in "ab"}

    def ask(self, name, now, wish=Wish.BORROW):
        for _ in range(2):
            request = self.nodes[name].request(wish, self.fresh())
            verdict = self.nodes[name].answered(self.witness.answer(request, self.fresh(), now))
            if verdict is not Verdict.AGAIN:
                break
        return verdict


def test_it_lends_itself_to_one_node_at_a_time():
    asking = Asking()
    assert asking.ask("a", 0.0) is Verdict.LENT
    assert asking.ask("b", 1.0) is Verdict.REFUSED
    assert asking.nodes["b"].refused == "a has it"
    assert asking.ask("a", 5.0) is Verdict.LENT
    assert asking.ask("b", 5.0 + LEASE_S - 0.1) is Verdict.REFUSED
    assert asking.ask("b", 5.0 + LEASE_S) is Verdict.LENT
    assert asking.ask("a", 5.0 + LEASE_S) is Verdict.REFUSED


def test_pairs_do_not_get_in_each_others_way():
    asking = Asking()
    asking.nodes["c"] = Borrower(SECRET, "c+d", "c", least_s=1.0)
    assert [asking.ask(name, 0.0) for name in "ac"] == [Verdict.LENT, Verdict.LENT]


def test_what_is_given_back_is_lent_at_once():
    asking = Asking()
    asking.ask("a", 0.0)
    assert asking.ask("b", 1.0, Wish.GIVE_BACK) is Verdict.GIVEN_BACK  # not what it has
    assert asking.ask("b", 1.0) is Verdict.REFUSED
    assert asking.ask("a", 2.0, Wish.GIVE_BACK) is Verdict.GIVEN_BACK
    assert asking.ask("b", 2.0) is Verdict.LENT


def test_after_its_start_it_lends_itself_to_nobody_for_as_long_as_an_older_lease_may_last():
    asking = Asking()
    asking.witness = Witness(SECRET, LEASE_S, 100.0)
    assert asking.ask("a", 101.0) is Verdict.REFUSED
    assert asking.nodes["a"].refused == "the witness has just started"
    assert asking.ask("a", 100.0 + LEASE_S) is Verdict.LENT


def test_a_lease_that_is_too_short_for_the_pair_is_none():
    asking = Asking(lease_s=FENCE_S)
    assert asking.ask("a", 0.0) is Verdict.REFUSED
    assert asking.nodes["a"].refused == "the witness lends for 6 s, and this pair needs 7 s"


def test_a_request_that_is_sent_again_by_somebody_else_renews_nothing():
    asking = Asking()
    asking.ask("a", 0.0)
    recorded = asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    assert asking.nodes["a"].answered(asking.witness.answer(recorded, asking.fresh(), 1.0)) is Verdict.LENT
    until = asking.witness.leases["a+b"].until
    for _ in range(3):
        asking.witness.answer(recorded, asking.fresh(), 5.0)
    assert asking.witness.leases["a+b"].until == until
    # Nor does that get in the way of the node's own next request.
    request = asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    assert asking.nodes["a"].answered(asking.witness.answer(request, asking.fresh(), 6.0)) is Verdict.LENT


def test_an_old_answer_lends_nothing():
    asking = Asking()
    asking.ask("a", 0.0)
    request = asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    old = asking.witness.answer(request, asking.fresh(), 1.0)
    assert asking.nodes["a"].answered(old) is Verdict.LENT
    assert asking.nodes["a"].answered(old) is None  # twice
    asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    assert asking.nodes["a"].answered(old) is None


def test_who_does_not_know_the_secret_gets_no_answer():
    asking = Asking()
    stranger = Borrower(b"another secret, as long", "a+b", "b", least_s=1.0)
    request = asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    answer = asking.witness.answer(request, asking.fresh(), 0.0)
    for bad in (
        stranger.request(Wish.BORROW, asking.fresh()), request[:-1], request[:10], b"", answer, request + b"\0",
        w._sealed(b"\xc1", w._REQUEST, SECRET),
        w.encode_request(w.Request(9, "a+b", "a", Wish.BORROW, bytes(16), b""), SECRET),
        w.encode_request(w.Request(1, "a+b", "a", Wish.BORROW, b"short", b""), SECRET),
        w.encode_request(w.Request(1, "a+b", "a" * 201, Wish.BORROW, bytes(16), b""), SECRET),
    ):  # fmt: skip
        assert asking.witness.answer(bad, asking.fresh(), 0.0) is None
    asking.nodes["a"].request(Wish.BORROW, asking.fresh())
    assert asking.nodes["a"].answered(request) is None  # its own request, sent back to it


def test_it_remembers_so_many_nodes_and_no_more(monkeypatch):
    monkeypatch.setattr(w, "MAX_NODES", 1)
    asking = Asking()
    assert asking.ask("a", 0.0) is Verdict.LENT
    request = asking.nodes["b"].request(Wish.BORROW, asking.fresh())
    assert asking.witness.answer(request, asking.fresh(), 0.0) is None
    assert asking.ask("a", 1.0) is Verdict.LENT


# --- any network


@define
class Node:
    name: str
    rate: float  # its clock's, against the world's
    borrower: Borrower
    lent_at: float = float("-inf")  # on its own clock
    sent_at: float = 0.0


class World:
    """A network that delays, doubles, loses and repeats what it has ever seen; a witness that is restarted."""

    def __init__(self, seed):
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.fresh = Nonces()
        self.wire = []  # (when it arrives, to whom, datagram)
        self.seen = []  # (to whom, datagram)
        self.lent = 0
        self.nodes = {
            name: Node(name, self.random.uniform(0.99, 1.01), Borrower(SECRET, "a+b", name, FENCE_S + 1))
            for name in "ab"
        }
        self.witness = Witness(SECRET, LEASE_S, 0.0)

    def send(self, to, datagram):
        self.seen.append((to, datagram))
        for _ in range(self.random.choice([0, 1, 1, 1, 2])):
            self.wire.append((self.now + self.random.expovariate(2.0), to, datagram))

    def step(self):
        what = self.random.random()
        if what < 0.01:
            self.witness = Witness(SECRET, LEASE_S, self.now)
        elif what < 0.05 and self.seen:
            self.wire.append((self.now, *self.random.choice(self.seen)))
        elif what < 0.4:
            self.ask(self.random.choice(list(self.nodes.values())))
        self.now += self.random.uniform(0.0, 0.5)
        for arrival in [each for each in self.wire if each[0] <= self.now]:
            self.wire.remove(arrival)
            self.arrive(*arrival[1:])
        self.check()

    def ask(self, node):
        wish = Wish.BORROW
        if self.random.random() < 0.1:
            node.lent_at = float("-inf")
            wish = Wish.GIVE_BACK
        node.sent_at = self.now * node.rate
        self.send("witness", node.borrower.request(wish, self.fresh()))

    def arrive(self, to, datagram):
        if to == "witness":
            answer = self.witness.answer(datagram, self.fresh(), self.now)
            if answer is not None:
                for name in self.nodes:
                    self.send(name, answer)
            return
        node = self.nodes[to]
        verdict = node.borrower.answered(datagram)
        if verdict is Verdict.LENT:
            self.lent += 1
            node.lent_at = node.sent_at

    def check(self):
        may_serve = [node.name for node in self.nodes.values() if self.now * node.rate < node.lent_at + FENCE_S]
        assert len(may_serve) < 2, f"both may serve (seed {self.seed}, at {self.now})"


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_whatever_the_network_does_one_node_may_serve_at_a_time(first):
    lent = 0
    for seed in range(first, first + 25):
        world = World(seed)
        for _ in range(800):
            world.step()
        lent += world.lent
    assert lent > 100
