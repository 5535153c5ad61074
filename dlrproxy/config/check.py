"""What no key can tell alone: keys against each other and tables against tables. Pure; files are `machine.py`'s.

A check is a function from a draft to problems. Errors keep a node from starting; warnings are said and logged.
"""

import ipaddress
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from dlrproxy.config.database import Database, Pair, Quorum
from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.config.problems import Problem
from dlrproxy.config.tables import Admin, Custody, Join, Log, Mo, Node, Peer, Ring
from ring.far import cluster_of, far_name, node_of
from ring.join import check_gates

SHORTEST_RING_SECRET: Final = 16  # bytes: below that it can be guessed from a recorded handshake
LONGEST_PASSWORD: Final = 8  # SMPP 3.4 4.1.1: 9 octets with the NUL; some operators take more


@frozen(kw_only=True)
class Draft:
    """The tables that could be read; None or absent where a problem was found already. Keys of mappings are paths."""

    node: Node | None
    operators: Mapping[str, Operator]
    peers: Mapping[str, Peer]
    ring: Ring | None
    join: Join | None
    custody: Custody | None
    mo: Mo | None
    admin: Admin | None
    log: Log | None
    database: Database | None
    pair: Pair | None
    quorum: Quorum | None
    given: frozenset[str]  # the names of the tables that stand in the file
    incomplete: frozenset[str]  # "operators", "peers" where some table is missing above


Check = Callable[[Draft], Iterator[Problem]]


def alternatives(path: str, operator: Mapping[str, Any]) -> Iterator[Problem]:
    """Of an operator's table as written: keys of which one is wanted, and no more than one."""
    for names, required in (
        (("host", "hosts"), operator.get("binds") != 0),
        (("password", "password_file", "password_env"), True),
        (("outbind_password", "outbind_password_file", "outbind_password_env"), False),
    ):
        given = [name for name in names if name in operator]
        if required and not given:
            yield Problem(path, f"one of {', '.join(names)} is required")
        for name in given[1:]:
            yield Problem(f"{path}.{name}", f"excludes {given[0]}; give only one of {', '.join(names)}")
    if "hosts" in operator and "port" in operator:
        yield Problem(f"{path}.port", "goes with host; in hosts each address has its own port")


# Errors


def _unique_names(draft: Draft) -> Iterator[Problem]:
    for named in (draft.operators, draft.peers):
        first: dict[str, str] = {}
        for path, table in named.items():
            if table.name in first:
                yield Problem(f"{path}.name", f'"{table.name}" is the name of {first[table.name]} already')
            first.setdefault(table.name, path)


def _peers(draft: Draft) -> Iterator[Problem]:
    names = [peer.name for peer in draft.peers.values()]
    if draft.node is not None and names and draft.node.name not in names and "peers" not in draft.incomplete:
        yield Problem("node.name", f'"{draft.node.name}" is not among the [[peers]]: {", ".join(names)}')
    first: dict[Address, str] = {}
    for path, peer in draft.peers.items():
        if not peer.url:
            if draft.node is None or draft.node.mode != "active-passive":
                yield Problem(f"{path}.url", "missing; this key is required")
            continue
        if not peer.tls and not is_loopback(peer.address.host):
            yield Problem(f"{path}.url", "ws:// is not encrypted and allowed on loopback only; use wss://")
        if peer.address in first:
            yield Problem(f"{path}.url", f"{peer.address} is the address of {first[peer.address]} already")
        first.setdefault(peer.address, path)


def _ring_credentials(draft: Draft) -> Iterator[Problem]:
    wanted = _has_links(draft) and any(peer.tls for peer in draft.peers.values())
    if draft.ring is not None:
        yield from _credentials("ring", draft.ring, "wss:// peers" if wanted else "")


def _has_links(draft: Draft) -> bool:
    """The nodes of a pair have none: all that they share is in their database servers."""
    return len(draft.peers) > 1 and (draft.node is None or draft.node.mode != "active-passive")


def _credentials(path: str, table: Ring | Join, whose: str) -> Iterator[Problem]:
    """`whose` links need them; empty if none do."""
    certificates = {"ca_file": table.ca_file, "cert_file": table.cert_file, "key_file": table.key_file}
    missing = [name for name, file in certificates.items() if file is None]
    if table.secret_file is not None:
        for name in certificates.keys() - set(missing):
            yield Problem(f"{path}.{name}", "excludes secret_file; give certificates or a secret")
        if table.secret is not None and len(table.secret.reveal()) < SHORTEST_RING_SECRET:
            yield Problem(f"{path}.secret_file", f"holds fewer than {SHORTEST_RING_SECRET} bytes")
    elif 0 < len(missing) < len(certificates):
        for name in missing:
            yield Problem(f"{path}.{name}", "is required with the other two of ca_file, cert_file, key_file")
    elif missing and whose:
        yield Problem(path, f"{whose} need ca_file, cert_file and key_file, or secret_file")


def _join(draft: Draft) -> Iterator[Problem]:
    join, ring, node = draft.join, draft.ring, draft.node
    if join is None or ring is None or node is None:
        return
    secured = join.secured or ring.secret_file is not None or ring.ca_file is not None
    wanted = any(gate.tls for gate in join.gates) and not secured
    yield from _credentials("join", join, "wss:// gates" if wanted else "")
    if not join.gates:
        return
    try:
        check_gates(ring.cluster, [gate.name for gate in join.gates])
    except ValueError as error:
        yield Problem("join.gates", str(error))
    nodes = {peer.name for peer in draft.peers.values()} or {node.name}
    names: dict[str, str] = {}
    addresses: dict[Address, str] = {}
    for index, gate in enumerate(join.gates):
        path = f"join.gates[{index}]"
        if cluster_of(gate.name) == ring.cluster and node_of(gate.name) not in nodes and not draft.incomplete:
            yield Problem(f"{path}.name", f'"{node_of(gate.name)}" is not among the nodes of this ring')
        if gate.name in names:
            yield Problem(f"{path}.name", f'"{gate.name}" is the name of {names[gate.name]} already')
        if not gate.tls and not is_loopback(gate.address.host):
            yield Problem(f"{path}.url", "ws:// is not encrypted and allowed on loopback only; use wss://")
        if gate.address in addresses:
            yield Problem(f"{path}.url", f"{gate.address} is the address of {addresses[gate.address]} already")
        names.setdefault(gate.name, path)
        addresses.setdefault(gate.address, path)


def _operators(draft: Draft) -> Iterator[Problem]:
    if not draft.operators and "operators" not in draft.incomplete:
        yield Problem("operators", "at least one [[operators]] table is required")
    for path, operator in draft.operators.items():
        if operator.race_window_s + operator.gateway_answer_s >= operator.operator_answer_s:
            yield Problem(
                f"{path}.operator_answer_s",
                f"{operator.operator_answer_s:g} must be more than race_window_s + gateway_answer_s "
                f"({operator.race_window_s:g} + {operator.gateway_answer_s:g})",
            )
        if b"\0" in operator.password.reveal():
            yield Problem(f"{path}.password", "must not contain a NUL, which ends it in a bind")
        for lonely, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if getattr(operator, lonely) is not None and getattr(operator, other) is None:
                yield Problem(f"{path}.{other}", f"is required with {lonely}")
        for prefix in ("listen_", "outbind_"):
            for name in (f"{prefix}cert_file", f"{prefix}key_file"):
                if getattr(operator, f"{prefix}tls") and getattr(operator, name) is None:
                    yield Problem(f"{path}.{name}", f"is required with {prefix}tls")


def _outbind(draft: Draft) -> Iterator[Problem]:
    for path, operator in draft.operators.items():
        if operator.outbind_listen is None and not operator.binds:
            yield Problem(f"{path}.binds", "0 needs outbind_listen: there would never be a bind")
        if operator.outbind_listen is not None and operator.bind_type == "transmitter":
            yield Problem(f"{path}.outbind_listen", 'is for receiving, and bind_type = "transmitter" receives nothing')


def _bind_cap(draft: Draft) -> Iterator[Problem]:
    """Every node has the same operators as a rule, and each keeps its binds; of a pair only one node at a time."""
    nodes = len(draft.peers) if _has_links(draft) else 1
    for path, operator in draft.operators.items():
        total = operator.connections * nodes
        if operator.max_binds is not None and total > operator.max_binds:
            yield Problem(
                f"{path}.max_binds",
                f"the operator allows {operator.max_binds}, but {nodes} nodes with {operator.connections} each make "
                f"{total}",
            )


def _ordered_times(draft: Draft) -> Iterator[Problem]:
    pairs: list[tuple[str, object, tuple[str, ...]]] = [
        *((path, operator, ("reconnect_min_s", "reconnect_max_s")) for path, operator in draft.operators.items()),
        *(
            (path, operator, ("open_message_days", "open_message_max_days"))
            for path, operator in draft.operators.items()
        ),
        ("ring", draft.ring, ("retry_min_s", "retry_max_s")),
        ("ring", draft.ring, ("heartbeat_s", "suspect_after_s", "dead_after_s")),
        ("ring", draft.ring, ("lap_timeout_s", "claim_for_s")),
        ("custody", draft.custody, ("retry_min_s", "retry_max_s")),
    ]
    for path, table, names in pairs:
        if table is None:
            continue
        for smaller, larger in itertools.pairwise(names):
            low, high = getattr(table, smaller), getattr(table, larger)
            if low > high:
                yield Problem(f"{path}.{larger}", f"{high:g} must not be less than {smaller} ({low:g})")


def _listeners(draft: Draft) -> Iterator[tuple[str, Address]]:
    for path, operator in draft.operators.items():
        for gateway, where in operator.listen.items():
            yield (f"{path}.listen" if len(operator.listen) == 1 else f"{path}.listen.{gateway}"), where
        if operator.outbind_listen is not None:
            yield f"{path}.outbind_listen", operator.outbind_listen
    if draft.node is not None and draft.ring is not None and _has_links(draft):
        for path, peer in draft.peers.items():
            if peer.name == draft.node.name:
                yield (
                    ("ring.listen", draft.ring.listen)
                    if draft.ring.listen is not None
                    else (f"{path}.url", peer.address)
                )
    if draft.node is not None and draft.ring is not None and draft.join is not None:
        own = far_name(draft.ring.cluster, draft.node.name)
        for index, gate in enumerate(draft.join.gates):
            if gate.name == own:
                elsewhere = draft.join.listen
                yield ("join.listen", elsewhere) if elsewhere else (f"join.gates[{index}].url", gate.address)
    if draft.admin is not None and draft.admin.listen is not None:
        yield "admin.listen", draft.admin.listen


def _collisions(draft: Draft) -> Iterator[Problem]:
    taken: list[tuple[str, Address]] = []
    for path, where in _listeners(draft):
        for other_path, other in taken:
            if where.port == other.port != 0 and _overlap(where.host, other.host):
                yield Problem(path, f"{where} is taken by {other_path} ({other})")
                break
        taken.append((path, where))


def _admin(draft: Draft) -> Iterator[Problem]:
    admin = draft.admin
    if admin is None:
        return
    for name in ("cert_file", "key_file"):
        if admin.tls and getattr(admin, name) is None:
            yield Problem(f"admin.{name}", "is required with tls")
    if admin.listen is None or is_loopback(admin.listen.host):
        return
    if admin.token_file is None and not (admin.tls and admin.ca_file):
        yield Problem(
            "admin.token_file", f"or tls with ca_file is required, since {admin.listen} can be reached from elsewhere"
        )


# Warnings


def _mo_rules(draft: Draft) -> Iterator[Problem]:
    """A rule may name what only other nodes have, where there are any; alone, a wrong name is an error all the same."""
    if draft.mo is None or draft.node is None:
        return
    operators = {operator.name for operator in draft.operators.values()}
    gateways = {peer.name for peer in draft.peers.values()} | {draft.node.name}
    gateways.update(itertools.chain.from_iterable(operator.listen for operator in draft.operators.values()))
    for index, rule in enumerate(draft.mo.rules):
        if rule.operator is not None and rule.operator not in operators:
            yield Problem(f"mo.rules[{index}].operator", f'no operator "{rule.operator}" is known here')
        if rule.gateway not in gateways:
            yield Problem(f"mo.rules[{index}].gateway", f'no gateway "{rule.gateway}" is known here')


def _mo_rules_alone(draft: Draft) -> Iterator[Problem]:
    if len(draft.peers) <= 1 and not draft.incomplete:
        yield from _mo_rules(draft)


def _mo_rules_among_nodes(draft: Draft) -> Iterator[Problem]:
    if len(draft.peers) > 1:
        yield from _mo_rules(draft)


def _catch_all_rules(draft: Draft) -> Iterator[Problem]:
    rules = draft.mo.rules if draft.mo is not None else ()
    for index, rule in enumerate(rules[:-1]):
        if rule.destination is None and rule.keyword is None and rule.operator is None:
            yield Problem(f"mo.rules[{index}]", "matches every MO, so the rules after it never apply")


def _unused_tls_files(draft: Draft) -> Iterator[Problem]:
    tables: list[tuple[str, object, str]] = [
        (path, operator, prefix) for path, operator in draft.operators.items() for prefix in ("", "listen_", "outbind_")
    ]
    if draft.admin is not None:
        tables.append(("admin", draft.admin, ""))
    for path, table, prefix in tables:
        for name in (f"{prefix}ca_file", f"{prefix}cert_file", f"{prefix}key_file"):
            if not getattr(table, f"{prefix}tls") and getattr(table, name) is not None:
                yield Problem(f"{path}.{name}", f"has no effect without {prefix}tls = true")


def _unused_tls_name(draft: Draft) -> Iterator[Problem]:
    for path, operator in draft.operators.items():
        if operator.tls_server_name is not None and not operator.tls:
            yield Problem(f"{path}.tls_server_name", "has no effect without tls = true")


def _unused_outbind(draft: Draft) -> Iterator[Problem]:
    for path, operator in draft.operators.items():
        for name in ("outbind_system_id", "outbind_password", "outbind_tls"):
            if operator.outbind_listen is None and getattr(operator, name):
                yield Problem(f"{path}.{name}", "has no effect without outbind_listen")


def _long_passwords(draft: Draft) -> Iterator[Problem]:
    for path, operator in draft.operators.items():
        length = len(operator.password.reveal())
        if length > LONGEST_PASSWORD:
            yield Problem(f"{path}.password", f"has {length} octets; SMPP 3.4 allows {LONGEST_PASSWORD}")


ERRORS: Final[tuple[Check, ...]] = (
    _unique_names,
    _peers,
    _ring_credentials,
    _join,
    _operators,
    _outbind,
    _bind_cap,
    _ordered_times,
    _collisions,
    _admin,
    _mo_rules_alone,
)
WARNINGS: Final[tuple[Check, ...]] = (
    _mo_rules_among_nodes,
    _catch_all_rules,
    _unused_tls_files,
    _unused_tls_name,
    _unused_outbind,
    _long_passwords,
)


def is_loopback(host: str) -> bool:
    """By name or address; a name other than localhost may mean anything."""
    address = _ip_address(host)
    return host == "localhost" if address is None else address.is_loopback


def _overlap(host: str, other: str) -> bool:
    """Whether listeners of one port on these two collide; under trio an IPv6 listener takes no IPv4 connections."""
    if host == other:
        return True
    one, two = _ip_address(host), _ip_address(other)
    if one is not None and two is not None and one.version != two.version:
        return False
    return any(address is not None and address.is_unspecified for address in (one, two))


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
