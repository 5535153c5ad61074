"""How `dlrproxy status` shows a node of a quorum."""

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from dlrproxy.admin.quorum_view import ClusterStatus, LossStatus, QuorumStatus
from dlrproxy.cli.showing import BAD, DOUBTFUL, GOOD, QUIET, count

# A node looks into its inbox every five seconds when it is told of nothing.
_LONG_S: Final = 6.0


def shown_quorum(quorum: QuorumStatus) -> RenderableType:
    serving = quorum.role == "serving"
    role = Text.assemble(("role ", QUIET), (quorum.role, GOOD if serving else BAD))
    role.append(f"  {quorum.why}", QUIET)
    if quorum.epoch:
        role.append(f"  epoch {quorum.epoch}", QUIET)
    lines: list[RenderableType] = [role, _master(quorum), _server(quorum.server)]
    if quorum.trouble:
        lines.append(Text(quorum.trouble, BAD))
    if quorum.apart:
        named = ", ".join(quorum.apart)
        lines.append(Text(f"TWO CLUSTERS: {named} serve over another one: stop the nodes of one of the two", BAD))
    if gone := {node: member for node, member in quorum.members.items() if member.taken}:
        named = ", ".join(f"{node} (its custody went to {member.heir})" for node, member in sorted(gone.items()))
        lines.append(Text(f"gone: {named}", DOUBTFUL))
    if quorum.server is not None and quorum.server.size == quorum.servers and quorum.server.weight != quorum.weight:
        doubt = f"all servers weigh {quorum.server.weight} together, and {quorum.weight} by [quorum]: see `db check`"
        lines.append(Text(doubt, DOUBTFUL))
    lines += [
        Text(f"{each.node} differs in {each.key}: {each.there}; here {each.here}", DOUBTFUL)
        for each in quorum.differences
    ]
    if quorum.losses:
        lines.append(_losses(quorum.losses))
    if quorum.journal_rows:
        lines.append(Text(f"{count(quorum.journal_rows)} ids in the journal wait for the database", DOUBTFUL))
    lines += [Text(_apart(node, by), BAD) for node, by in sorted(quorum.clocks.items())]
    if quorum.inbox_rows:
        lines.append(_inbox(quorum))
    return Group(*lines)


def _apart(node: str, ahead_s: float) -> str:
    return f"its clock is {abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} that of {node}"


def _inbox(quorum: QuorumStatus) -> Text:
    """It empties within a moment where nothing is wrong."""
    waits = f"{count(quorum.inbox_rows)} in its inbox, the first for {quorum.inbox_oldest_s:.0f} s"
    return Text(waits, DOUBTFUL if quorum.inbox_oldest_s >= _LONG_S else QUIET)


def _master(quorum: QuorumStatus) -> Text:
    if quorum.is_master:
        return Text("this node is the master", QUIET)
    return Text(f"master: {quorum.master or 'none yet'}", QUIET)


def _server(server: ClusterStatus | None) -> Text:
    if server is None:
        return Text("its database server gives no answer", BAD)
    fine = server.primary and server.ready and server.state == "Synced"
    said = "in the quorum" if server.primary else "NOT in the quorum"
    return Text(
        f"database: {server.state or 'no state'}, {said}, {server.size} servers of weight {server.weight}",
        QUIET if fine else BAD,
    )


def _losses(losses: tuple[LossStatus, ...]) -> Text:
    """What the cluster survives when all are there."""
    ends = [loss.of for loss in losses if not loss.survived]
    if not ends:
        return Text(f"survives the loss of any of: {', '.join(loss.of for loss in losses)}", QUIET)
    return Text(f"does NOT survive the loss of: {', '.join(ends)}", DOUBTFUL)
