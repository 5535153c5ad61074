"""The tables of the modes that keep their rows in a database server: [database], [pair] and [quorum]."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import optional

from dlrproxy.config.keys import (
    Address,
    Key,
    above,
    between,
    frozen_mapping,
    host_name,
    key,
    names_of_names,
    not_empty,
    numbers_of_names,
    secret,
)
from dlrproxy.secret import Secret

_PORT = between(1, 65535)
_SCHEMA = re.compile(r"[A-Za-z0-9_]{1,64}")  # needs no quoting anywhere; MariaDB's identifiers have 64 characters
_HIGHEST_WEIGHT = 255  # Galera's pc.weight


def _schema_name(_: object, __: "Attribute[Any]", value: str) -> None:
    if not _SCHEMA.fullmatch(value):
        raise ValueError(f'must be 1 to 64 letters, digits or "_"; is "{value}"')


def _weights(_: object, __: "Attribute[Any]", value: Mapping[str, int]) -> None:
    for name, weight in value.items():
        if not 0 <= weight <= _HIGHEST_WEIGHT:
            raise ValueError(f"of {name} must be between 0 and {_HIGHEST_WEIGHT}, is {weight}")


# The three keys of an account's password, of which one is given.


def _password(name: str, example: str) -> dict[str, Key]:
    return key(f"Its password; better kept in {name}_file or {name}_env.", example=example, read=secret)


def _password_file(example: str) -> dict[str, Key]:
    return key("A file that holds it and nothing else.", example=example)


def _password_env(example: str) -> dict[str, Key]:
    return key("An environment variable that holds it.", example=example)


@frozen(kw_only=True)
class Database:
    """This node's database server, MariaDB, in the modes active-passive and quorum. The schema is dlrproxy's own."""

    host: str = field(
        default="localhost", validator=host_name, metadata=key("The server's host, by TCP, localhost too.")
    )
    port: int = field(default=3306, validator=_PORT, metadata=key("The server's port, with host."))
    socket: Path | None = field(
        default=None,
        metadata=key("The server's unix socket, instead of host and port.", example="/run/mysqld/mysqld.sock"),
    )
    user: str = field(
        default="dlrproxy",
        validator=not_empty,
        metadata=key("The account that reads and writes the schema, and has no right above read_only."),
    )
    password: Secret = field(default=Secret(b""), metadata=_password("password", "changeit-database"))
    password_file: Path | None = field(default=None, metadata=_password_file("/etc/dlrproxy/database.secret"))
    password_env: str | None = field(default=None, metadata=_password_env("DATABASE_PASSWORD"))
    schema: str = field(
        default="dlrproxy", validator=_schema_name, metadata=key("The schema; `dlrproxy db init` makes its tables.")
    )
    tls: bool = field(default=False, metadata=key("Speak TLS to the server, and to the other node's."))
    ca_file: Path | None = field(
        default=None,
        metadata=key(
            "With tls: the certificates to trust, in PEM; without it the system's. The server's certificate must hold "
            "the name in host.",
            example="/etc/dlrproxy/database-ca.pem",
        ),
    )
    cert_file: Path | None = field(
        default=None,
        metadata=key(
            "With tls: our client certificate, in PEM, where the account asks for one.",
            example="/etc/dlrproxy/database.pem",
        ),
    )
    key_file: Path | None = field(
        default=None,
        metadata=key("With tls: the client certificate's key, in PEM.", example="/etc/dlrproxy/database.key"),
    )
    connections: int = field(
        default=4, validator=between(1, 64), metadata=key("How many connections may read and write at one time.")
    )
    connect_timeout_s: float = field(
        default=5.0, validator=above(0), metadata=key("A server that has not let us in by then is out of reach.")
    )
    statement_timeout_s: float = field(
        default=5.0, validator=above(0), metadata=key("A statement that has not returned by then is sent again.")
    )
    journal_after_s: float = field(
        default=0.25,
        validator=above(0),
        metadata=key(
            "Ids of accepted MT that the server has not committed by then are written to the journal in data_dir, and "
            "their gateways are answered."
        ),
    )
    admin_user: str | None = field(
        default=None,
        validator=optional(not_empty),
        metadata=key(
            "In a pair: the account that may look at the replication and change it; without one the ordinary account "
            "looks. In a quorum: the one of `dlrproxy db bootstrap`.",
            example="dlrproxy_admin",
        ),
    )
    admin_password: Secret = field(default=Secret(b""), metadata=_password("admin_password", "changeit-admin"))
    admin_password_file: Path | None = field(
        default=None, metadata=_password_file("/etc/dlrproxy/database-admin.secret")
    )
    admin_password_env: str | None = field(default=None, metadata=_password_env("DATABASE_ADMIN_PASSWORD"))


@frozen(kw_only=True)
class Pair:
    """In the mode active-passive: the other node's database server, and when this node may serve. The [[peers]] are
    the two nodes. Accounts and TLS are those of [database]."""

    peer_host: str | None = field(
        default=None,
        validator=optional(host_name),
        metadata=key("The host of the other node's database server.", example="10.0.0.2"),
    )
    peer_port: int = field(default=3306, validator=_PORT, metadata=key("Its port, with peer_host."))
    peer_socket: Path | None = field(
        default=None,
        metadata=key("Its unix socket, where both nodes share a machine.", example="/run/mysqld/other.sock"),
    )
    safety: Literal["strict", "available"] = field(
        default="strict",
        metadata=key(
            "strict: never two active; an active without its replica's acknowledgement releases its binds. available: "
            "in a partition both may be active, and their rows are merged after it."
        ),
    )
    fence_after_s: float = field(
        default=6.0,
        validator=above(0),
        metadata=key(
            "strict: without an acknowledgement of its replica, or the witness's word, for so long the active releases "
            "its binds."
        ),
    )
    promote_after_s: float = field(
        default=9.0,
        validator=above(0),
        metadata=key("strict: the standby is not promoted sooner than so long after it last saw the active."),
    )
    heartbeat_s: float = field(
        default=1.0,
        validator=above(0),
        metadata=key("How often the active writes that it is there, and each node looks at both servers."),
    )
    witness: Address | None = field(
        default=None,
        metadata=key(
            "A `dlrproxy witness` at a third place: with its word the active goes on without the other node.",
            example="10.0.0.3:7390",
        ),
    )
    witness_secret_file: Path | None = field(
        default=None,
        metadata=key("The secret that both nodes share with the witness.", example="/etc/dlrproxy/witness.secret"),
    )
    manage_database: bool = field(
        default=False,
        metadata=key(
            "true: this node changes the replication and read_only of its server, with admin_user. false: another tool "
            "does, as where the server holds the schemas of others, and this node follows."
        ),
    )
    replication_user: str | None = field(
        default=None,
        validator=optional(not_empty),
        metadata=key(
            "The account by which the servers replicate from one another; `dlrproxy rejoin` needs it.",
            example="dlrproxy_copy",
        ),
    )
    replication_password: Secret = field(
        default=Secret(b""), metadata=_password("replication_password", "changeit-copy")
    )
    replication_password_file: Path | None = field(
        default=None, metadata=_password_file("/etc/dlrproxy/replication.secret")
    )
    replication_password_env: str | None = field(default=None, metadata=_password_env("REPLICATION_PASSWORD"))
    clone_command: tuple[str, ...] = field(
        default=(),
        metadata=key(
            "For `dlrproxy rejoin --clone`: a command whose output is a backup of the other node's server, made by "
            "mariadb-backup --stream=mbstream.",
            example=["ssh", "10.0.0.2", "mariadb-backup", "--backup", "--stream=mbstream"],
        ),
    )
    stop_command: tuple[str, ...] = field(
        default=(),
        metadata=key("For a clone: stops this node's server.", example=["systemctl", "stop", "mariadb"]),
    )
    start_command: tuple[str, ...] = field(
        default=(),
        metadata=key("For a clone: starts this node's server.", example=["systemctl", "start", "mariadb"]),
    )
    server_data_dir: Path | None = field(
        default=None,
        metadata=key("For a clone: the data directory of this node's server.", example="/var/lib/mysql"),
    )
    witness_secret: Secret | None = None  # the content of witness_secret_file


@frozen(kw_only=True)
class Quorum:
    """In the mode quorum: what is done once for all nodes, and what becomes of a node's reports when it dies. The same
    on every node; the [[peers]] are the nodes, each beside its own server of one Galera cluster."""

    heartbeat_s: float = field(
        default=1.0,
        validator=above(0),
        metadata=key("How often a node writes that it is there, and looks at its server."),
    )
    fence_after_s: float = field(
        default=10.0,  # above the 6 s that writes wait when a server dies, with Galera's own timeouts
        validator=above(0),
        metadata=key("A node that could write nothing for so long releases its binds."),
    )
    takeover_after_s: float = field(
        default=15.0,
        validator=above(0),
        metadata=key("A node that was silent for so long is dead: its custody goes to a living one."),
    )
    lease_s: float = field(
        default=6.0,  # three times evs.inactive_timeout as docs/quorum.md sets it
        validator=above(0),
        metadata=key("When the master dies, another node does so long after what is to be done once."),
    )
    unmatched_for_s: float = field(
        default=30.0,  # an id waits in a node's journal for fence_after_s at most before that node is out of reach
        validator=above(0),
        metadata=key(
            "How long a report whose message is not known is looked for again before the operator's unclaimed policy "
            "applies."
        ),
    )
    stand_in: Mapping[str, str] = field(
        factory=dict,
        converter=frozen_mapping,
        metadata=key(
            "Which gateway gets the reports of one whose node is dead; without one they wait.",
            read=names_of_names,
            example={"gw1": "gw2"},
        ),
    )
    maybe_delivered: Literal["park", "deliver"] = field(
        default="park",
        metadata=key(
            "A report that the dead node may have delivered, or not, is parked, or delivered to the stand-in, perhaps "
            "for the second time."
        ),
    )
    weights: Mapping[str, int] = field(
        factory=dict,
        converter=frozen_mapping,
        validator=_weights,
        metadata=key(
            "The pc.weight of each node's server, 1 where nothing stands; more than half of all must be there.",
            read=numbers_of_names,
            example={"gw1": 3},
        ),
    )
    arbitrators: Mapping[str, int] = field(
        factory=dict,
        converter=frozen_mapping,
        validator=_weights,
        metadata=key(
            "Galera arbitrators (garbd) of the cluster, and their pc.weight; they count, and store nothing.",
            read=numbers_of_names,
            example={"garbd1": 1},
        ),
    )
    sites: Mapping[str, str] = field(
        factory=dict,
        converter=frozen_mapping,
        metadata=key(
            "Where each node and each arbitrator stands.", read=names_of_names, example={"gw1": "north", "gw2": "south"}
        ),
    )

    notify_socket: Path | None = field(
        default=None,
        metadata=key(
            "A unix socket by which the database server tells the node to look at it, and nothing else; for "
            "wsrep_notify_cmd.",
            example="/run/dlrproxy/notify.sock",
        ),
    )
    notify_group: str | None = field(
        default=None,
        metadata=key(
            "The group that may use it, besides the node's own user, which must be a member.", example="mysql"
        ),
    )

    def weight(self, node: str) -> int:
        """Of a node's server."""
        return self.weights.get(node, 1)
