"""How `dlrproxy status` shows a node of an active-passive pair."""

from rich.console import RenderableType
from rich.text import Text

from dlrproxy.admin.pair_view import BehindStatus, PairStatus, SemiSyncStatus, ServerStatus
from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, QUIET, count, details, duration, size

_ROLE_STYLES = {"active": GOOD, "standby": GOOD, "catching-up": DOUBTFUL, "fenced": BAD, "failed": BAD}


def shown_pair(pair: PairStatus) -> RenderableType:
    rows = [("role", _role(pair))]
    if pair.both_active:
        rows.append(
            ("BOTH ACTIVE", Text(f"{pair.peer}'s database takes writes as well: what both wrote is to be merged", BAD))
        )
    if pair.role != "active":
        rows.append(("promotion", Text(pair.refused or "under way", QUIET)))
    rows.append(("own database", _server(pair.own, pair.own_out_of_reach)))
    rows.append((f"{pair.peer}'s", _server(pair.other, pair.other_out_of_reach)))
    if pair.not_received is not None and pair.not_applied is not None:
        rows.append(("replica", _behind(pair.not_received, pair.not_applied)))
    if pair.role == "active" and pair.semi_sync is not None:
        rows.append(("semi-sync", _semi_sync(pair, pair.semi_sync)))
    if pair.witness_lends is not None:
        lends = (
            Text("lends itself to this node", GOOD) if pair.witness_lends else Text("does not lend itself", DOUBTFUL)
        )
        rows.append(("witness", lends))
    if pair.journal_rows:
        rows.append(("journal", Text(f"{count(pair.journal_rows)} open messages wait for the database", DOUBTFUL)))
    return details(*rows)


def _role(pair: PairStatus) -> Text:
    text = Text.assemble((pair.role.upper(), _ROLE_STYLES[pair.role]), f"  {pair.why}")
    about = [f"epoch {pair.epoch}", f"safety {pair.safety}"]
    if pair.holder:
        about.append(f"held by {pair.holder}")
    if pair.serves_for_s is not None:
        about.append(f"may go on for {duration(pair.serves_for_s)} without another acknowledgement")
    if not pair.manages_database:
        about.append("another tool manages the database servers")
    text.append(f"  ({', '.join(about)})", QUIET)
    if pair.role == "active" and not pair.serving:
        text.append("  has not begun to serve: see the log", BAD)
    return text


def _server(server: ServerStatus | None, out_of_reach: str) -> Text:
    if server is None:
        return Text(f"cannot be reached: {out_of_reach}" if out_of_reach else "cannot be reached", BAD)
    if not server.replicates:
        return Text("takes writes" if server.writable else "read-only, replicates from nobody")
    if server.error:
        return Text(f"replica, FAILED: {server.error}", BAD)
    if not (server.receiving and server.applying):
        stopped = "receives nothing" if server.applying else "applies nothing"
        return Text(f"replica, {stopped}", BAD)
    return Text("replica", GOOD)


def _behind(not_received: BehindStatus, not_applied: BehindStatus) -> Text:
    """What is lost if the primary is lost now comes first."""
    if _is_nothing(not_received) and _is_nothing(not_applied):
        return Text("has received and applied everything", GOOD)
    lost = not _is_nothing(not_received)
    text = Text(f"lacks {_amount(not_received)}", DOUBTFUL if lost else "")
    text.append(f"; has not applied {_amount(not_applied)}")
    return text


def _amount(behind: BehindStatus) -> str:
    if _is_nothing(behind):
        return "nothing"
    transactions = "an unknown number of" if behind.transactions is None else count(behind.transactions)
    return f"{transactions} transactions" + ("" if behind.bytes is None else f", {size(behind.bytes)}")


def _is_nothing(behind: BehindStatus) -> bool:
    return behind.transactions == 0 and not behind.bytes


def _semi_sync(pair: PairStatus, semi_sync: SemiSyncStatus) -> Text:
    if pair.degraded:
        return Text("NO REPLICA ACKNOWLEDGES: what is committed is here alone", BAD)
    text = Text("every commit is acknowledged by the replica", GOOD)
    text.append(f"  ({count(semi_sync.unacknowledged)} were not since the server's start)", QUIET)
    return text
