"""The tables of the configuration but for [[operators]]: the node, its peers, and what is set once per node."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen

from dlrproxy.config.keys import Address, above, at_least, between, gate_name, key, proper_name, websocket_url
from dlrproxy.secret import Secret

Mode = Literal["ring", "active-passive", "quorum"]
Level = Literal["debug", "info", "warning", "error"]


def _url_if_any(instance: object, attribute: "Attribute[Any]", value: str) -> None:
    if value:
        websocket_url(instance, attribute, value)


class _Linked:
    """What is reached at a URL of a WebSocket."""

    __slots__ = ()
    url: str

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "wss"

    @property
    def address(self) -> Address:
        parts = urlsplit(self.url)
        return Address(parts.hostname or "", parts.port or 0)


@frozen(kw_only=True)
class Node:
    """This node, and where it keeps what it must not lose."""

    name: str = field(
        validator=proper_name,
        metadata=key("This node's name: one of the [[peers]], where there are any.", example="gw1"),
    )
    mode: Mode = field(
        default="ring",
        metadata=key(
            "How nodes belong together: ring (all serve; a node alone is a ring of one), active-passive (two, each "
            "beside its own database server, of which one serves), quorum (all serve, each beside its own server of "
            "one Galera cluster)."
        ),
    )
    data_dir: Path = field(
        metadata=key(
            "Open messages and custody are kept here, on a local disk. One process per directory.",
            example="/var/lib/dlrproxy",
        )
    )
    min_free_mb: int = field(
        default=256,
        validator=at_least(16),
        metadata=key(
            "Below this much free space under data_dir MT are refused, so that there is always room for an id that "
            "comes back."
        ),
    )
    drain_s: float = field(
        default=20.0,
        validator=between(0, 3600),
        metadata=key("On SIGTERM: how long to finish what is in flight before exit. A second signal ends it at once."),
    )


@frozen(kw_only=True)
class Peer(_Linked):
    """A node. The same list stands on every node, own entry included; a node alone needs none."""

    name: str = field(validator=proper_name, metadata=key("The node's name.", example="gw1"))
    url: str = field(
        default="",
        validator=_url_if_any,
        metadata=key(
            "Where the other nodes reach it. ws:// only on loopback. The nodes of an active-passive pair need none.",
            example="wss://10.0.0.1:7301",
            in_sample=True,
        ),
    )


@frozen(kw_only=True)
class Ring:
    """How the nodes link to one another. Mutual TLS: ca_file, cert_file and key_file; or a secret that all share."""

    cluster: str = field(
        default="dlrproxy",
        validator=proper_name,
        metadata=key("The same on every node; nodes of another cluster are turned away."),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=key("The authority that signed every node's certificate, in PEM.", example="/etc/dlrproxy/ca.pem"),
    )
    cert_file: Path | None = field(
        default=None,
        metadata=key("This node's certificate, in PEM, for server and client.", example="/etc/dlrproxy/node.pem"),
    )
    key_file: Path | None = field(default=None, metadata=key("Its key, in PEM.", example="/etc/dlrproxy/node.key"))
    secret_file: Path | None = field(
        default=None,
        metadata=key("Instead of certificates: a secret, the same on every node.", example="/etc/dlrproxy/ring.secret"),
    )
    listen: Address | None = field(
        default=None,
        metadata=key(
            "Where this node listens for its peers, if not at the host and port of its own peer url.",
            example="0.0.0.0:7301",
        ),
    )
    claim_for_s: float = field(
        default=259_200.0,  # three days: longer than a node is usually away, shorter than most validity periods
        validator=above(0),
        metadata=key("How long a report is offered to the ring before the operator's unclaimed policy applies."),
    )
    lap_timeout_s: float = field(
        default=15.0, validator=above(0), metadata=key("A lap of the ring that has not ended by then starts again.")
    )
    retry_min_s: float = field(
        default=5.0, validator=above(0), metadata=key("The first wait after an unclaimed lap; it doubles from there.")
    )
    retry_max_s: float = field(
        default=300.0, validator=above(0), metadata=key("The longest wait after an unclaimed lap.")
    )
    heartbeat_s: float = field(
        default=1.0, validator=above(0), metadata=key("Send a heartbeat on a link that was silent for this long.")
    )
    suspect_after_s: float = field(
        default=3.0, validator=above(0), metadata=key("A peer that was silent for this long is passed over.")
    )
    dead_after_s: float = field(
        default=10.0,
        validator=above(0),
        metadata=key("A link that was silent for this long is closed and dialled anew."),
    )
    max_walking: int = field(
        default=2000,
        validator=at_least(1),
        metadata=key("Reports of this node that are on their way round the ring at one time; the others wait."),
    )
    summary_mb: int = field(
        default=64,
        validator=at_least(0),
        metadata=key(
            "Memory for what the nodes tell each other of their open messages, so that a report goes straight to its "
            "owner's node. 0: off, and it goes round the ring."
        ),
    )
    secret: Secret | None = None  # the content of secret_file


@frozen(kw_only=True)
class Gate(_Linked):
    """A node that holds the links between two joined rings. The same list stands on every node of both rings."""

    name: str = field(validator=gate_name, metadata=key("Its cluster and its name.", example="prod/gw1"))
    url: str = field(
        validator=websocket_url,
        metadata=key(
            "Where the gates of the other ring reach it. ws:// only on loopback.", example="wss://10.0.0.1:7302"
        ),
    )


@frozen(kw_only=True)
class Join:
    """A report that no node of this ring owns goes round another one, where gates join the two. Without gates: off.
    What secures the links between them, where nothing is given here, is what stands in [ring]."""

    ca_file: Path | None = field(
        default=None,
        metadata=key("The authority that signed every gate's certificate, in PEM.", example="/etc/dlrproxy/gates.pem"),
    )
    cert_file: Path | None = field(
        default=None,
        metadata=key("This gate's certificate, in PEM, for server and client.", example="/etc/dlrproxy/gate.pem"),
    )
    key_file: Path | None = field(default=None, metadata=key("Its key, in PEM.", example="/etc/dlrproxy/gate.key"))
    secret_file: Path | None = field(
        default=None,
        metadata=key("Instead of certificates: a secret, the same on every gate.", example="/etc/dlrproxy/join.secret"),
    )
    listen: Address | None = field(
        default=None,
        metadata=key(
            "Where this gate listens for those of the other ring, if not at the host and port of its own url.",
            example="0.0.0.0:7302",
        ),
    )
    gates: tuple[Gate, ...] = field(default=(), metadata=key("Gates of both rings, as [[join.gates]] tables."))
    secret: Secret | None = None  # the content of secret_file

    @property
    def secured(self) -> bool:
        """It has certificates or a secret of its own."""
        return any((self.ca_file, self.cert_file, self.key_file, self.secret_file, self.secret))


@frozen(kw_only=True)
class Custody:
    """What has been answered ESME_ROK and is not yet delivered: bounds and retries."""

    max_messages: int = field(
        default=100_000,
        validator=at_least(1),
        metadata=key("Reports and MO in custody; above it the operator gets retry_status."),
    )
    max_parked: int = field(
        default=1_000_000,
        validator=at_least(1),
        metadata=key("Parked reports and MO, a quota of their own."),
    )
    retry_min_s: float = field(
        default=1.0,
        validator=above(0),
        metadata=key("The first wait after a temporary error of the gateway; it doubles from there."),
    )
    retry_max_s: float = field(
        default=60.0, validator=above(0), metadata=key("The longest wait after a temporary error of the gateway.")
    )
    settle_retry_s: float = field(
        default=5.0,
        validator=above(0),
        metadata=key("A claim that its origin has not settled is told again after this."),
    )


@frozen(kw_only=True)
class MoRule:
    """What decides where an MO goes; the first rule that matches wins, and every key given must match."""

    destination: str | None = field(
        default=None, metadata=key("The number that the subscriber wrote to, or a name.", example="7000")
    )
    keyword: str | None = field(default=None, metadata=key("The first word of the text, in any case.", example="WIN"))
    operator: str | None = field(default=None, metadata=key("The operator that it came from.", example="acme"))
    gateway: str = field(validator=proper_name, metadata=key("The gateway that gets it, on any node.", example="gw2"))


@frozen(kw_only=True)
class Mo:
    """MO: by rule; else to the gateway in conversation with the subscriber, on any node; else to a bound gateway, of
    this node first."""

    conversation_s: float = field(
        default=86_400.0,
        validator=at_least(0),
        metadata=key(
            "How long an answer goes to the gateway that last wrote to the subscriber from that number, in memory. "
            "0: off, and MO go straight to a bound gateway of this node."
        ),
    )
    concat_wait_s: float = field(
        default=5.0,
        validator=above(0),
        metadata=key(
            "How long a part of a concatenated MO waits for the node that decides for all, and that one for the "
            "first part where a keyword matters."
        ),
    )
    rules: tuple[MoRule, ...] = field(default=(), metadata=key("Rules, as [[mo.rules]] tables."))


@frozen(kw_only=True)
class Admin:
    """The HTTP API. It is always on a unix socket in data_dir; this is for TCP. Off loopback it needs a token or, with
    TLS, the clients' certificates; with both, both are asked for."""

    listen: Address | None = field(default=None, metadata=key("Listen on TCP too.", example="127.0.0.1:7380"))
    token_file: Path | None = field(
        default=None,
        metadata=key(
            "A file that holds the token which clients must send.",
            example="/etc/dlrproxy/admin.token",
        ),
    )
    tls: bool = field(
        default=False,
        metadata=key("Speak TLS (https), with cert_file and key_file; they are read again when renewed."),
    )
    cert_file: Path | None = field(
        default=None,
        metadata=key("With tls: our certificate and what signed it, in PEM.", example="/etc/dlrproxy/admin.pem"),
    )
    key_file: Path | None = field(
        default=None, metadata=key("With tls: the certificate's key, in PEM.", example="/etc/dlrproxy/admin.key")
    )
    ca_file: Path | None = field(
        default=None,
        metadata=key(
            "With tls: what signs the clients' certificates, in PEM; a client without one is then refused.",
            example="/etc/dlrproxy/admins-ca.pem",
        ),
    )
    tls_min_version: Literal["1.2", "1.3"] = field(
        default="1.2", metadata=key("With tls: the oldest version of TLS that a client may speak.")
    )
    token: Secret | None = None  # the content of token_file


@frozen(kw_only=True)
class Log:
    """The log: one JSON object a line. Message text and secrets are never in it."""

    level: Level = field(default="info", metadata=key("debug, info, warning or error."))
    route_events: bool = field(
        default=True, metadata=key("Log every step of a report or MO that leaves the common path.")
    )
    full_numbers: bool = field(default=False, metadata=key("true: phone numbers are not masked."))
    file: Path | None = field(
        default=None,
        metadata=key("Append to this file, opened again on SIGHUP; else stderr.", example="/var/log/dlrproxy.log"),
    )
