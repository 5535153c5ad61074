"""How a node's database server becomes the replica of the node that was promoted: a pure planner.

It is given what both servers and the disk say now (`Seen`), and answers with the next step, with a refusal, or with
`Done`. Whoever asks carries the step out and asks again; each step may be interrupted anywhere and done again. Nothing
is remembered in between, so that a run that was cut short goes on where it stood.

    own server                                   the steps that lead to Done
    is new                                       MakeReadOnly, Replicate
    has nothing that the primary has not         MakeReadOnly, Replicate
    has transactions that the primary has not    MakeReadOnly, Merge, Fetch, Prepare, SwapIn, MakeReadOnly, Replicate
    cannot be read any more, and is given up     Fetch, Prepare, SwapIn, MakeReadOnly, Replicate

**Merge** comes before anything of the old server is touched: what only it has is written to a file and to the primary
(`merging.py`). A transaction that nobody was told of, the tail that no replica had acknowledged, is merged as well: a
report may come twice then, and none is lost.

**The clone** is fetched into a directory of its own beside the data directory, made ready there, and swapped in by two
renames, with the server stopped. A mark inside says at which position it is; it goes before the server replicates from
there. The old data directory stays, under another name.
"""

from enum import StrEnum
from typing import Final

import attrs

from dlrproxy.modes.pair import Role


class Copy(StrEnum):
    """The directory that a clone is made in."""

    NONE = "none"
    PARTIAL = "partial"  # what was begun and not finished, or anything else
    FETCHED = "fetched"
    PREPARED = "prepared"


@attrs.frozen(kw_only=True)
class OwnServer:
    """What the database server of this node says."""

    writable: bool
    epoch: int = 0  # 0: it has no row of the pair
    holder: str = ""
    position: str = ""  # all that it has written or applied (GTID); "": nothing
    source: str = ""  # "host:port" that it is configured to replicate from; "": nobody
    running: bool = False  # both threads of that replication
    error: str = ""  # why it does not
    beyond_repair: bool = False  # and it never will, from where it stands


@attrs.frozen(kw_only=True)
class Primary:
    """What the database server of the other node says."""

    writable: bool
    epoch: int
    holder: str
    replicates: bool


@attrs.frozen(kw_only=True)
class Seen:
    """All that the next step is decided from."""

    me: str
    peer: str  # the other node's name
    source: str  # "host:port" of its database server
    role: Role | None  # of this node's process; None: it does not run
    own: OwnServer | None  # None: it cannot be reached
    own_error: str = ""  # why
    primary: Primary | None
    primary_error: str = ""
    diverged: bool = False  # the own server has transactions that the primary has not
    merged: bool = False  # the primary has the rows of those already
    copy: Copy = Copy.NONE
    data: bool = True  # there is a data directory
    cloned: bool = False  # it is a clone that has not begun to replicate
    missing: tuple[str, ...] = ()  # keys of the configuration that a clone needs and that are not set


@attrs.frozen(kw_only=True)
class Wishes:
    """What the person who runs it allows."""

    manage: bool  # pair.manage_database
    clone: bool = False  # by a clone, needed or not
    lost: bool = False  # what only the old server has is given up: it cannot be read


@attrs.frozen
class MakeReadOnly:
    """Accept no more writes at the own server; commits that wait for a replica are let go on."""


@attrs.frozen
class Merge:
    """Keep what only the own server has in a file, and write it to the primary."""


@attrs.frozen
class Fetch:
    """Clone the primary into the directory beside the data directory."""


@attrs.frozen
class Prepare:
    """Make the clone ready to be started from, and leave the mark in it."""


@attrs.frozen
class SwapIn:
    """Stop the own server if it runs, put the clone in the place of its data, and start it."""


@attrs.frozen
class StartServer:
    """Start the own server."""


@attrs.frozen
class Replicate:
    """Point the own server at the primary, from the clone's position or from its own, and start both threads."""

    cloned: bool


Step = MakeReadOnly | Merge | Fetch | Prepare | SwapIn | StartServer | Replicate


@attrs.frozen
class Refused:
    """It cannot go on; nothing of the old server was touched since the last step."""

    why: str


@attrs.frozen
class Done:
    """The own server is the replica of the primary."""


UNSAFE_ROLES: Final = frozenset({Role.ACTIVE, Role.CATCHING_UP})


def next_step(seen: Seen, wishes: Wishes) -> Step | Refused | Done:
    refusal = _refusal(seen)
    if refusal:
        return Refused(refusal)
    if seen.own is None:
        return _without_server(seen, wishes)
    return _with_server(seen, seen.own, wishes)


def _refusal(seen: Seen) -> str:
    """Why nothing at all may be done."""
    own, primary = seen.own, seen.primary
    if seen.role in UNSAFE_ROLES:
        return f"this node is {seen.role}: it is the other one that rejoins (`dlrproxy demote` hands over)"
    if primary is None:
        return f"the database server of {seen.peer} cannot be reached: {seen.primary_error}"
    if not primary.writable or primary.replicates:
        return f"the database server of {seen.peer} is no primary: promote it first (`dlrproxy promote` there)"
    if primary.holder != seen.peer:
        return f"{seen.peer} has not been promoted: the pair is held by {primary.holder or 'nobody'} there"
    if own is None:
        return ""
    if own.epoch > primary.epoch:
        return (
            f"{own.holder} was promoted after {seen.peer} (epoch {own.epoch}, and {primary.epoch} there): it is "
            f"{seen.peer} that rejoins"
        )
    if own.epoch == primary.epoch and own.holder != seen.peer and own.writable:
        return f"both nodes were promoted under epoch {own.epoch}: first `dlrproxy demote` the one that is to rejoin"
    return ""


def _without_server(seen: Seen, wishes: Wishes) -> Step | Refused:
    if not seen.data:
        if seen.copy is Copy.PREPARED:
            return SwapIn()  # it was interrupted between the two renames
        return Refused(
            "there is no data directory: make an empty one that belongs to the server's account, and give --lost: a "
            "clone is fetched, and what only the old data had is given up"
        )
    if wishes.lost and not seen.cloned:
        return _clone(seen)
    if "pair.start_command" in seen.missing:
        return Refused(f"this node's database server does not run: start it ({seen.own_error})")
    return StartServer()


def _with_server(seen: Seen, own: OwnServer, wishes: Wishes) -> Step | Refused | Done:
    follows = own.source == seen.source
    if own.writable and wishes.manage:
        return MakeReadOnly()
    if seen.cloned:
        return Replicate(cloned=True)
    if follows and own.running and not wishes.clone:
        return Done()
    if seen.diverged and not seen.merged and not wishes.lost:
        return Merge()
    if not wishes.manage:
        return Refused(
            "pair.manage_database is false: make the database server a replica with the tool that manages it"
            + ("; what only it had is merged, and its data may be replaced" if seen.diverged else "")
        )
    # Without a history it may have old data all the same, unless it is new: then the primary gives it everything.
    unknown = not own.position and own.epoch > 0
    if seen.diverged or wishes.clone or unknown or (follows and own.beyond_repair):
        return _clone(seen)
    return Replicate(cloned=False)


def _clone(seen: Seen) -> Step | Refused:
    if seen.missing:
        return Refused(f"it takes a fresh clone of the primary, and these are not set: {', '.join(seen.missing)}")
    if seen.copy is Copy.PREPARED:
        return SwapIn()
    return Prepare() if seen.copy is Copy.FETCHED else Fetch()
