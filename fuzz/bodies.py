"""PDU bodies to fields: `protocols.smpp.pdu`."""

from collections.abc import Iterator

from fuzz import pdus
from protocols.smpp import constants as c
from protocols.smpp.pdu import (
    Bind,
    BodyError,
    encode_tlvs,
    parse,
    parse_bind,
    parse_data_sm,
    parse_message,
    parse_tlvs,
    response_id,
)


def check(data: bytes) -> None:
    """A body gives a value that encodes to the same bytes again, or BodyError."""
    _check_message(data)
    _check_data_sm(data)
    _check_bind(data)
    tlvs, trailing = parse_tlvs(data, 0)
    assert encode_tlvs(tlvs) + trailing == data
    for command in (c.SUBMIT_SM, c.DATA_SM):
        frame = pdus.frame(command, data)
        try:
            parse(frame)
        except BodyError as error:
            assert str(error)
        assert frame[c.HEADER_SIZE :].startswith(response_id(frame))


def _check_message(body: bytes) -> None:
    try:
        message = parse_message(body)
    except BodyError:
        return
    assert message.encode() + message.trailing == body


def _check_data_sm(body: bytes) -> None:
    try:
        message = parse_data_sm(body)
    except BodyError:
        return
    assert message.encode_data_sm() + message.trailing == body


def _check_bind(body: bytes) -> None:
    """What clients cut from the end of a bind is read as zeros."""
    try:
        bind = parse_bind(body)
    except BodyError:
        return
    encoded = bind.encode()
    assert parse_bind(encoded) == bind
    common = min(len(encoded), len(body))
    assert encoded[:common] == body[:common]


def seeds() -> Iterator[bytes]:
    for frame in pdus.deliveries():
        yield frame[c.HEADER_SIZE :]
    bind = Bind(b"shop", b"secret", b"VMA", 0x34, 1, 1, b"^4477").encode()
    yield bind
    yield bind[:-8]
    yield Bind(b"shop", b"secret", interface_version=0x33).encode()[:-3]
    yield b"id1\0\x02\x10\0\x01\x34"
