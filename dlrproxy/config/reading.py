"""TOML tables to attrs values, strictly: no type is bent into another, no key is ignored, no problem hides another.

cattrs does the walking and gathers what went wrong with where (its detailed validation); this module says how a TOML
value becomes each type, and turns the gathered exceptions into problems with paths.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from dlrproxy.config.keys import Address, address, key_of
from dlrproxy.config.problems import ConfigError, Problem, unknown_key

T = TypeVar("T")
_Hook = Callable[[Any, Any], Any]

# tomllib says where only within its message, until Python 3.14.
_POSITION = re.compile(r"(?P<text>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


def toml(text: str, source: str) -> dict[str, Any]:
    """Raises ConfigError with line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, [_syntax_problem(str(error), text)]) from error


def _syntax_problem(message: str, text: str) -> Problem:
    found = _POSITION.fullmatch(message)
    if found is None:
        return Problem("", message)
    if found["line"] is not None:
        return Problem(f"line {found['line']}, column {found['column']}", found["text"])
    last_lines = text.rstrip("\n").split("\n")
    return Problem(f"line {len(last_lines)}, column {len(last_lines[-1]) + 1}", f"{found['text']} (the file ends here)")


class Reader:
    """Reads the tables of one document and keeps the problems of all of them.

    A table with a problem is read as None, so that what was read can still be checked against the rest.
    """

    def __init__(self, document: Mapping[str, Any], base: Path) -> None:
        """Relative paths are meant from the directory `base`."""
        self.problems: list[Problem] = []
        self.incomplete: set[str] = set()  # arrays of tables of which some table could not be read
        self._document = document
        self._converter = _converter(base)

    @property
    def names(self) -> frozenset[str]:
        """Of the tables that stand in the document."""
        return frozenset(self._document)

    def only(self, names: tuple[str, ...]) -> None:
        """No table but these may stand in the document."""
        self.problems.extend(Problem(name, unknown_key(name, names)) for name in self._document if name not in names)

    def table(self, cls: type[T], name: str) -> T | None:
        """[name]; an absent table is an empty one."""
        return self._read(cls, self._document.get(name, {}), name)

    def optional_table(self, cls: type[T], name: str) -> T | None:
        """[name]; None as well where there is none."""
        return self.table(cls, name) if name in self._document else None

    def tables(self, cls: type[T], name: str) -> dict[str, T]:
        """[[name]]: what could be read, by path."""
        values = self._document.get(name, [])
        if not isinstance(values, list):
            self.incomplete.add(name)
            self.problems.append(Problem(name, f"must be an array of tables: [[{name}]]"))
            return {}
        read = {path: self._read(cls, value, path) for path, value in _indexed(name, values)}
        if None in read.values():
            self.incomplete.add(name)
        return {path: value for path, value in read.items() if value is not None}

    def raw_tables(self, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """[[name]] as written, by path: for rules about which keys stand together."""
        values = self._document.get(name, [])
        if isinstance(values, list):
            yield from ((path, value) for path, value in _indexed(name, values) if isinstance(value, dict))

    def raw_table(self, name: str) -> Mapping[str, Any]:
        """[name] as written; empty where there is none."""
        value = self._document.get(name, {})
        return value if isinstance(value, dict) else {}

    def _read(self, cls: type[T], value: object, path: str) -> T | None:
        try:
            return self._converter.structure(value, cls)
        except (ClassValidationError, ValueError, TypeError) as error:
            self.problems.extend(_problems(error, path))
            return None


def _indexed(name: str, values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{name}[{index}]", value) for index, value in enumerate(values))


def _problems(error: BaseException, path: str) -> Iterator[Problem]:
    """Walk what cattrs gathered; a leaf is one of our own ValueErrors or TypeErrors, or a missing or unknown key."""
    if isinstance(error, IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            yield from _problems(
                inner, f"{path}[{item.index}]" if isinstance(item.index, int) else f"{path}.{item.index}"
            )
    elif isinstance(error, ClassValidationError):
        with_notes, without_notes = error.group_exceptions()
        for inner, attribute in with_notes:
            yield from _problems(inner, f"{path}.{attribute.name}")
        for inner in without_notes:
            yield from _problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [attribute.name for attribute in attrs.fields(error.cl) if key_of(attribute) is not None]
        for name in sorted(error.extra_fields):
            yield Problem(f"{path}.{name}", unknown_key(name, known))
    elif isinstance(error, KeyError):
        yield Problem(path, "missing; this key is required")
    else:
        yield Problem(path, str(error))


# How a TOML value becomes each type


def _converter(base: Path) -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)

    def listeners(value: object, _: object) -> Mapping[str, Address]:
        """One address, whose gateway is named "" until the node's name is known, or a table of gateway to address."""
        if isinstance(value, str):
            return {"": address(value)}
        if not isinstance(value, dict) or not value:
            raise TypeError('must be "host:port", or a table such as { shop1 = "127.0.0.1:2775" }')
        if "" in value:
            raise ValueError("a gateway must have a name")
        return converter.structure(value, dict[str, Address])

    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(Path, lambda value, _: base / Path(_filled(value)).expanduser())
    converter.register_structure_hook(Address, lambda value, _: address(value))
    converter.register_structure_hook_func(lambda wanted: wanted == Mapping[str, Address], listeners)
    converter.register_structure_hook_func(_is_literal, _one_of)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _table_hook(cls, converter))
    return converter


def _is_literal(wanted: Any) -> bool:
    origin: object = get_origin(wanted)
    return origin is Literal


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be a string in quotes, is {_shown(value)}")
    return value


def _filled(value: object) -> str:
    text = _string(value, str)
    if not text:
        raise ValueError("must not be empty")
    return text


def _integer(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"must be a whole number, is {_shown(value)}")
    return value


def _number(value: object, _: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"must be a number, is {_shown(value)}")
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return float(value)


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, is {_shown(value)}")
    return value


def _one_of(value: object, wanted: object) -> object:
    allowed = get_args(wanted)
    if value not in allowed:
        raise ValueError(f"must be one of {', '.join(map(_shown, allowed))}; is {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A wrong value, as far as it helps; a table or list is named only."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return str(value)


def _table_hook(cls: type[Any], converter: Converter) -> _Hook:
    """A table's reader: every key by its own hook; fields without key metadata are left to their defaults."""
    hooks: dict[str, Any] = {
        attribute.name: override(struct_hook=_key_hook(attribute, converter))
        if key_of(attribute) is not None
        else override(omit=True)
        for attribute in attrs.fields(cls)
    }
    fields = make_dict_structure_fn(cls, converter, **hooks)

    def read(value: Any, wanted: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"must be a table, is {_shown(value)}")
        return fields(value, wanted)

    return read


def _key_hook(attribute: "attrs.Attribute[Any]", converter: Converter) -> _Hook:
    """Read by the key's own reader or by type, then check its limits here, so that each key has its own problem."""
    key = key_of(attribute)
    wanted: Any = attribute.type
    is_list = get_origin(wanted) is tuple
    reader = key.read if key is not None else None

    def read(value: object, _: object) -> object:
        if is_list and not isinstance(value, list):
            raise TypeError(f"must be a list, is {_shown(value)}")
        result = reader(value) if reader is not None else converter.structure(value, wanted)
        if attribute.validator is not None:
            attribute.validator(None, attribute, result)
        return result

    return read
