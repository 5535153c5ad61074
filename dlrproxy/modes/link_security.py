"""How the links between nodes are secured and timed, from the configuration: those of the ring and those of a join."""

from dlrproxy.config import Address, Config, Join, Ring
from ring import tls
from ring.link_settings import LinkSettings


def link_settings(config: Config, listen: Address | None) -> LinkSettings:
    ring = config.ring
    return LinkSettings(
        heartbeat_s=ring.heartbeat_s,
        suspect_after_s=ring.suspect_after_s,
        dead_after_s=ring.dead_after_s,
        listen=None if listen is None else (listen.host, listen.port),
    )


def link_security(config: Config, in_force: tls.RingTls | None = None) -> tls.RingTls:
    """Of the links of the ring. Raises TlsError.

    What was made up for a secret is good for as long as the secret: another certificate would take a temporary file,
    and a reload must not fail because a disk is full.
    """
    return _security(config.ring, in_force)


def join_security(config: Config, in_force: tls.RingTls | None = None) -> tls.RingTls:
    """Of the links between gates, likewise: the ring's, where the join has nothing of its own. Raises TlsError."""
    return _security(config.join if config.join.secured else config.ring, in_force)


def _security(table: Ring | Join, in_force: tls.RingTls | None) -> tls.RingTls:
    secret = None if table.secret is None else table.secret.reveal()
    if table.ca_file and table.cert_file and table.key_file:
        return tls.mutual(table.ca_file, table.cert_file, table.key_file, secret)
    if secret is not None:
        made_up = in_force is not None and not in_force.mutual and in_force.secret == secret
        return in_force if in_force is not None and made_up else tls.shared_secret(secret)
    return tls.plain()
