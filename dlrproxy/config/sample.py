"""The commented sample, made from the keys' own metadata: complete because there is no second list of keys.

A key that is commented out as `#key = value` stands at its default, or is preceded by `For example:` where it has none.
"""

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import attrs

from dlrproxy.config import TABLES, Config, Gate, MoRule, Operator, Peer
from dlrproxy.config.keys import Key, key_of

EXAMPLE_FOLLOWS = "For example:"

_WIDTH = 100
_NO_BREAK = "\u00a0"
_HEAD = f"""\
The configuration of one dlrproxy node, complete. Prose stands after "# "; a key that is commented out ("#key = value")
stands at its default, or follows "{EXAMPLE_FOLLOWS}" where it has none. Names end in their unit: _s is seconds.
Relative paths are meant from the directory of this file. Check a file with: dlrproxy check-config FILE
"""
_TABLE_ARRAYS: dict[str, type[Any]] = {"operators": Operator, "peers": Peer}
_SECOND_PEER = "The other nodes, by the same list on every node. Then [ring] needs certificates or a secret."


def sample() -> str:
    """A file that `check-config` accepts."""
    lines = list(_comment(_HEAD))
    for name in TABLES:
        lines.append("")
        lines.extend(_table(name))
    return "\n".join(lines) + "\n"


def _table(name: str) -> Iterator[str]:
    if (cls := _TABLE_ARRAYS.get(name)) is not None:
        yield from _keys(cls, f"[[{name}]]")
    else:
        wanted: Any = attrs.fields_dict(Config)[name].type
        optional = [item for item in get_args(wanted) if attrs.has(item)]  # of a table that most nodes have not
        yield from _keys(optional[0] if optional else wanted, f"[{name}]", commented_out=bool(optional))
    if name == "peers":
        yield from ("", *_comment(_SECOND_PEER), "#[[peers]]", '#name = "gw2"', '#url = "wss://10.0.0.2:7301"')
    if name == "join":
        yield ""
        yield from _keys(Gate, "[[join.gates]]", commented_out=True)
    if name == "mo":
        yield ""
        yield from _keys(MoRule, "[[mo.rules]]", commented_out=True)


def _keys(cls: Any, header: str, *, commented_out: bool = False) -> Iterator[str]:
    yield from _comment(inspect.cleandoc(cls.__doc__))
    yield f"#{header}" if commented_out else header
    for attribute in attrs.fields(cls):
        key = key_of(attribute)
        if key is not None and not _is_array_of_tables(attribute):
            yield from _key(attribute, key, commented_out=commented_out)


def _key(attribute: "attrs.Attribute[Any]", key: Key, *, commented_out: bool) -> Iterator[str]:
    required = attribute.default is attrs.NOTHING
    has_default = not required and key.example is None
    live = (required or key.in_sample) and not commented_out
    value = key.example if required or key.example is not None else key.shown(attribute.default)
    yield ""
    yield from _comment(key.doc if live or has_default else f"{key.doc} {EXAMPLE_FOLLOWS}")
    yield f"{'' if live else '#'}{attribute.name} = {_toml(value)}"


def _is_array_of_tables(attribute: "attrs.Attribute[Any]") -> bool:
    return any(attrs.has(item) for item in get_args(attribute.type))


def _comment(text: str) -> Iterator[str]:
    unbroken = text.replace(EXAMPLE_FOLLOWS, EXAMPLE_FOLLOWS.replace(" ", _NO_BREAK))
    for line in textwrap.wrap(unbroken, _WIDTH, break_on_hyphens=False):
        yield f"# {line.replace(_NO_BREAK, ' ')}"


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)  # a TOML basic string has JSON's escapes
        case float() if value.is_integer():
            return str(int(value))
        case dict():
            return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in value.items())} }}"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return str(value)
