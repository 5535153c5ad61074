"""A value that may be used and never shown: passwords of operators, the ring's shared secret, the API token."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

_SHOWN = "***"
_LARGEST_FILE = 64 * 1024  # bytes; anything above is the wrong file


class SecretError(Exception):
    """The secret cannot be had; the text says which file or variable, and why."""


class Secret:
    """Bytes that neither repr(), str(), format(), pickle nor a log line give away; `reveal()` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        """Tells a changed secret from an unchanged one on reload; for credentials use hmac.compare_digest."""
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")


def from_file(path: Path) -> Secret:
    """The file's content without the line ending that editors put at its end. Raises SecretError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise SecretError(f"{path} is larger than {_LARGEST_FILE} bytes; is it the right file?")
    content = content.rstrip(b"\r\n")
    if not content:
        raise SecretError(f"{path} is empty")
    return Secret(content)


def from_environment(name: str, environ: Mapping[str, str]) -> Secret:
    """Raises SecretError when the variable is not set. The bytes are those that the process was started with."""
    try:
        return Secret(os.fsencode(environ[name]))
    except KeyError:
        raise SecretError(f"the environment has no variable {name}") from None


def readable_by_others(path: Path) -> bool:
    """True when the file's mode lets every user of the machine read it."""
    return bool(path.stat().st_mode & 0o004)
