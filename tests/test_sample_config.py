"""The sample is complete, valid, and true about the defaults, key by key."""

import re
import tomllib

import attrs
import pytest

from dlrproxy.config import (
    Admin,
    Config,
    Custody,
    Database,
    Gate,
    Join,
    Log,
    Mo,
    MoRule,
    Node,
    Operator,
    Pair,
    Peer,
    Quorum,
    Ring,
    parse,
)
from dlrproxy.config.keys import key_of
from dlrproxy.config.sample import EXAMPLE_FOLLOWS, sample

TABLES = {
    "node": Node,
    "operators": Operator,
    "peers": Peer,
    "ring": Ring,
    "join": Join,
    "join.gates": Gate,
    "custody": Custody,
    "mo": Mo,
    "mo.rules": MoRule,
    "admin": Admin,
    "log": Log,
    "database": Database,
    "pair": Pair,
    "quorum": Quorum,
}
OPTIONAL = {"#[database]", "#[pair]", "#[quorum]"}
SAMPLE = sample()
HEADER = re.compile(r"#?\[{1,2}([a-z.]+)\]{1,2}")
COMMENTED_KEY = re.compile(r"#([a-z_]+) = ")


def sections():
    """Table name to its lines; the second [[peers]], commented out, adds to the first."""
    found, lines = {}, []
    for line in SAMPLE.splitlines():
        if header := HEADER.fullmatch(line):
            lines = found.setdefault(header[1], [])
        lines.append(line)
    return found


def defaults():
    """Line numbers of keys that are commented out and stand at their default."""
    lines = SAMPLE.splitlines()
    for number, line in enumerate(lines):
        above = lines[number - 1]
        if COMMENTED_KEY.match(line) and above.startswith("# ") and not above.endswith(EXAMPLE_FOLLOWS):
            yield number


def uncommented(*numbers):
    """With the optional tables, whose headers are commented out as well."""
    lines = [line.removeprefix("#") if line in OPTIONAL else line for line in SAMPLE.splitlines()]
    for number in numbers:
        lines[number] = lines[number].removeprefix("#")
    return "\n".join(lines)


def test_the_sample_is_valid_as_it_is():
    read = parse(SAMPLE)
    assert read.node.name == "gw1"
    assert read.operators[0].password.reveal() == b"changeit"
    assert not [warning for warning in read.warnings if warning.path != "node.data_dir"]


@pytest.mark.parametrize(("name", "cls"), TABLES.items())
def test_every_key_of_every_table_is_in_the_sample(name, cls):
    keys = {attribute.name for attribute in attrs.fields(cls) if key_of(attribute) is not None} - {"rules", "gates"}
    shown = {found[1] for line in sections()[name] if (found := re.match(r"#?([a-z_]+) = ", line))}
    assert shown == keys


def test_every_class_of_the_configuration_is_looked_at_here():
    tables = {attribute.name for attribute in attrs.fields(Config)} - {"warnings"}
    assert tables == {name for name in TABLES if "." not in name}


@pytest.mark.parametrize("cls", TABLES.values())
def test_every_key_is_documented_in_a_sentence(cls):
    for attribute in attrs.fields(cls):
        if (key := key_of(attribute)) is not None:
            assert key.doc.endswith("."), attribute.name


@pytest.mark.parametrize("number", [*defaults()])
def test_a_default_written_out_changes_nothing(number):
    assert parse(uncommented(number)) == parse(uncommented())


def test_all_defaults_written_out_change_nothing():
    numbers = [*defaults()]
    assert len(numbers) > 50
    assert parse(uncommented(*numbers)) == parse(uncommented())


def test_the_tables_of_other_modes_are_left_out():
    read = parse(SAMPLE)
    assert (read.database, read.pair, read.quorum) == (None, None, None)
    assert parse(uncommented()).quorum == Quorum()


def test_every_example_is_toml():
    examples = [line.removeprefix("#") for line in SAMPLE.splitlines() if COMMENTED_KEY.match(line)]
    for line in examples:
        assert len(tomllib.loads(line)) == 1


def test_the_sample_fits_a_terminal():
    assert max(map(len, SAMPLE.splitlines())) <= 110


def test_no_line_of_prose_has_the_indentation_of_its_source():
    assert not [line for line in SAMPLE.splitlines() if line.startswith("#") and "  " in line]


def test_the_sample_becomes_a_quorum_by_its_mode_and_what_the_cluster_needs():
    text = uncommented().replace('#mode = "ring"', 'mode = "quorum"').replace("wss://10.0.0.", "ws://127.0.0.")
    text = re.sub(r'#(\[\[peers\]\])\n#(name = "gw2")\n#(url = .*)', r"\1\n\2\n\3", text)
    for example in ("stand_in", "weights", "arbitrators", "sites"):
        text = re.sub(f"^#({example} = )", r"\1", text, flags=re.MULTILINE)
    read = parse(text)
    assert (read.node.mode, read.node_names, read.quorum.stand_in) == ("quorum", ("gw1", "gw2"), {"gw1": "gw2"})
    assert (read.quorum.weight("gw1"), read.quorum.arbitrators) == (3, {"garbd1": 1})
    assert {warning.path for warning in read.warnings} - {"node.data_dir"} == {
        "join", "pair", "quorum.sites", "operators[0].listen",
    }  # fmt: skip
