"""The configuration file: its tables and keys, how it is read, what is wrong with it, and its sample."""

from dlrproxy.config.database import Database, Pair, Quorum
from dlrproxy.config.keys import Address
from dlrproxy.config.loading import TABLES, Config, load, parse
from dlrproxy.config.operator import BindType, IdRule, Operator
from dlrproxy.config.problems import ConfigError, Problem
from dlrproxy.config.tables import Admin, Custody, Gate, Join, Level, Log, Mo, Mode, MoRule, Node, Peer, Ring
from dlrproxy.secret import Secret

__all__ = [
    "TABLES",
    "Address",
    "Admin",
    "BindType",
    "Config",
    "ConfigError",
    "Custody",
    "Database",
    "Gate",
    "IdRule",
    "Join",
    "Level",
    "Log",
    "Mo",
    "MoRule",
    "Mode",
    "Node",
    "Operator",
    "Pair",
    "Peer",
    "Problem",
    "Quorum",
    "Ring",
    "Secret",
    "load",
    "parse",
]
