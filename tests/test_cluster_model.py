"""Custody in a cluster while everything fails, from seeds: every step is drawn, and checked.

Processes crash between any two writes, stop and go on after they were taken over from; takeovers end half way and are
begun again by others; gateways move from node to node.
"""

import random

import pytest
from attrs import evolve
from cluster_world import CLUSTER, SETTINGS, Database, World
from msgspec.structs import replace

from protocols.smpp.constants import ESME_RSYSERR
from ring.commands import Deliver
from ring.delivery import Delivery
from ring.items import Item, State
from ring.rows import Kind
from ring.sharing import Sharing
from ring.shelf import Shelf

PATIENCE = 200  # seeds


def a_step(world, choose, count):
    """Something happens that nobody can foresee."""
    name = choose.choice(world.names)
    gateway = f"gw{choose.randrange(len(world.names))}"
    process = world.processes.get(name)
    living = [
        other
        for other, one in world.processes.items()
        if other != name and not one.stopped and other not in world.taken
    ]
    up = process is not None and not process.stopped
    match choose.randrange(17):
        case 0 | 1 if up:
            message_id = b"m%d" % count
            world.submit(message_id, gateway)
            if choose.random() < 0.3:
                world.report(name, message_id, f"m{count}-i", final=False)
            world.report(name, message_id, f"m{count}-f")
        case 2 if up:
            world.report(name, b"nobody%d" % count, f"nobody{count}")
        case 3 if up:  # its message is written a moment later
            message_id = b"late%d" % count
            world.report(name, message_id, f"late{count}")
            world.owners[f"late{count}"] = gateway
            world.submit(message_id, gateway)
        case 4 if up:
            world.mo(name, f"mo{count}", gateway if choose.random() < 0.5 else "")
        case 5:
            world.bind(name, gateway)
        case 6:
            world.unbind(name, gateway)
        case 7 if process is not None and len(world.processes) > 1:
            world.crash(name)
        case 8 if process is None:
            world.start(name)
        case 9 if up and len(living) > 0:
            world.stop(name)
        case 10 if process is not None and process.stopped:
            world.go_on(name)
        case 11 if living and not up:  # the master has not heard of it for long
            world.take_over(name, choose.choice(living))
        case 12 if up and process.at_gateway:
            world.answer(name, ESME_RSYSERR)
        case 13:
            world.advance(choose.choice((0.2, 1.5, 6.0, 15.0)))
        case 14 if up:
            world.leave(name)
        case 15 if up:
            world.stay(name)
        case 16 if up and process.pending:
            world.commit_unanswered(name)


def play(seed, policy="park"):
    choose = random.Random(seed)
    settings = evolve(SETTINGS, cluster=evolve(CLUSTER, maybe_delivered=policy))
    world = World(choose.randint(2, 4), settings)
    try:
        for count in range(choose.randint(20, 80)):
            a_step(world, choose, count)
            for _ in range(choose.randrange(12)):
                if steps := world.busy_steps():
                    choose.choice(steps)()
                world.check_now()
        world.recover(choose)
        world.check()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("policy", ["park", "deliver"])
@pytest.mark.parametrize("batch", range(5))
def test_nothing_is_lost_or_in_two_places_whatever_happens(batch, policy):
    for seed in range(batch * 40, batch * 40 + 40):
        play(seed, policy)


# --- bugs that are planted must be found


def unfenced(plant):
    """Whoever was taken over from goes on writing."""
    write = Database.write
    plant(Database, "write", lambda database, node, epoch, rows: write(database, node, database.epochs[node], rows))


def unmarked(plant):
    """A gateway gets a report before its row says so."""

    def mark(delivery, item):
        item.enter(State.DELIVERING)
        delivery._shelf.command(Deliver(item.envelope, item.gateway, item.accepted_at))

    plant(Delivery, "_mark", mark)


def heedless(plant):
    """An heir does not look whether a row says that it is being delivered."""
    take = Sharing.arrived
    plant(
        Sharing, "arrived", lambda sharing, rows, now: take(sharing, [replace(r, delivering=False) for r in rows], now)
    )


def doubling(plant):
    """What another node is given stays here as well."""
    plant(Item, "no_row", lambda item: item.row(Kind.ORIGIN))


def hasty(plant):
    """It is taken from the inbox in one commit, and written down in another."""
    write = Shelf.write

    def one_by_one(shelf, *rows, then=None):
        for row in sorted(rows, key=lambda row: row.value is not None):
            write(shelf, row)
        write(shelf, then=then)

    plant(Shelf, "write", one_by_one)


@pytest.mark.parametrize("bug", [unfenced, unmarked, heedless, doubling, hasty])
def test_a_planted_bug_is_found(bug, monkeypatch):
    def play_all():
        for seed in range(PATIENCE):
            play(seed)

    bug(monkeypatch.setattr)
    with pytest.raises(AssertionError):
        play_all()
