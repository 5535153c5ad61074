"""What a node's journal still holds reaches the database: its own when it serves again, else that of who does.

A row in the database that is as new or newer stays, and the journal forgets only what the database has: so this may be
interrupted anywhere, and done again by either way.

A report may have come before its message did, and be parked, for nobody owned it. So after the messages, and before the
journal forgets them, comes a META row that has the active node, or each node of a cluster, look again at what is
parked (`dlrproxy/keeping/intake.py`).
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from dlrproxy.modes.merging import CAME_HOME
from dlrproxy.store.journal import Journal, JournalError
from dlrproxy.store.port import OpenMessage, Table
from dlrproxy.store.sql import statements
from dlrproxy.store.sql.connection import Account
from dlrproxy.store.sql.errors import SqlError
from dlrproxy.store.sql.pool import Pool

TRY_AGAIN_S: Final = 5.0

_log = structlog.get_logger()


async def bring_home(journal: Journal, pool: Pool, *, shared: bool = False) -> int:
    """Write all of the journal into the database, then forget it. How many it was. Raises SqlError, JournalError.

    `shared`: that database is a cluster's, where each node has parked items of its own.
    """
    brought, after = 0, b""
    while page := await journal.rows(after, statements.ROWS):
        messages = [message for _, message in page]
        await _bring(messages, pool, shared=shared)
        await journal.forget(messages)
        brought += len(messages)
        after = page[-1][0]
    if brought:
        _log.warning("journal.brought_home", messages=brought, to=pool.account.server)
    return brought


async def _bring(messages: Sequence[OpenMessage], pool: Pool, *, shared: bool) -> None:
    await pool.run(statements.merge_opens(messages))
    note = CAME_HOME + secrets.token_hex(16).encode()
    put = statements.put_item_for_members if shared else statements.insert_item
    await pool.run(put(Table.META, note, b"1"))


async def bring_home_elsewhere(
    journal: Journal, account: Account, may: Callable[[], bool], *, statement_timeout_s: float
) -> None:
    """For a node that does not serve: bring its journal to the database of the one that does. Until cancelled.

    `may` says that this node does not serve, nor is about to, and that `account` is at the server of the one that does.
    That server must refuse the account while it is read-only.
    """
    while True:
        if journal.size and may():
            pool = Pool(account, 1, statement_timeout_s)
            try:
                await bring_home(journal, pool)
            except (SqlError, JournalError) as error:
                _log.warning("journal.not_brought_home", why=str(error), messages=journal.size)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                    await pool.close()
        await trio.sleep(TRY_AGAIN_S)
