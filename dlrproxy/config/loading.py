"""The configuration: TOML to frozen values, with every problem at once.

The tables are in `operator.py` and `tables.py`. A field is a key of the file; its
metadata is what `sample-config` prints about it. A field without such metadata (`Ring.secret`, `Admin.token`,
`Config.warnings`) is worked out while loading. Code may build these classes itself, under the same limits as a file.
"""

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, field, fields, frozen

from dlrproxy.config import check, check_database, machine
from dlrproxy.config.check import Draft
from dlrproxy.config.database import Database, Pair, Quorum
from dlrproxy.config.keys import Address
from dlrproxy.config.operator import Operator
from dlrproxy.config.problems import ConfigError, Problem
from dlrproxy.config.reading import Reader, toml
from dlrproxy.config.tables import Admin, Custody, Gate, Join, Log, Mo, Node, Peer, Ring
from ring.far import cluster_of, far_name


@frozen(kw_only=True)
class Config:
    """Everything that a node is told."""

    node: Node
    operators: tuple[Operator, ...] = ()
    peers: tuple[Peer, ...] = ()
    ring: Ring = field(factory=Ring)
    join: Join = field(factory=Join)
    custody: Custody = field(factory=Custody)
    mo: Mo = field(factory=Mo)
    admin: Admin = field(factory=Admin)
    log: Log = field(factory=Log)
    database: Database | None = None
    pair: Pair | None = None
    quorum: Quorum | None = None
    warnings: tuple[Problem, ...] = field(default=(), eq=False)  # a node can run with these

    @property
    def node_names(self) -> tuple[str, ...]:
        """Every node of the ring, this one included, in the file's order."""
        return tuple(peer.name for peer in self.peers) or (self.node.name,)

    @property
    def serving_nodes(self) -> int:
        """How many nodes hold binds at one time, and share what an operator allows the account."""
        return 1 if self.node.mode == "active-passive" else len(self.node_names)

    @property
    def own_peer(self) -> Peer | None:
        """None for a node alone that has no [[peers]]."""
        return next((peer for peer in self.peers if peer.name == self.node.name), None)

    @property
    def other_peers(self) -> tuple[Peer, ...]:
        return tuple(peer for peer in self.peers if peer.name != self.node.name)

    @property
    def far_gates(self) -> tuple[Gate, ...]:
        """Those of the other ring."""
        return tuple(gate for gate in self.join.gates if cluster_of(gate.name) != self.ring.cluster)

    @property
    def own_gate(self) -> Gate | None:
        """None for a node that is no gate."""
        own = far_name(self.ring.cluster, self.node.name)
        return next((gate for gate in self.join.gates if gate.name == own), None)

    @property
    def ring_listen(self) -> Address | None:
        """Where this node listens for its peers; None when it has none. The nodes of a pair have no links."""
        own = self.own_peer
        if own is None or not self.other_peers or self.node.mode == "active-passive":
            return None
        return self.ring.listen or own.address


TABLES = tuple(attribute.name for attribute in fields(Config) if attribute.name != "warnings")
_ERRORS = check.ERRORS + check_database.ERRORS + machine.ERRORS
_WARNINGS = check.WARNINGS + check_database.WARNINGS + machine.WARNINGS
_TABLE = re.compile(r"(?P<name>\w+)(?:\[(?P<index>\d+)\])?")


def load(path: Path, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a file. Raises ConfigError with every problem; warnings are in `Config.warnings`."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Problem(f"byte {error.start}", "TOML is UTF-8, and this is not")]) from error
    return parse(text, source=str(path), base=path.parent, environ=environ)


def parse(
    text: str, *, source: str = "configuration", base: Path = Path(), environ: Mapping[str, str] = os.environ
) -> Config:
    """`source` is named in errors; relative paths are meant from `base`. Raises ConfigError with every problem."""
    reader = Reader(toml(text, source), base)
    reader.only(TABLES)
    draft = _with_gateway_names(
        Draft(
            node=reader.table(Node, "node"),
            operators=reader.tables(Operator, "operators"),
            peers=reader.tables(Peer, "peers"),
            ring=reader.table(Ring, "ring"),
            join=reader.table(Join, "join"),
            custody=reader.table(Custody, "custody"),
            mo=reader.table(Mo, "mo"),
            admin=reader.table(Admin, "admin"),
            log=reader.table(Log, "log"),
            database=reader.optional_table(Database, "database"),
            pair=reader.optional_table(Pair, "pair"),
            quorum=reader.optional_table(Quorum, "quorum"),
            given=reader.names,
            incomplete=frozenset(reader.incomplete),
        )
    )
    unclear = [problem for path, table in reader.raw_tables("operators") for problem in check.alternatives(path, table)]
    for name in ("database", "pair"):
        unclear.extend(check_database.alternatives(name, reader.raw_table(name)))
    draft, secret_problems = machine.with_secrets(draft, environ)
    errors = [*reader.problems, *unclear, *secret_problems, *_found(draft, _ERRORS)]
    node, ring, join, custody = draft.node, draft.ring, draft.join, draft.custody
    mo, admin, log = draft.mo, draft.admin, draft.log
    # A table is None where it has an error.
    if errors or not (node and ring and join and custody and mo and admin and log):
        raise ConfigError(source, sorted(errors, key=_place))
    return Config(
        node=node,
        operators=tuple(draft.operators.values()),
        peers=tuple(draft.peers.values()),
        ring=ring,
        join=join,
        custody=custody,
        mo=mo,
        admin=admin,
        log=log,
        database=draft.database,
        pair=draft.pair,
        quorum=draft.quorum or (Quorum() if node.mode == "quorum" else None),
        warnings=_found(draft, _WARNINGS),
    )


def _found(draft: Draft, checks: tuple[check.Check, ...]) -> tuple[Problem, ...]:
    return tuple(itertools.chain.from_iterable(each(draft) for each in checks))


def _with_gateway_names(draft: Draft) -> Draft:
    """A listener without a name is for the gateway named as the node."""
    if draft.node is None:
        return draft
    name = draft.node.name
    operators = {
        path: evolve(operator, listen={gateway or name: where for gateway, where in operator.listen.items()})
        for path, operator in draft.operators.items()
    }
    return evolve(draft, operators=operators)


def _place(problem: Problem) -> tuple[int, int]:
    """Sorts by table, so that a reader goes through the file once; unknown tables come first."""
    found = _TABLE.match(problem.path)
    if found is None or found["name"] not in TABLES:
        return -1, 0
    return TABLES.index(found["name"]), int(found["index"] or -1)
