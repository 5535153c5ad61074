"""The nodes' TOML files and the secrets beside them: what the demo runs with, and a start for a set-up of one's own."""

import secrets
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from dlrproxy.demo.plan import Plan
from dlrproxy.demo.ports import LOOPBACK

OPERATOR = "acme"
SYSTEM_ID = "demo"
# What nobody owns is parked after this: reports on messages whose response the killed node took with it, which their
# gateways have submitted again. Several times as long as the node is away on a busy machine, since what it does own
# must find it back before.
KILL_CLAIM_FOR_S = 20

_PASSWORD_FILE = "acme.secret"  # noqa: S105 - a file's name
_SECRET_FILE = "ring.secret"  # noqa: S105 - a file's name
_WIDTH = 100


@frozen
class Addresses:
    """Ports on loopback."""

    operator: int
    gateways: Mapping[str, int]  # by node: where its gateway dials
    links: Mapping[str, int]  # by node: where its peers dial

    @classmethod
    def of(cls, plan: Plan, ports: list[int]) -> "Addresses":
        """From as many ports as `count` says."""
        names = plan.names
        return cls(
            ports[0],
            dict(zip(names, ports[1 : 1 + len(names)], strict=True)),
            dict(zip(names, ports[1 + len(names) :], strict=True)),
        )

    @staticmethod
    def count(plan: Plan) -> int:
        return 1 + 2 * plan.nodes


def write(directory: Path, plan: Plan, addresses: Addresses) -> tuple[dict[str, Path], str]:
    """Write everything that the nodes read, and make their data directories.

    Returns the file of each node, and the account's password. Raises OSError.
    """
    password = secrets.token_hex(4)  # SMPP allows eight characters
    _write_secret(directory / _PASSWORD_FILE, password)
    _write_secret(directory / _SECRET_FILE, secrets.token_urlsafe(32))
    files = {name: directory / f"{name}.toml" for name in plan.names}
    for name, path in files.items():
        path.write_text(toml(plan, addresses, name), encoding="utf-8")
        (directory / data_dir(name)).mkdir(parents=True)
    return files, password


def data_dir(name: str) -> str:
    return f"data/{name}"


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n", encoding="utf-8")


def toml(plan: Plan, addresses: Addresses, name: str) -> str:
    """The file of one node; `dlrproxy check-config` accepts it."""
    return "\n".join(_lines(plan, addresses, name)) + "\n"


def _lines(plan: Plan, addresses: Addresses, name: str) -> Iterator[str]:
    yield from _comment(
        f'Node {name} of {plan.nodes}, as "dlrproxy demo" ran it: a start for a set-up of your own. What to change is '
        "marked CHANGE; what differs between the files of the nodes is marked OWN. Relative paths are meant from the "
        "directory of this file. Every other key, with its meaning and its default: dlrproxy sample-config"
    )
    yield from ("", "[node]")
    yield from _key("OWN. One of the [[peers]] below.", f'name = "{name}"')
    yield from _key(
        "OWN, CHANGE: a directory on a local disk that survives, such as /var/lib/dlrproxy. What the node must not "
        "lose is kept here.",
        f'data_dir = "{data_dir(name)}"',
    )
    yield from ("", "[[operators]]")
    yield from _key("The operator's name in logs and metrics; the same on every node.", f'name = "{OPERATOR}"')
    yield from _key(
        "CHANGE: the operator's address. Here it is the demo's own simulated operator.",
        f'host = "{LOOPBACK}"',
        f"port = {addresses.operator}",
    )
    yield from _key(
        "CHANGE: the account. The gateway goes on binding with the same credentials, to this node.",
        f'system_id = "{SYSTEM_ID}"',
        f'password_file = "{_PASSWORD_FILE}"',
    )
    yield from _key(
        "OWN, CHANGE: leave it out unless the operator wants one. The simulated operator tells nodes apart by it, "
        "since all of them come from one address.",
        f'system_type = "{name}"',
    )
    yield from _key(
        "OWN, CHANGE: where this node's gateway dials instead of the operator; often 127.0.0.1:2775.",
        f'listen = "{LOOPBACK}:{addresses.gateways[name]}"',
    )
    yield ""
    yield from _comment("All nodes: the same list in every file. CHANGE the addresses.")
    for peer in plan.names:
        yield from ("[[peers]]", f'name = "{peer}"', f'url = "wss://{LOOPBACK}:{addresses.links[peer]}"', "")
    yield "[ring]"
    yield from _key("CHANGE: the same on every node; others are turned away.", 'cluster = "demo"')
    yield from _key(
        "CHANGE: a secret of your own, the same on every node; or certificates: ca_file, cert_file, key_file.",
        f'secret_file = "{_SECRET_FILE}"',
    )
    if plan.kill is not None:
        yield from _shortened()


def _shortened() -> Iterator[str]:
    """Timings of a run with a node killed: no other has to wait for any of them."""
    yield from (
        "",
        *_comment(
            "Shortened, so that a demo in which a node is killed ends within seconds. LEAVE OUT what follows: the "
            "defaults (in brackets) are meant for networks and for nodes that are away for hours."
        ),
        "",
    )
    yield from _key("[259200] A report that nobody owns is parked after this.", f"claim_for_s = {KILL_CLAIM_FOR_S}")
    yield from _key("[15] A lap that a node took down with it starts again after this.", "lap_timeout_s = 3")
    yield from _key("[5, 300] The waits after a lap without an owner.", "retry_min_s = 1", "retry_max_s = 2")
    yield from ("", "[custody]")
    yield from _key("[5] A claim that its origin has not settled is told again after this.", "settle_retry_s = 1")


def _key(comment: str, *lines: str) -> Iterator[str]:
    yield from _comment(comment)
    yield from lines


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False):
        yield f"# {line}"
