"""The accounts at this node's and the other node's database server, as the configuration gives them.

Both servers know the same accounts. Every function raises TlsError for certificates that cannot be used. Not imported
with the rest of the configuration, which needs no database driver.
"""

import os
import ssl
from typing import Final

import attrs

from dlrproxy.config import Config
from dlrproxy.config.database import Database, Pair
from dlrproxy.store.sql.connection import Account
from ring.tls import client_context

_NO_DATABASE: Final = "the configuration has no [database]"
_NO_PAIR: Final = "the configuration has no [pair]"


def ordinary(config: Config) -> Account:
    """Reads and writes the rows."""
    database = _database(config)
    return Account(
        host=database.host,
        port=database.port,
        socket=None if database.socket is None else os.fspath(database.socket),
        user=database.user,
        password=database.password.reveal().decode(),
        schema=database.schema,
        # A unix socket stays within the machine, and has no name that a certificate could hold.
        tls=_tls(database) if database.tls and database.socket is None else None,
        connect_timeout_s=database.connect_timeout_s,
    )


def admin(config: Config) -> Account:
    """Looks at the replication, and changes it; the ordinary account where no other is given."""
    return _as_admin(config, ordinary(config))


def peer_ordinary(config: Config) -> Account:
    """Writes what this node's journal holds into the other node's server."""
    database, pair = _database(config), _pair(config)
    return attrs.evolve(
        ordinary(config),
        host=pair.peer_host or "localhost",
        port=pair.peer_port,
        socket=None if pair.peer_socket is None else os.fspath(pair.peer_socket),
        tls=_tls(database) if database.tls and pair.peer_socket is None else None,
    )


def peer_admin(config: Config) -> Account:
    """Looks at the other node's server."""
    return _as_admin(config, peer_ordinary(config))


def _as_admin(config: Config, account: Account) -> Account:
    database = _database(config)
    if database.admin_user is None:
        return account
    return attrs.evolve(account, user=database.admin_user, password=database.admin_password.reveal().decode())


def _database(config: Config) -> Database:
    if config.database is None:
        raise ValueError(_NO_DATABASE)
    return config.database


def _pair(config: Config) -> Pair:
    if config.pair is None:
        raise ValueError(_NO_PAIR)
    return config.pair


def _tls(database: Database) -> ssl.SSLContext:
    return client_context(database.ca_file, (database.cert_file, database.key_file), "database.")
