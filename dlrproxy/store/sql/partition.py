"""The partition of one node in a cluster's database: fenced by an epoch, and moved to another node."""

import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, cast

from dlrproxy.store.directory import STORE_ID_KEY, STORE_ID_SIZE
from dlrproxy.store.port import Table
from dlrproxy.store.sql import schema
from dlrproxy.store.sql.errors import FencedError
from dlrproxy.store.sql.fence import (
    Fence,
    Place,
    counted_to_move,
    epoch_of,
    find_fence,
    first_fence,
    last_of_page,
    left_behind,
    removed,
    swept,
    to_move,
)
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import get_item, insert_item

ROWS: Final = 500  # moved by one statement: what a node of Galera replicates and certifies at a time
PAGE: Final = 20_000  # looked through by one statement, in some 50 ms


async def fence(pool: Pool, node: str, epoch: int) -> Fence:
    """Work on the partition of `node` under `epoch`: under an earlier one nobody can write it any more.

    May be done again. Raises FencedError when it has been done under a later epoch; SqlError.
    """
    made = Fence(node, epoch)
    await pool.run(first_fence(node))
    while True:
        found = cast("bytes", (await pool.run(find_fence(node))).rows[0][0])
        if epoch_of(found) > epoch:
            raise FencedError(f"custody of {node} is written under epoch {epoch_of(found)}, which is after {epoch}")
        if epoch_of(found) == epoch or (await pool.run(made.raised(found))).affected:
            return made
        # Somebody has written it since, here or at another server of the cluster.


async def store_id(pool: Pool, node: str) -> bytes:
    """The store id of the partition, made when it is asked for first. Raises SqlError, SchemaError."""
    fresh = secrets.token_bytes(STORE_ID_SIZE)
    await pool.run(insert_item(Table.META, STORE_ID_KEY, fresh, node))
    result = await pool.run(get_item(Table.META, STORE_ID_KEY, node))
    if not result.rows:
        raise schema.SchemaError(f"{pool.account.server} keeps no store id for {node}; run `dlrproxy db check`")
    return cast("bytes", result.rows[0][0])


async def sweep(pool: Pool, node: str) -> None:
    """Delete what a crash between the statements of a group has left without content. Raises SqlError.

    A page at a time: all of a partition with a million parked items would be more than one statement may take.
    """
    after: Place = b"", b""
    while True:
        end = (await pool.run(last_of_page(node, after, PAGE))).rows
        last = None if not end else (cast("bytes", end[0][0]), cast("bytes", end[0][1]))
        names: dict[str, list[bytes]] = defaultdict(list)
        for kind, name in (await pool.run(left_behind(node, after, last))).rows:
            names[cast("bytes", kind).decode()].append(cast("bytes", name))
        for kind, of_kind in names.items():
            for start in range(0, len(of_kind), ROWS):
                await pool.run(swept(node, kind, of_kind[start : start + ROWS]))
        if last is None:
            return
        after = last


async def move(pool: Pool, dead: str, epoch: int, heir: str) -> Counter[Table]:
    """Give custody and parked items of the node `dead` to `heir`; returns how many there were. Raises SqlError.

    What it has set aside, for it could not be read, counts as custody.

    First the dead node is fenced off, by `epoch`: what it has written moves, and it writes no more. Custody comes to
    the heir's inbox. Each row is in one partition at any time, so this may be interrupted anywhere and done again, by
    any node; and again while the node is away, for others may still put something into its inbox. Raises FencedError
    when the node is back, under a later epoch: the rest is its own.
    """
    fenced = await fence(pool, dead, epoch)
    moved: Counter[Table] = Counter()
    while (found := await pool.run(to_move(dead, ROWS))).rows:
        names: dict[str, list[bytes]] = defaultdict(list)
        for kind, name in found.rows:
            names[cast("bytes", kind).decode()].append(cast("bytes", name))
        for kind, of_kind in names.items():
            await pool.run(fenced.moved(heir, kind, of_kind))
            moved[Table.PARKED if kind == Table.PARKED.value else Table.CUSTODY] += len(of_kind)
    return moved


# A node that is to be forgotten


async def fenced_by(pool: Pool, node: str) -> int:
    """The epoch under which the partition was begun on last; 0: never. Raises SqlError."""
    found = (await pool.run(find_fence(node))).rows
    return epoch_of(cast("bytes", found[0][0])) if found else 0


async def unmoved(pool: Pool, node: str) -> int:
    """How many rows there are that a takeover moves. Raises SqlError."""
    return cast("int", (await pool.run(counted_to_move(node))).rows[0][0])


async def remove(pool: Pool, node: str, epoch: int, kinds: Sequence[str]) -> bool:
    """Delete what is left of these kinds of a node that was taken over from. Raises SqlError.

    In one statement. False: its row is another one by now, and nothing was deleted.
    """
    return bool((await pool.run(removed(node, epoch, kinds))).affected)
