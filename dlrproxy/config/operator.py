"""An operator's table of the configuration: one account at one SMSC, and everything about its two sides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen
from attrs.validators import optional

from dlrproxy.config.keys import (
    Address,
    above,
    at_least,
    between,
    frozen_mapping,
    host_name,
    ip_address,
    key,
    not_empty,
    octets,
    proper_name,
    proper_names,
    secret,
    status,
    status_name,
)
from dlrproxy.secret import Secret
from protocols.smpp.constants import ESME_RSYSERR, ESME_RTHROTTLED

BindType = Literal["transceiver", "transmitter+receiver", "transmitter", "receiver"]
IdRule = Literal["auto", "exact", "case", "zeros", "hex-decimal", "decimal-hex"]

_PORT = between(1, 65535)
_ONE_OCTET = between(0, 255)
_VERSIONS = {"3.3": 0x33, "3.4": 0x34, "5.0": 0x50}


@frozen(kw_only=True)
class Operator:
    """One account at one operator (SMSC): the binds that this node keeps, and where its gateway dials for them."""

    name: str = field(
        validator=proper_name,
        metadata=key("The operator's name in logs and metrics; the same on every node.", example="acme"),
    )
    host: str | None = field(
        default=None,
        validator=optional(host_name),
        metadata=key("The operator's SMPP host; or give hosts instead.", example="smsc.acme.example", in_sample=True),
    )
    port: int = field(default=2775, validator=_PORT, metadata=key("The operator's SMPP port, with host."))
    hosts: tuple[Address, ...] = field(
        default=(),
        metadata=key(
            "Several addresses instead of host and port, tried in turn.",
            example=["a.acme.example:2775", "b.acme.example:2775"],
        ),
    )
    tls: bool = field(default=False, metadata=key("Speak TLS to the operator."))
    ca_file: Path | None = field(
        default=None,
        metadata=key(
            "With tls: the certificates to trust, in PEM; without it the system's.", example="/etc/dlrproxy/acme-ca.pem"
        ),
    )
    cert_file: Path | None = field(
        default=None,
        metadata=key(
            "With tls: our client certificate, in PEM, where the operator asks for one.",
            example="/etc/dlrproxy/acme.pem",
        ),
    )
    key_file: Path | None = field(
        default=None, metadata=key("With tls: the client certificate's key, in PEM.", example="/etc/dlrproxy/acme.key")
    )
    tls_min_version: Literal["1.2", "1.3"] = field(
        default="1.2", metadata=key("With tls: the oldest version of TLS that the operator may speak.")
    )
    tls_server_name: str | None = field(
        default=None,
        validator=optional(host_name),
        metadata=key(
            "With tls: the name asked for (SNI), which the operator's certificate must hold; without it the host.",
            example="smpp.acme.example",
        ),
    )
    source_ip: str | None = field(
        default=None,
        validator=optional(ip_address),
        metadata=key("The local address to dial from, where the operator allows only some.", example="192.0.2.10"),
    )
    system_id: str = field(
        validator=[not_empty, octets(15)],  # SMPP 3.4 4.1.1: 16 octets with the NUL
        metadata=key("The account. The gateway binds to us with the same credentials.", example="shop"),
    )
    password: Secret = field(
        default=Secret(b""),
        metadata=key(
            "The account's password; better kept in password_file or password_env.",
            example="changeit",
            in_sample=True,
            read=secret,
        ),
    )
    password_file: Path | None = field(
        default=None,
        metadata=key("A file that holds the password and nothing else.", example="/etc/dlrproxy/acme.secret"),
    )
    password_env: str | None = field(
        default=None, metadata=key("An environment variable that holds the password.", example="ACME_PASSWORD")
    )
    system_type: str = field(
        default="", validator=octets(12), metadata=key("system_type of our bind, where the operator wants one.")
    )
    address_range: str = field(default="", validator=octets(40), metadata=key("address_range of our bind."))
    addr_ton: int = field(default=0, validator=_ONE_OCTET, metadata=key("addr_ton of our bind."))
    addr_npi: int = field(default=0, validator=_ONE_OCTET, metadata=key("addr_npi of our bind."))
    interface_version: Literal["3.3", "3.4", "5.0"] = field(
        default="3.4", metadata=key("The SMPP version that our bind states.")
    )
    bind_type: BindType = field(
        default="transceiver",
        metadata=key("transceiver, transmitter+receiver (a pair of connections per bind), transmitter or receiver."),
    )
    binds: int = field(
        default=1,
        validator=between(0, 64),
        metadata=key(
            "How many binds this node keeps; of transmitter+receiver: how many pairs, each counted as two binds. 0, "
            "with outbind_listen: none but those that the operator asks for."
        ),
    )
    outbind_listen: Address | None = field(
        default=None,
        metadata=key(
            "Where the operator connects to us and sends outbind, if it does; we then bind there too, as a receiver or "
            "transceiver. Such a connection counts in the operator's cap.",
            example="192.0.2.10:2775",
        ),
    )
    outbind_tls: bool = field(
        default=False,
        metadata=key(
            "Speak TLS on connections to outbind_listen, with outbind_cert_file and outbind_key_file; they are read "
            "again when renewed."
        ),
    )
    outbind_cert_file: Path | None = field(
        default=None,
        metadata=key(
            "With outbind_tls: our certificate and what signed it, in PEM.", example="/etc/dlrproxy/outbind.pem"
        ),
    )
    outbind_key_file: Path | None = field(
        default=None,
        metadata=key("With outbind_tls: the certificate's key, in PEM.", example="/etc/dlrproxy/outbind.key"),
    )
    outbind_ca_file: Path | None = field(
        default=None,
        metadata=key(
            "With outbind_tls: what signs the operator's certificate, in PEM; who shows none is then refused.",
            example="/etc/dlrproxy/acme-ca.pem",
        ),
    )
    outbind_tls_min: Literal["1.2", "1.3"] = field(
        default="1.2", metadata=key("With outbind_tls: the oldest version of TLS that the operator may speak.")
    )
    outbind_system_id: str | None = field(
        default=None,
        validator=optional([not_empty, octets(15)]),
        metadata=key("The system_id in the operator's outbind; without it system_id.", example="acme"),
    )
    outbind_password: Secret | None = field(
        default=None,
        metadata=key(
            "The password in the operator's outbind; without it the account's. Better in outbind_password_file or "
            "outbind_password_env.",
            example="changeit",
            read=secret,
        ),
    )
    outbind_password_file: Path | None = field(
        default=None,
        metadata=key("A file that holds it and nothing else.", example="/etc/dlrproxy/acme-outbind.secret"),
    )
    outbind_password_env: str | None = field(
        default=None, metadata=key("An environment variable that holds it.", example="ACME_OUTBIND_PASSWORD")
    )
    max_binds: int | None = field(
        default=None,
        validator=optional(at_least(1)),
        metadata=key(
            "How many binds the operator allows this account, over all nodes; check-config adds them up.", example=4
        ),
    )
    window: int = field(
        default=10,  # the usual guideline; above it some operators throttle
        validator=between(1, 10_000),
        metadata=key("MT per bind that may wait for the operator's answer at one time."),
    )
    max_per_s: float | None = field(
        default=None,
        validator=optional(above(0)),
        metadata=key("MT a second over all binds of this node; without it as fast as the window allows.", example=50),
    )
    operator_window: int | None = field(
        default=None,
        validator=optional(at_least(1)),
        metadata=key(
            "MT over all binds of this node that may wait for the operator's answer at one time; each bind has its "
            "window as well.",
            example=20,
        ),
    )
    account_max_per_s: float | None = field(
        default=None,
        validator=optional(above(0)),
        metadata=key(
            "MT a second that the operator allows the account, over all nodes: each node takes an equal share, by the "
            "number of [[peers]], whether the others are up or not; the active of a pair takes all. With max_per_s the "
            "smaller of the two counts.",
            example=100,
        ),
    )
    slow_on_throttle: bool = field(
        default=False,
        metadata=key(
            "true: when the operator answers ESME_RTHROTTLED or ESME_RMSGQFUL, send half as many MT a second, and "
            "slowly more again. The gateway gets those answers in any case."
        ),
    )
    listen: Mapping[str, Address] = field(
        converter=frozen_mapping,
        validator=proper_names,
        metadata=key(
            "Where this node's gateway dials for this operator. Several gateways: "
            '{ shop1 = "127.0.0.1:2775", shop2 = "127.0.0.1:2776" }. One address alone is for the gateway named as the '
            "node.",
            example="127.0.0.1:2775",
        ),
    )
    listen_tls: bool = field(
        default=False,
        metadata=key(
            "Speak TLS to the gateways, with listen_cert_file and listen_key_file; they are read again when renewed."
        ),
    )
    listen_cert_file: Path | None = field(
        default=None,
        metadata=key(
            "With listen_tls: our certificate and what signed it, in PEM.", example="/etc/dlrproxy/listen.pem"
        ),
    )
    listen_key_file: Path | None = field(
        default=None,
        metadata=key("With listen_tls: the certificate's key, in PEM.", example="/etc/dlrproxy/listen.key"),
    )
    listen_ca_file: Path | None = field(
        default=None,
        metadata=key(
            "With listen_tls: what signs the gateways' certificates, in PEM; a gateway without one is then refused.",
            example="/etc/dlrproxy/gateways-ca.pem",
        ),
    )
    listen_tls_min: Literal["1.2", "1.3"] = field(
        default="1.2", metadata=key("With listen_tls: the oldest version of TLS that a gateway may speak.")
    )
    message_id: IdRule = field(
        default="auto",
        metadata=key(
            "How ids in receipts relate to those in responses: auto (learned from traffic), exact, case, zeros, "
            "hex-decimal (hex in the response, decimal in the receipt) or decimal-hex."
        ),
    )
    receipt_id: Literal["as-received", "as-submitted"] = field(
        default="as-received",
        metadata=key(
            "The id in a report to the gateway: as the operator sent it, or as it stood in the submit_sm_resp, for "
            "gateways that do not convert between hex and decimal."
        ),
    )
    receipt_text: bool = field(
        default=False,
        metadata=key("The operator's receipts look like MO (esm_class 0): tell them by the shape of their text."),
    )
    track: Literal["all", "requested"] = field(
        default="all",
        metadata=key("Which MT become open messages: all, or only those that requested a report."),
    )
    unclaimed: Literal["park", "local", "drop"] = field(
        default="park",
        metadata=key(
            "A report that no node claimed for claim_for_s is parked, given to the local gateway, or dropped."
        ),
    )
    observe: bool = field(
        default=False,
        metadata=key("true: unmatched reports go to the local gateway as before; the log says what would have been."),
    )
    retry_status: int = field(
        default=ESME_RTHROTTLED,
        metadata=key(
            "What makes this operator send a report again: a command_status by number or name.",
            read=status,
            shown=status_name,
        ),
    )
    busy_status: int = field(
        default=ESME_RTHROTTLED,
        metadata=key(
            "To the gateway, for an MT, when the window stays full or the node drains.", read=status, shown=status_name
        ),
    )
    no_bind_status: int = field(
        default=ESME_RSYSERR,
        metadata=key("To the gateway, for an MT, when no operator bind is up.", read=status, shown=status_name),
    )
    no_bind: Literal["status", "close"] = field(
        default="status",
        metadata=key("With no operator bind up: answer MT with no_bind_status, or close the gateway's session."),
    )
    on_temporary_error: Literal["custody", "retry_status"] = field(
        default="custody",
        metadata=key(
            "When the gateway answers a report with a temporary error or not in time: take it into custody and answer "
            "ESME_ROK, or answer retry_status."
        ),
    )
    gateway_answer_s: float = field(
        default=3.0,
        validator=above(0),
        metadata=key("How long the gateway has to answer a report before on_temporary_error applies."),
    )
    race_window_s: float = field(
        default=1.0,
        validator=at_least(0),
        metadata=key("How long an unmatched report waits for the responses that were outstanding when it came."),
    )
    operator_answer_s: float = field(
        default=8.0,
        validator=above(0),
        metadata=key("The operator is answered within this time; race_window_s and gateway_answer_s must fit in it."),
    )
    receipt_delay_ms: int = field(
        default=50,
        validator=between(0, 10_000),
        metadata=key("A report on another session than its MT's follows the MT's response after at least this long."),
    )
    enquire_link_s: float = field(
        default=30.0, validator=above(0), metadata=key("Send enquire_link after this long without traffic.")
    )
    enquire_link_timeout_s: float = field(
        default=10.0, validator=above(0), metadata=key("Drop the connection when enquire_link stays unanswered.")
    )
    response_s: float = field(
        default=60.0,
        validator=above(0),
        metadata=key("How long an MT may stay unanswered by the operator, and a report by the gateway."),
    )
    session_init_s: float = field(
        default=10.0, validator=above(0), metadata=key("How long after connecting a bind and its answer may take.")
    )
    inactivity_s: float = field(
        default=0.0,
        validator=at_least(0),
        metadata=key("Unbind a gateway that sends nothing but enquire_link for this long; 0: never."),
    )
    bind_inactivity_s: float = field(
        default=0.0,
        validator=at_least(0),
        metadata=key(
            "Unbind from the operator, and bind again, when a bind brought nothing but enquire_link for this long; 0: "
            "never."
        ),
    )
    connect_timeout_s: float = field(
        default=10.0, validator=above(0), metadata=key("How long connecting to the operator may take.")
    )
    reconnect_min_s: float = field(
        default=1.0, validator=above(0), metadata=key("The first wait before connecting again; it doubles from there.")
    )
    reconnect_max_s: float = field(
        default=60.0, validator=above(0), metadata=key("The longest wait before connecting again.")
    )
    refused_bind_s: float = field(
        default=300.0,
        validator=above(0),
        metadata=key(
            "The wait after the operator refused a bind: hammering gets accounts blocked. After ESME_RALYBND it is "
            "30 s (or rebind_wait_s, if longer) the first three times in a row: after a crash or a cut line the "
            "operator holds our dead session for a while."
        ),
    )
    rebind_wait_s: float = field(
        default=0.0,
        validator=at_least(0),
        metadata=key(
            "The wait between the end of a bind and the next one, where the operator wants one. It is kept over "
            "restarts, after a crash as well, and over changes of the configuration."
        ),
    )
    gateway_window: int = field(
        default=100,
        validator=between(1, 10_000),
        metadata=key("Reports and MO per gateway session that may wait for its answer at one time."),
    )
    open_message_days: float = field(
        default=7.0,
        validator=above(0),
        metadata=key("How long a message without a final report stays open, where its validity_period does not say."),
    )
    open_message_margin_h: float = field(
        default=24.0,  # final reports of what expired come late, and SMSCs' clocks and time zones are off
        validator=at_least(0),
        metadata=key("How long after the end of its validity_period a message stays open, for the final report."),
    )
    open_message_max_days: float = field(
        default=30.0,
        validator=above(0),
        metadata=key("The longest that a message stays open, whatever its validity_period."),
    )
    expired_events: bool = field(
        default=False,
        metadata=key(
            "Log dlr.expired for every message whose time is up before a final report; they are counted anyway."
        ),
    )
    final_grace_s: float = field(
        default=3600.0,
        validator=at_least(0),
        metadata=key("How long after its final report a message is still known, for duplicates and late reports."),
    )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to dial, in order of preference."""
        if self.hosts:
            return self.hosts
        return (Address(self.host, self.port),) if self.host is not None else ()

    def pace_per_s(self, nodes: int) -> float | None:
        """MT a second that this node may send as one of so many nodes; None: no limit."""
        limits = [self.max_per_s, self.account_max_per_s and self.account_max_per_s / nodes]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def outbind_credentials(self) -> tuple[str, Secret]:
        """system_id and password by which the operator introduces itself."""
        password = self.password if self.outbind_password is None else self.outbind_password
        return self.outbind_system_id or self.system_id, password

    @property
    def interface_version_octet(self) -> int:
        """interface_version as a bind carries it (SMPP 3.4 5.2.4)."""
        return _VERSIONS[self.interface_version]

    @property
    def connections(self) -> int:
        """How many connections, each a bind in the operator's count, this node makes."""
        return self.binds * 2 if self.bind_type == "transmitter+receiver" else self.binds
