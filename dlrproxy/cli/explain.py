"""`dlrproxy explain`: what the proxy sees in a PDU or a receipt's text: why does the report not match?"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from attrs import frozen
from rich.console import Console
from rich.table import Table

from dlrproxy.config import ConfigError, load
from dlrproxy.explanation import (
    Explanation,
    UnusableInputError,
    explain_frame,
    frame_of_line,
    shown,
    tlv_of,
)
from protocols.smpp import constants as c
from protocols.smpp import pdu
from protocols.smpp.message_ids import Rule

# An input as its JSON line describes it: text, esm_class, data_coding, tlv, resp_id, pdu.
Described = dict[str, Any]

_AUTO = "auto"
_HEX_PDU_DIGITS = 2 * c.HEADER_SIZE  # fewer hex digits are no PDU: an id, or a text
_TLV_NAMES = {
    value: name.removeprefix("TLV_").lower() for name, value in sorted(vars(c).items()) if name.startswith("TLV_")
}
_TYPE_NAMES = {
    c.ESM_MO: "ordinary message",
    c.ESM_RECEIPT: "delivery receipt",
    c.ESM_DELIVERY_ACK: "delivery acknowledgement",
    c.ESM_MANUAL_ACK: "manual acknowledgement",
    c.ESM_ABORT: "conversation abort",
    c.ESM_INTERMEDIATE: "intermediate notification",
}


@frozen
class Habits:
    """How an operator's ids and receipts are to be taken."""

    rule: Rule | None  # None: auto
    receipt_text: bool


@click.command()
@click.argument("pdu_or_text", required=False)
@click.option("--resp-id", help="The message_id of the submit_sm_resp: does the report match it?")
@click.option(
    "--message-id",
    "rule",
    type=click.Choice([_AUTO, *(rule.value for rule in Rule)]),
    default=_AUTO,
    show_default=True,
    help="The operator's message_id setting; auto takes any rule that makes the two ids one.",
)
@click.option("--receipt-text", is_flag=True, help="The operator's receipts look like MO (its receipt_text setting).")
@click.option("--config", type=click.Path(path_type=Path), help="Take the last two settings from this file,")
@click.option("--operator", help="for this operator.")
@click.option("--esm-class", help="esm_class of a text, as 4 or 0x04. Default: what the text and TLVs look like.")
@click.option("--data-coding", help="data_coding of a text.")
@click.option("--tlv", "tlvs", multiple=True, metavar="TAG=VALUE", help="A TLV beside a text, as 0x001E=38601fa.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each input.")
def explain(
    pdu_or_text: str | None,
    resp_id: str | None,
    rule: str,
    receipt_text: bool,
    config: Path | None,
    operator: str | None,
    esm_class: str | None,
    data_coding: str | None,
    tlvs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what the proxy sees in PDU_OR_TEXT: a deliver_sm or data_sm in hex, or a receipt's text.

    Without it, JSON objects are read from standard input, one a line, with text, esm_class, data_coding, tlv and
    resp_id, all optional, or pdu in hex:

    \b
      {"text": "id:0059113978 stat:DELIVRD", "tlv": {"0x001E": "38601fa"}, "resp_id": "38601fa"}

    Exit code 1 when an input cannot be used; the other lines are explained all the same.
    """
    habits = _habits(rule, config, operator, receipt_text=receipt_text)
    given: Described = {
        "resp_id": resp_id,
        "esm_class": esm_class,
        "data_coding": data_coding,
        "tlv": _tlv_options(tlvs) or None,
    }
    failed = False
    for line in _inputs(pdu_or_text, {name: value for name, value in given.items() if value is not None}):
        try:
            explanation = _explained(line, habits)
        except UnusableInputError as error:
            failed = True
            _say_problem(str(error), as_json=as_json)
            continue
        if as_json:
            click.echo(json.dumps(explanation.as_json()))
        else:
            Console().print(_table(explanation))
    if failed:
        raise SystemExit(1)


def _habits(rule: str, config: Path | None, operator: str | None, *, receipt_text: bool) -> Habits:
    if (config is None) != (operator is None):
        raise click.UsageError("--config and --operator go together.")
    if config is not None:
        try:
            found = next((known for known in load(config).operators if known.name == operator), None)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
        if found is None:
            raise click.UsageError(f"{config} has no operator {operator!r}.")
        rule = found.message_id if rule == _AUTO else rule
        receipt_text = receipt_text or found.receipt_text
    return Habits(None if rule == _AUTO else Rule(rule), receipt_text)


def _tlv_options(given: tuple[str, ...]) -> dict[str, str]:
    tlvs = {}
    for option in given:
        tag, equals, value = option.partition("=")
        if not equals:
            raise click.UsageError(f"--tlv {option}: write TAG=VALUE, for instance 0x0427=2.")
        try:
            tlv_of(tag, value)
        except UnusableInputError as error:
            raise click.UsageError(f"--{error}") from None
        tlvs[tag] = value
    return tlvs


def _is_hex_pdu(text: str) -> bool:
    digits = "".join(text.replace(":", " ").split())
    return len(digits) >= _HEX_PDU_DIGITS and not digits.lower().strip("0123456789abcdef")


def _inputs(pdu_or_text: str | None, options: Described) -> Iterator[Described | UnusableInputError]:
    if pdu_or_text is not None:
        yield {**options, "pdu" if _is_hex_pdu(pdu_or_text) else "text": pdu_or_text}
        return
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield UnusableInputError(f"line {number}: not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield {**options, **value}
        else:
            yield UnusableInputError(f"line {number}: not a JSON object")


def _explained(line: Described | UnusableInputError, habits: Habits) -> Explanation:
    if isinstance(line, UnusableInputError):
        raise line
    resp_id = line.get("resp_id")
    return explain_frame(
        frame_of_line(line),
        resp_id=None if resp_id is None else str(resp_id).encode("latin-1", "replace"),
        rule=habits.rule,
        text_receipts=habits.receipt_text,
    )


def _say_problem(problem: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"problem": problem}))
    else:
        click.echo(f"explain: {problem}", err=True)


def _table(explanation: Explanation) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(explanation):
        table.add_row(name, _printable(value))
    return table


def _printable(value: str) -> str:
    """Without control characters, which a terminal would obey, and with rich's markup taken literally."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in value).replace("[", "\\[")


def _rows(explanation: Explanation) -> Iterator[tuple[str, str]]:
    yield from _pdu_rows(explanation)
    yield from _text_rows(explanation)
    yield from _verdict_rows(explanation)


def _pdu_rows(explanation: Explanation) -> Iterator[tuple[str, str]]:
    frame = explanation.frame
    command = int.from_bytes(frame[4:8], "big")
    yield "PDU", f"{c.COMMAND_NAMES.get(command, f'0x{command:08X}')}, {len(frame)} octets"
    if explanation.problem is not None:
        yield "problem", explanation.problem
    if explanation.reading.body is None:
        return
    source, destination, esm_class, coding, _, end, _ = explanation.reading.body
    yield "source_addr", shown(source)
    yield "destination_addr", shown(destination)
    kind = esm_class & c.ESM_TYPE_MASK
    header = ", with a user data header" if esm_class & c.ESM_UDHI else ""
    yield "esm_class", f"0x{esm_class:02X}: {_TYPE_NAMES.get(kind, f'reserved type 0x{kind:02X}')}{header}"
    yield "data_coding", f"{coding}"
    tlvs, trailing = pdu.parse_tlvs(frame, end)
    for tag, value in tlvs:
        yield f"TLV 0x{tag:04X}", f"{_TLV_NAMES.get(tag, 'unknown' if tag < 0x1400 else 'vendor')} = {_tlv(tag, value)}"
    if trailing:
        yield "after the TLVs", f"{len(trailing)} octets: {trailing.hex()}"


def _tlv(tag: int, value: bytes) -> str:
    if tag == c.TLV_MESSAGE_STATE and len(value) == 1:
        return f"{value[0]} ({c.MESSAGE_STATES.get(value[0], 'reserved')})"
    if tag == c.TLV_NETWORK_ERROR_CODE and len(value) == 3:
        return f"{value.hex()} (network type {value[0]}, error {int.from_bytes(value[1:], 'big')})"
    return shown(value) if value.rstrip(b"\0").isascii() and shown(value.rstrip(b"\0")).isprintable() else value.hex()


def _text_rows(explanation: Explanation) -> Iterator[tuple[str, str]]:
    reading = explanation.reading
    if reading.text_in:
        yield reading.text_in, shown(reading.text)
    for name, value in reading.values.items():
        yield f"  {name}:", shown(value) or "(empty)"


def _verdict_rows(explanation: Explanation) -> Iterator[tuple[str, str]]:
    report = explanation.reading.report
    yield "verdict", explanation.why
    if report is None:
        return
    where = "TLV 0x001E" if explanation.reading.tlv_id else "text"
    yield "id", "none: it cannot be matched" if report.message_id is None else f"{shown(report.message_id)} ({where})"
    yield "state", f"{report.state or 'none'} ({'final' if report.final else 'not final'})"
    yield "error", "none" if report.error is None else report.error or "(empty)"
    yield "looked up as", ", ".join(explanation.keys) or "nothing"
    match = explanation.match
    if match is not None:
        yield "response id", f"{'matches' if match.matches else 'does not match'}: {match.why}"
