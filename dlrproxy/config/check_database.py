"""What no key of [database], [pair] and [quorum] can tell alone. Pure, like `check.py`."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import fields

from dlrproxy.admin.unix_socket import NAME as ADMIN_SOCKET
from dlrproxy.config.check import SHORTEST_RING_SECRET, Check, Draft
from dlrproxy.config.database import Database, Pair, Quorum
from dlrproxy.config.problems import Problem
from dlrproxy.config.tables import Mode, Ring
from dlrproxy.modes.cluster import RATE_MARGIN, RELEASE_S, fits
from dlrproxy.modes.survival import survives

_NEEDED: Final[Mapping[Mode, tuple[str, ...]]] = {
    "ring": (),
    "active-passive": ("database", "pair"),
    "quorum": ("database",),
}
_USED: Final[Mapping[Mode, tuple[str, ...]]] = {
    "ring": ("join",),
    "active-passive": ("database", "pair", "join"),  # but for its gates: see below
    "quorum": ("database", "quorum"),
}
_PASSWORDS: Final = ("password", "admin_password", "replication_password")


def alternatives(path: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    """Of [database] or [pair] as written: keys of which no more than one may be given."""
    for password in _PASSWORDS:
        names = password, f"{password}_file", f"{password}_env"
        for name in [name for name in names if name in table][1:]:
            yield Problem(f"{path}.{name}", f"give only one of {', '.join(names)}")
    for prefix in ("", "peer_"):
        for name in (f"{prefix}host", f"{prefix}port"):
            if f"{prefix}socket" in table and name in table:
                yield Problem(f"{path}.{name}", f"excludes {prefix}socket; give an address or a socket")
    for password, user in (("admin_password", "admin_user"), ("replication_password", "replication_user")):
        for name in (password, f"{password}_file", f"{password}_env"):
            if name in table and user not in table:
                yield Problem(f"{path}.{name}", f"needs {user}")


# Errors


def _needed_tables(draft: Draft) -> Iterator[Problem]:
    if draft.node is None:
        return
    for name in _NEEDED[draft.node.mode]:
        if name not in draft.given:
            yield Problem(name, f'mode = "{draft.node.mode}" needs a [{name}] table')


def _passwords(draft: Draft) -> Iterator[Problem]:
    for path, table in (("database", draft.database), ("pair", draft.pair)):
        for name in _PASSWORDS:
            password = getattr(table, name, None)
            if password is not None and not _is_text(password.reveal()):
                yield Problem(f"{path}.{name}", "must be text in UTF-8")


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _tls(draft: Draft) -> Iterator[Problem]:
    database = draft.database
    if database is None:
        return
    for lonely, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(database, lonely) is not None and getattr(database, other) is None:
            yield Problem(f"database.{other}", f"is required with {lonely}")


def _pair(draft: Draft) -> Iterator[Problem]:
    pair = draft.pair
    if pair is None or draft.node is None or draft.node.mode != "active-passive":
        return
    if len(draft.peers) != 2 and "peers" not in draft.incomplete:
        yield Problem("peers", f"a pair has two nodes, this one and the other; here are {len(draft.peers)}")
    if pair.peer_host is None and pair.peer_socket is None:
        yield Problem("pair.peer_host", "is required: where the other node's database server is")
    if draft.database is not None:
        yield from _same_server(draft.database, pair)
        if pair.manage_database and draft.database.admin_user is None:
            yield Problem("database.admin_user", "is required with pair.manage_database = true")
        if draft.database.admin_user == draft.database.user:
            yield Problem("database.admin_user", "must be another account than user, which read_only must bind")
    yield from _pair_times(pair)
    yield from _witness(pair)


def _same_server(database: Database, pair: Pair) -> Iterator[Problem]:
    if pair.peer_socket is not None:
        if pair.peer_socket == database.socket:
            yield Problem("pair.peer_socket", "is the socket of this node's own server")
    elif database.socket is None and (pair.peer_host, pair.peer_port) == (database.host, database.port):
        yield Problem("pair.peer_host", "is this node's own server")


def _pair_times(pair: Pair) -> Iterator[Problem]:
    """The standby must not begin before the active has let go: it does so after fence_after_s, within RELEASE_S."""
    if pair.promote_after_s < pair.fence_after_s + RELEASE_S:
        yield Problem(
            "pair.promote_after_s",
            f"{pair.promote_after_s:g} must be at least fence_after_s + {RELEASE_S:g} "
            f"({pair.fence_after_s:g} + {RELEASE_S:g}), so that the other node has released its binds by then",
        )
    if pair.heartbeat_s > pair.fence_after_s / 3:
        yield Problem(
            "pair.heartbeat_s",
            f"{pair.heartbeat_s:g} must be at most a third of fence_after_s ({pair.fence_after_s:g}), or one late "
            "heartbeat fences the active",
        )


def _witness(pair: Pair) -> Iterator[Problem]:
    if pair.witness is not None and pair.witness_secret_file is None:
        yield Problem("pair.witness_secret_file", "is required with witness")
    if pair.witness_secret is not None and len(pair.witness_secret.reveal()) < SHORTEST_RING_SECRET:
        yield Problem("pair.witness_secret_file", f"holds fewer than {SHORTEST_RING_SECRET} bytes")


def _quorum(draft: Draft) -> Iterator[Problem]:
    quorum = draft.quorum
    if quorum is None or draft.node is None or draft.node.mode != "quorum":
        return
    if not fits(quorum.fence_after_s, quorum.takeover_after_s):
        yield Problem(
            "quorum.takeover_after_s",
            f"{RATE_MARGIN:g} of {quorum.takeover_after_s:g} must be at least fence_after_s + {RELEASE_S:g} "
            f"({quorum.fence_after_s:g} + {RELEASE_S:g}), so that a node that was cut off has stopped by then",
        )
    for name, longest_s in (("fence_after_s", quorum.fence_after_s), ("lease_s", RATE_MARGIN * quorum.lease_s)):
        if quorum.heartbeat_s > longest_s / 3:
            yield Problem(
                "quorum.heartbeat_s",
                f"{quorum.heartbeat_s:g} must be at most a third of {name} ({longest_s:g}), or one late heartbeat "
                "ends it",
            )
    if quorum.notify_group is not None and quorum.notify_socket is None:
        yield Problem("quorum.notify_group", "needs notify_socket")
    if quorum.notify_socket == draft.node.data_dir / ADMIN_SOCKET:
        yield Problem("quorum.notify_socket", "is the socket by which everything can be done to the node")
    if (
        quorum.notify_socket is not None
        and draft.database is not None
        and quorum.notify_socket == draft.database.socket
    ):
        yield Problem("quorum.notify_socket", "is the socket of this node's own server")
    if not draft.incomplete:
        yield from _stand_ins(quorum, draft)
        yield from _nodes(quorum, draft)


def _stand_ins(quorum: Quorum, draft: Draft) -> Iterator[Problem]:
    known = {peer.name for peer in draft.peers.values()}
    known.update(itertools.chain.from_iterable(operator.listen for operator in draft.operators.values()))
    for gateway, other in quorum.stand_in.items():
        for name in (gateway, other):
            if name not in known:
                yield Problem("quorum.stand_in", f'no gateway "{name}" is known here')
        if gateway == other:
            yield Problem("quorum.stand_in", f'"{gateway}" cannot stand in for itself')


def _nodes(quorum: Quorum, draft: Draft) -> Iterator[Problem]:
    nodes = [peer.name for peer in draft.peers.values()]
    for name in quorum.weights:
        if name not in nodes:
            yield Problem("quorum.weights", f'"{name}" is not among the [[peers]]')
    for name in quorum.sites:
        if name not in nodes and name not in quorum.arbitrators:
            yield Problem("quorum.sites", f'"{name}" is not among the [[peers]], nor the arbitrators')
    for name in quorum.arbitrators:
        if name in nodes:
            yield Problem("quorum.arbitrators", f'"{name}" is a node of the [[peers]]')
    if nodes and not any(map(quorum.weight, nodes)):
        yield Problem("quorum.weights", "are 0 for every node, so that none of them has more than half")


# Warnings


def _unused_tables(draft: Draft) -> Iterator[Problem]:
    if draft.node is None:
        return
    for name in ("database", "pair", "quorum", "join"):
        if name in draft.given and name not in _USED[draft.node.mode]:
            yield Problem(name, f'has no effect with mode = "{draft.node.mode}"')
    if draft.node.mode == "active-passive" and draft.join is not None and draft.join.gates:
        yield Problem("join.gates", 'has no effect with mode = "active-passive": the nodes of a pair have no links')


def _short_search(draft: Draft) -> Iterator[Problem]:
    quorum = _quorum_of(draft)
    if quorum is None:
        return
    if quorum.unmatched_for_s < quorum.fence_after_s:
        yield Problem(
            "quorum.unmatched_for_s",
            f"{quorum.unmatched_for_s:g} is less than fence_after_s ({quorum.fence_after_s:g}): an id may wait for the "
            "database for so long, in the journal of the node that sent the message, and its report is given up before",
        )


def _unclaimed(draft: Draft) -> Iterator[Problem]:
    """A policy that cannot be taken back means something else, or comes sooner, where a database has the messages."""
    mode = None if draft.node is None else draft.node.mode
    if mode == "active-passive":
        why = (
            "a report that comes before its message was brought home from a journal is gone by then, or with another "
            'gateway; "park" has it delivered'
        )
    elif mode == "quorum":
        wait_s = (draft.quorum or Quorum()).unmatched_for_s
        why = f"it is done quorum.unmatched_for_s ({wait_s:g} s) after the report came in, not ring.claim_for_s"
    else:
        return
    for path, operator in draft.operators.items():
        if operator.unclaimed != "park":
            yield Problem(f"{path}.unclaimed", f'"{operator.unclaimed}" with mode = "{mode}": {why}')


def _few_servers(draft: Draft) -> Iterator[Problem]:
    quorum = _quorum_of(draft)
    if quorum is None or draft.incomplete or not draft.peers:
        return
    weights = {peer.name: quorum.weight(peer.name) for peer in draft.peers.values()} | dict(quorum.arbitrators)
    if not any(survives(weights, (name,)) for name in weights):
        yield Problem(
            "quorum.arbitrators",
            f"the loss of any one of {', '.join(sorted(weights))} stops all the others: more than half must be left",
        )
    if quorum.sites and (strays := [name for name in weights if name not in quorum.sites]):
        yield Problem("quorum.sites", f"say nothing of {', '.join(strays)}: what is foretold of a site leaves that out")


def _one_gateway(draft: Draft) -> Iterator[Problem]:
    """A gateway is known by the listener that it dials: where there is one for a single name no other can come here."""
    if _quorum_of(draft) is None or draft.node is None or len(draft.peers) < 2:
        return
    for path, operator in draft.operators.items():
        if set(operator.listen) == {draft.node.name}:
            yield Problem(
                f"{path}.listen",
                "no gateway of another node can dial this one when its own is lost; give a listener for each gateway, "
                "the same names on every node",
            )


def _quorum_of(draft: Draft) -> Quorum | None:
    return draft.quorum if draft.node is not None and draft.node.mode == "quorum" else None


def _unused_keys(draft: Draft) -> Iterator[Problem]:
    database, pair, ring = draft.database, draft.pair, draft.ring
    is_of_quorum = draft.node is not None and draft.node.mode == "quorum"
    if is_of_quorum and ring is not None and ring.summary_mb not in {0, fields(Ring).summary_mb.default}:
        yield Problem("ring.summary_mb", 'has no effect with mode = "quorum": every node has all open messages')
    if database is not None:
        for name in ("ca_file", "cert_file", "key_file"):
            if not database.tls and getattr(database, name) is not None:
                yield Problem(f"database.{name}", "has no effect without tls = true")
    if pair is not None and pair.witness is None and pair.witness_secret_file is not None:
        yield Problem("pair.witness_secret_file", "has no effect without witness")
    if pair is not None and pair.witness is not None and pair.safety == "available":
        yield Problem("pair.witness", 'has no effect with safety = "available"')


ERRORS: Final[tuple[Check, ...]] = (_needed_tables, _passwords, _tls, _pair, _quorum)
WARNINGS: Final[tuple[Check, ...]] = (
    _unused_tables,
    _unused_keys,
    _short_search,
    _few_servers,
    _one_gateway,
    _unclaimed,
)
