"""What a deliver_sm or data_sm reports, which part it is, and the same with another id in it."""

from collections.abc import Iterator

from fuzz import pdus
from protocols.smpp import concat, receipt_text, receipts, rewrite
from protocols.smpp import constants as c
from protocols.smpp.pdu import BodyError, Message, parse

_TEXT_RECEIPTS, _DATA_SM, _WHOLE = 0x01, 0x02, 0x04
_LONGEST_ID = 65


def check(data: bytes) -> None:
    """Any PDU is read without an error, and an id is replaced with every other byte kept and every length right.

    The first byte holds flags, the second the length of the id to put in, which follows; the rest is a body, or a PDU.
    """
    if len(data) < 2:
        return
    flags, size = data[0], data[1] % (_LONGEST_ID + 1)
    message_id, rest = data[2 : 2 + size], data[2 + size :]
    command = c.DATA_SM if flags & _DATA_SM else c.DELIVER_SM
    frame = rest if flags & _WHOLE and len(rest) >= c.HEADER_SIZE else pdus.frame(command, rest)
    text_receipts = bool(flags & _TEXT_RECEIPTS)
    report = _check_reading(frame, text_receipts=text_receipts)
    part = concat.part_of(frame)
    assert part is None or (1 <= part.number <= part.total and part.key)
    _check_text(rest)
    rewritten = rewrite.with_id(frame, message_id)
    _check_rewritten(frame, rewritten, message_id)
    if report is not None and report.text_id and rewritten.problem is None and _stands_alone(rewritten, message_id):
        again = receipts.read(rewritten.frame, text_receipts=text_receipts)
        assert again is not None
        assert again.message_id == message_id, (report, again)
        assert (again.state, again.error, again.final) == (report.state, report.error, report.final)
        assert rewrite.with_id(rewritten.frame, message_id) == rewritten


def _check_reading(frame: bytes, *, text_receipts: bool) -> receipts.Report | None:
    report = receipts.read(frame, text_receipts=text_receipts)
    full = receipts.read_full(frame, text_receipts=text_receipts)
    assert full.report == report
    assert (full.sign is None) == (report is None)
    if report is not None:
        assert report.message_id is None or report.message_id
        assert not (report.final and report.intermediate)
        assert report.message_id == (full.tlv_id or report.text_id)
    return report


def _check_text(text: bytes) -> None:
    message_id, _, _ = receipt_text.fields_of(text)
    span = receipt_text.id_span_of(text)
    assert (text[slice(*span)] if span else None) == message_id
    if receipt_text.looks_like_receipt(text):
        assert receipt_text.begins_with_key(text)
    values = receipt_text.values_of(text)
    assert message_id == (values.get("id", values.get("message_id")) or None)


def _check_rewritten(frame: bytes, rewritten: rewrite.Rewritten, message_id: bytes) -> None:
    done = rewritten.frame
    assert done[4 : c.HEADER_SIZE] == frame[4 : c.HEADER_SIZE]
    try:
        before = parse(frame)
    except BodyError:
        assert done == frame
        return
    if done == frame:
        return
    assert int.from_bytes(done[:4], "big") == len(done)
    after = parse(done)
    _check_replaced(before.short_message, after.short_message, message_id)
    assert after.trailing == before.trailing
    assert [tag for tag, _ in after.tlvs] == [tag for tag, _ in before.tlvs]
    for (tag, old), (_, new) in zip(before.tlvs, after.tlvs, strict=True):
        if tag in (c.TLV_RECEIPTED_MESSAGE_ID, c.TLV_MESSAGE_PAYLOAD):
            _check_replaced(old, new, message_id)
        else:
            assert old == new
    assert _others(before) == _others(after)


def _others(message: Message) -> bytes:
    """Every byte of the other fields."""
    return Message(
        message.service_type, message.source_ton, message.source_npi, message.source, message.dest_ton,
        message.dest_npi, message.destination, message.esm_class, message.protocol_id, message.priority,
        message.schedule_time, message.validity_period, message.registered_delivery, message.replace_if_present,
        message.data_coding, message.default_msg_id,
    ).encode()  # fmt: skip


def _check_replaced(old: bytes, new: bytes, message_id: bytes) -> None:
    """One stretch was replaced by the id, or nothing was."""
    if old == new:
        return
    wide = message_id.decode("latin-1")
    spellings = {message_id, wide.encode("utf-16-be"), wide.encode("utf-16-le")}
    pairs = enumerate(zip(old, new, strict=False))
    common = next((at for at, (before, after) in pairs if before != after), min(len(old), len(new)))
    assert any(_is_replaced(old, new, spelling, common) for spelling in spellings), (old, new)


def _is_replaced(old: bytes, new: bytes, spelling: bytes, common: int) -> bool:
    for start in range(common + 1):
        end = start + len(spelling)
        left = len(new) - end
        if new[start:end] == spelling and start + left <= len(old) and old.endswith(new[end:]):
            return True
    return False


def _stands_alone(rewritten: rewrite.Rewritten, message_id: bytes) -> bool:
    """The text can be read again: its id is a number between its key and a blank, where no other key is glued to it,
    and there is no user data header, whose length could come to fit a text that has grown."""
    body = receipts.read_body(rewritten.frame)
    alone = b":%b " % message_id
    return message_id.isdigit() and alone in rewritten.frame and body is not None and not body[2] & c.ESM_UDHI


def seeds() -> Iterator[bytes]:
    for receipt, response_id in pdus.receipts():
        given = response_id or b"0a1B2c"
        yield bytes((0, len(given))) + given + receipt[c.HEADER_SIZE :]
    for frame in pdus.deliveries():
        yield bytes((_WHOLE | _TEXT_RECEIPTS, 6)) + b"abc123" + frame
