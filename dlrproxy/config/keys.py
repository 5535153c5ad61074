"""What a key of the configuration is made of: its documentation, its limits, and how its value is read from TOML.

`tables.py` and `operator.py` declare the keys with these; `reading.py` reads by them and `sample.py` documents from
them, so that the three cannot drift apart.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from attrs import Attribute, frozen

from dlrproxy.config.problems import nearest
from dlrproxy.secret import Secret
from protocols.smpp.constants import ESME_ROK, STATUS_NAMES

_METADATA = "dlrproxy.key"
_STATUS_BY_NAME = MappingProxyType({name: value for value, name in STATUS_NAMES.items()})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")  # RFC 1035 2.3.1, and "_", which some use
_LONGEST_NAME = 253  # RFC 1035 2.3.4, without the dot at the end
_LARGEST_STATUS = 0xFFFFFFFF  # command_status is a 4-octet integer, SMPP 3.4 3.2.3

Validator = Callable[[Any, "Attribute[Any]", Any], None]


class Address(NamedTuple):
    """A TCP address. A host is a name, an IPv4 address, or an IPv6 address without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen(kw_only=True)
class Key:
    """What the user is told about a key, and how its value is read and shown where its type does not say."""

    doc: str
    example: object = None  # a TOML value, shown where there is no default
    in_sample: bool = False  # set in the sample although it has a default: one of several keys, of which one is needed
    read: Callable[[Any], Any] | None = None  # TOML value to the field's; None: by the field's type
    shown: Callable[[Any], object] = lambda value: value  # the field's default as a TOML value


def key(doc: str, **more: Any) -> dict[str, Key]:
    """The metadata of an attrs field that is a key of the configuration file; `more` as in Key."""
    return {_METADATA: Key(doc=doc, **more)}


def key_of(attribute: "Attribute[Any]") -> Key | None:
    """None for a field that `load` works out and no user writes."""
    found: Key | None = attribute.metadata.get(_METADATA)
    return found


# Limits, as attrs validators; `reading.py` runs them key by key, so that every violation is reported at once.


def at_least(lowest: float) -> Validator:
    def check(_: object, __: "Attribute[Any]", value: float) -> None:
        if value < lowest:
            raise ValueError(f"must be at least {lowest}, is {value}")

    return check


def above(bound: float) -> Validator:
    def check(_: object, __: "Attribute[Any]", value: float) -> None:
        if value <= bound:
            raise ValueError(f"must be more than {bound}, is {value}")

    return check


def between(lowest: float, highest: float) -> Validator:
    def check(_: object, __: "Attribute[Any]", value: float) -> None:
        if not lowest <= value <= highest:
            raise ValueError(f"must be between {lowest} and {highest}, is {value}")

    return check


def octets(most: int) -> Validator:
    """A C-octet string of SMPP: ASCII, no NUL, at most `most` octets before the NUL that ends it."""

    def check(_: object, __: "Attribute[Any]", value: str) -> None:
        if not value.isascii() or "\0" in value:
            raise ValueError("must be plain ASCII")
        if len(value) > most:
            raise ValueError(f"must be at most {most} characters, has {len(value)}")

    return check


def proper_name(_: object, __: "Attribute[Any]", value: str) -> None:
    """Names travel in log fields, metrics labels and peer frames."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit; is {value!r}"
        )


def gate_name(_: object, __: "Attribute[Any]", value: str) -> None:
    """A node of one of two joined rings, by its cluster's name and its own."""
    cluster, _between, node = value.partition("/")
    if not (_NAME.fullmatch(cluster) and _NAME.fullmatch(node)):
        raise ValueError(f'must be "cluster/node", as in "north/gw1"; is {value!r}')


def proper_names(_: object, __: "Attribute[Any]", value: Mapping[str, Address]) -> None:
    """Gateways; "" is the one that is named as the node, until the node's name is known."""
    for name in value:
        if name:
            proper_name(None, __, name)


def not_empty(_: object, __: "Attribute[Any]", value: str) -> None:
    if not value:
        raise ValueError("must not be empty")


def host_name(_: object, __: "Attribute[Any]", value: str) -> None:
    """A name that can be asked for, or an address: no port, no scheme."""
    why = _why_no_host(value)
    if why:
        raise ValueError(f'must be a host name or an IP address, is "{value}": {why}')


def _why_no_host(value: str) -> str:
    """Empty if it is a host. What the resolver or TLS would not take would end the node, not one attempt."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        labels = value.removesuffix(".").split(".")
    else:
        return ""
    if "://" in value or ":" in value:
        return "it takes no scheme and no port"
    if "" in labels:
        return "a part between dots is empty"
    if len(value) > _LONGEST_NAME or any(len(label) > 63 for label in labels):
        return f"a part may have 63 characters, all of it {_LONGEST_NAME}"
    if not all(map(_LABEL.fullmatch, labels)):
        return "a part has letters, digits, '-' and '_', and no '-' at its ends (other letters as xn--)"
    if labels[-1].isdigit():
        return "it looks like an address and is none"
    return ""


def ip_address(_: object, __: "Attribute[Any]", value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f'must be an IP address, is "{value}"') from None


def websocket_url(_: object, __: "Attribute[Any]", value: str) -> None:
    """ws:// or wss:// with host and port, and nothing after them."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if parts.scheme not in {"ws", "wss"}:
        raise ValueError(f'must begin with wss:// (or ws:// on loopback), is "{value}"')
    if not parts.hostname or port is None:
        raise ValueError(f'must name host and port, as in "wss://10.0.0.1:7301", is "{value}"')
    if why := _why_no_host(parts.hostname):
        raise ValueError(f'must name a host or an IP address, is "{value}": {why}')
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f'takes nothing but host and port, as in "wss://10.0.0.1:7301", is "{value}"')


def frozen_mapping(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """An attrs converter, so that a frozen table holds no mutable dict."""
    return MappingProxyType(dict(value))


# Readers: a TOML value to the field's value; ValueError says what is wrong with it, TypeError what was expected.


def address(value: object) -> Address:
    """`"host:port"`, with brackets around an IPv6 address; port 0 lets the system choose."""
    if not isinstance(value, str):
        raise TypeError('must be a string such as "127.0.0.1:2775"')
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'must be "host:port"; is "{value}"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'an IPv6 address needs brackets, as in "[::1]:2775", is "{value}"')
    if why := _why_no_host(host):
        raise ValueError(f'must be "host:port"; is "{value}": {why}')
    return Address(host, int(port))


def status(value: object) -> int:
    """A command_status by number or by name."""
    if isinstance(value, str):
        if value not in _STATUS_BY_NAME:
            raise ValueError(f'unknown status "{value}"{nearest(value, _STATUS_BY_NAME)}; or give a number')
        value = _STATUS_BY_NAME[value]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError('must be a number such as 0x58, or a name such as "ESME_RTHROTTLED"')
    if not ESME_ROK < value <= _LARGEST_STATUS:
        raise ValueError(f"must be an error status between 1 and 0xFFFFFFFF, is {value:#x}")
    return value


def status_name(value: int) -> object:
    return STATUS_NAMES.get(value, value)


def secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise TypeError("must be a string")
    return Secret(value.encode())


def names_of_names(value: object) -> Mapping[str, str]:
    """A table such as { gw1 = "gw2" }, of proper names."""
    return {name: _proper(item) for name, item in _named(value, '{ gw1 = "gw2" }')}


def numbers_of_names(value: object) -> Mapping[str, int]:
    """A table such as { gw1 = 3 }."""
    read: dict[str, int] = {}
    for name, item in _named(value, "{ gw1 = 3 }"):
        if not isinstance(item, int) or isinstance(item, bool):
            raise TypeError(f"of {name} must be a whole number")
        read[name] = item
    return read


def _named(value: object, example: str) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        raise TypeError(f"must be a table such as {example}")
    return ((_proper(name), item) for name, item in value.items())


def _proper(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"must hold names of nodes, gateways or sites, not {name!r}")
    return name
