"""Two real MariaDB servers that replicate, with links that a test can cut."""

from concurrent.futures import ThreadPoolExecutor

import mariadb_server
from tcp_relay import Relay

from dlrproxy.store.sql.connection import Account

SETTINGS = {
    "log_bin": "binlog",
    "log_slave_updates": "ON",
    "gtid_strict_mode": "ON",
    "sync_binlog": "1",
    "relay_log": "relay",
    "relay_log_recovery": "ON",
    "slave_net_timeout": "4",
    "skip_slave_start": "ON",
    "rpl_semi_sync_slave_enabled": "ON",
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_master_timeout": "4294967295",
}

# What the accounts may do on every server. MariaDB's privileges; the ordinary account has none of the first.
ADMIN = (
    "READ_ONLY ADMIN, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, REPLICA MONITOR, BINLOG MONITOR, PROCESS, "
    "CONNECTION ADMIN, RELOAD"
)


class Pair:
    """`a` and `b` with an empty schema and its accounts; b, read-only, replicates from a."""

    def __init__(self):
        self.servers = {
            name: mariadb_server.new_server(server_id=str(number), **SETTINGS)
            for number, name in enumerate(("a", "b"), start=1)
        }
        self.links = {}  # by the server that is fetched from

    def start(self):
        with ThreadPoolExecutor() as threads:
            list(threads.map(mariadb_server.Server.start, self.servers.values()))
        for name, server in self.servers.items():
            self.links[name] = Relay(server.port)
            self._accounts(server)
        self.servers["b"].sql("SET GLOBAL read_only=ON")
        self.replicate("b", "a")
        return self

    def _accounts(self, server):
        server.sql(
            "SET sql_log_bin=0; CREATE DATABASE IF NOT EXISTS dlrproxy;"
            "CREATE USER app@localhost IDENTIFIED BY 'secret'; GRANT ALL ON dlrproxy.* TO app@localhost;"
            "CREATE USER admin@localhost IDENTIFIED BY 'secret'; GRANT ALL ON dlrproxy.* TO admin@localhost;"
            f"GRANT {ADMIN} ON *.* TO admin@localhost;"
            "CREATE USER copy@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO copy@'127.0.0.1';"
        )

    def replicate(self, name, source):
        """Of a server that has nothing that the source has not."""
        self.servers[name].sql(
            "SET GLOBAL rpl_semi_sync_master_enabled=OFF; SET GLOBAL gtid_slave_pos=@@gtid_current_pos;"
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self.links[source].port}, MASTER_USER='copy',"
            "MASTER_PASSWORD='secret', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1;"
            "START SLAVE;"
        )

    def account(self, name, user="admin"):
        return Account(socket=self.servers[name].socket, user=user, password="secret", schema="dlrproxy")

    def close(self):
        for link in self.links.values():
            link.close()
        for server in self.servers.values():
            if server.process is not None:
                server.kill()
            server.kill_stranger()
