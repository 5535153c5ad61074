"""A configuration against the machine that it is read on: secrets, certificates, the data directory, a group."""

import grp
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import evolve, fields

from dlrproxy.config.check import Check, Draft
from dlrproxy.config.problems import Problem
from dlrproxy.secret import Secret, SecretError, from_environment, from_file, readable_by_others

T = TypeVar("T", bound=Any)  # a table

_TABLES: Final = ("ring", "join", "admin", "database", "pair")  # those that have secrets, but for [[operators]]
_SECRET_FILES: Final = (
    "password_file",
    "outbind_password_file",
    "secret_file",
    "token_file",
    "admin_password_file",
    "replication_password_file",
    "witness_secret_file",
    "key_file",
    "listen_key_file",
    "outbind_key_file",
)


def with_secrets(draft: Draft, environ: Mapping[str, str]) -> tuple[Draft, list[Problem]]:
    """The draft with every secret that can be had, and a problem for each that cannot."""
    problems: list[Problem] = []

    def had(path: str, source: Callable[[], Secret]) -> Secret | None:
        try:
            return source()
        except SecretError as error:
            problems.append(Problem(path, str(error)))
            return None

    def complete(path: str, table: T) -> T:
        """A secret is a field beside one that is named as it and "_file", and perhaps one with "_env"."""
        read: dict[str, Secret] = {}
        for name in _secrets(table):
            file, variable = getattr(table, f"{name}_file"), getattr(table, f"{name}_env", None)
            found = None
            if file is not None:
                found = had(f"{path}.{name}_file", partial(from_file, file))
            elif variable is not None:
                found = had(f"{path}.{name}_env", partial(from_environment, variable, environ))
            if found is not None:
                read[name] = found
        return evolve(table, **read)

    operators = {path: complete(path, operator) for path, operator in draft.operators.items()}
    tables = {name: complete(name, getattr(draft, name)) for name in _TABLES if getattr(draft, name) is not None}
    return evolve(draft, operators=operators, **tables), problems


def _secrets(table: Any) -> Iterator[str]:
    return (field.name for field in fields(type(table)) if hasattr(table, f"{field.name}_file"))


def _certificates(draft: Draft) -> Iterator[Problem]:
    for prefix, ca_file, cert_file, key_file in _certificate_keys(draft):
        files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        unreadable = {name: why for name, file in files.items() if file is not None and (why := _unreadable(file))}
        for name, why in unreadable.items():
            yield Problem(f"{prefix}{name}", why)
        if ca_file is not None and "ca_file" not in unreadable and not _holds_certificates(ca_file):
            yield Problem(f"{prefix}ca_file", f"{ca_file} holds no certificate in PEM")
        if cert_file is None or key_file is None or unreadable.keys() & {"cert_file", "key_file"}:
            continue
        if (refused := _refused_pair(cert_file, key_file)) is not None:
            yield Problem(f"{prefix}cert_file", refused)


def _certificate_keys(draft: Draft) -> Iterator[tuple[str, Path | None, Path | None, Path | None]]:
    """What stands before the names of the three keys, and their values."""
    for path, operator in draft.operators.items():
        yield f"{path}.", operator.ca_file, operator.cert_file, operator.key_file
        yield f"{path}.listen_", operator.listen_ca_file, operator.listen_cert_file, operator.listen_key_file
        yield f"{path}.outbind_", operator.outbind_ca_file, operator.outbind_cert_file, operator.outbind_key_file
    for name in ("ring", "join", "admin", "database"):
        table = getattr(draft, name)
        if table is not None:
            yield f"{name}.", table.ca_file, table.cert_file, table.key_file


def _unreadable(file: Path) -> str | None:
    try:
        with file.open("rb"):
            return None
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"


def _holds_certificates(file: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def _refused_pair(cert_file: Path, key_file: Path) -> str | None:
    """Why these two cannot be used together. A key with a pass phrase is refused, not asked for on the terminal."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key_file} does not belong to the certificate in {cert_file}"
        return f"{cert_file} and {key_file} are not a certificate and its unencrypted key, both in PEM"
    return None


def _data_directory(draft: Draft) -> Iterator[Problem]:
    if draft.node is not None and draft.node.data_dir.exists() and not draft.node.data_dir.is_dir():
        yield Problem("node.data_dir", f"{draft.node.data_dir} is not a directory")


def _group(draft: Draft) -> Iterator[Problem]:
    if draft.quorum is not None and (name := draft.quorum.notify_group) is not None and _group_id(name) is None:
        yield Problem("quorum.notify_group", f"this machine has no group {name}")


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


# Warnings: another user than the one that runs the node may be the one who checks


def _writable_data_directory(draft: Draft) -> Iterator[Problem]:
    if draft.node is None:
        return
    directory = draft.node.data_dir
    nearest = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        made = "" if nearest == directory else f" and cannot be made in {nearest}"
        yield Problem("node.data_dir", f"{directory} is not writable for this user{made}")


def _not_a_member(draft: Draft) -> Iterator[Problem]:
    if draft.quorum is None or (name := draft.quorum.notify_group) is None or os.geteuid() == 0:
        return
    if (number := _group_id(name)) is not None and number not in {os.getegid(), *os.getgroups()}:
        yield Problem("quorum.notify_group", f"this user is not a member of {name}, and cannot give it the socket")


def _open_secrets(draft: Draft) -> Iterator[Problem]:
    for path, file in _secret_files(draft):
        if file.exists() and readable_by_others(file):
            yield Problem(path, f"{file} can be read by every user of this machine; chmod o-r")


def _secret_files(draft: Draft) -> Iterator[tuple[str, Path]]:
    tables = [
        *draft.operators.items(),
        *((name, getattr(draft, name)) for name in _TABLES),
    ]
    for path, table in tables:
        for name in _SECRET_FILES:
            file = getattr(table, name, None)
            if file is not None:
                yield f"{path}.{name}", file


ERRORS: Final[tuple[Check, ...]] = (_certificates, _data_directory, _group)
WARNINGS: Final[tuple[Check, ...]] = (_writable_data_directory, _open_secrets, _not_a_member)
