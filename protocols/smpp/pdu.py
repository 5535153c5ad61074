"""Reading and writing PDUs field by field: for what we speak ourselves, for `explain`, and for the simulators.

Nothing that is only passing through is decoded here and encoded again; the relay copies bytes. Field layouts are
SMPP 3.4 chapter 4.
"""

import struct

from attrs import field, frozen

from protocols.smpp import constants as c
from protocols.smpp.constants import HEADER_SIZE
from protocols.smpp.framing import HEADER

_TLV = struct.Struct(">HH")


class BodyError(ValueError):
    """A body that does not parse. The session goes on: the PDU is answered or passed as it is."""


@frozen
class Bind:
    """The body of bind_transmitter, bind_receiver and bind_transceiver (SMPP 3.4 4.1)."""

    system_id: bytes
    password: bytes = field(repr=False)
    system_type: bytes = b""
    interface_version: int = 0x34
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: bytes = b""

    def encode(self) -> bytes:
        return b"%b\0%b\0%b\0%b%b\0" % (
            self.system_id,
            self.password,
            self.system_type,
            bytes((self.interface_version, self.addr_ton, self.addr_npi)),
            self.address_range,
        )


@frozen
class Message:
    """The body of submit_sm and deliver_sm (SMPP 3.4 4.4.1 and 4.6.1), and of data_sm (4.7.1), whose missing fields
    stay at their defaults.

    `tlvs` keeps order and repeats. `trailing` are bytes after the last whole TLV: kept, since peers send them.
    """

    service_type: bytes = b""
    source_ton: int = 0
    source_npi: int = 0
    source: bytes = b""
    dest_ton: int = 0
    dest_npi: int = 0
    destination: bytes = b""
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule_time: bytes = b""
    validity_period: bytes = b""
    registered_delivery: int = 0
    replace_if_present: int = 0
    data_coding: int = 0
    default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: tuple[tuple[int, bytes], ...] = ()
    trailing: bytes = b""

    def tlv(self, tag: int) -> bytes | None:
        """The value of the first TLV with this tag."""
        return next((value for found, value in self.tlvs if found == tag), None)

    def encode(self) -> bytes:
        """A submit_sm or deliver_sm body. Raises BodyError where short_message is too long for its length octet."""
        if len(self.short_message) > 255:  # 254 by the specification; the octet allows one more, and peers use it
            raise BodyError(f"short_message has {len(self.short_message)} octets: use message_payload")
        return b"%b\0%b%b\0%b%b\0%b%b\0%b\0%b%b%b" % (
            self.service_type,
            bytes((self.source_ton, self.source_npi)),
            self.source,
            bytes((self.dest_ton, self.dest_npi)),
            self.destination,
            bytes((self.esm_class, self.protocol_id, self.priority)),
            self.schedule_time,
            self.validity_period,
            bytes(
                (
                    self.registered_delivery,
                    self.replace_if_present,
                    self.data_coding,
                    self.default_msg_id,
                    len(self.short_message),
                )
            ),
            self.short_message,
            encode_tlvs(self.tlvs),
        )

    def encode_data_sm(self) -> bytes:
        """A data_sm body; fields that data_sm lacks are left out (SMPP 3.4 4.7.1)."""
        return b"%b\0%b%b\0%b%b\0%b%b" % (
            self.service_type,
            bytes((self.source_ton, self.source_npi)),
            self.source,
            bytes((self.dest_ton, self.dest_npi)),
            self.destination,
            bytes((self.esm_class, self.registered_delivery, self.data_coding)),
            encode_tlvs(self.tlvs),
        )


def pack(command_id: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    """One whole PDU."""
    return HEADER.pack(HEADER_SIZE + len(body), command_id, status, sequence) + body


def encode_tlvs(tlvs: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(_TLV.pack(tag, len(value)) + value for tag, value in tlvs)


def parse_tlvs(body: bytes, start: int) -> tuple[tuple[tuple[int, bytes], ...], bytes]:
    """TLVs from `start` to the end, and what is left after the last whole one (never an error: peers pad)."""
    found = []
    end = len(body)
    while start + 4 <= end:
        tag, length = _TLV.unpack_from(body, start)
        stop = start + 4 + length
        if stop > end:
            break
        found.append((tag, body[start + 4 : stop]))
        start = stop
    return tuple(found), body[start:]


class _Reader:
    """Fields in order from a body; running out of bytes is a BodyError that names the field."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def cstring(self, name: str) -> bytes:
        end = self.body.find(b"\0", self.at)
        if end < 0:
            raise BodyError(f"{name}: no NUL before the end of the body")
        value = self.body[self.at : end]
        self.at = end + 1
        return value

    def octet(self, name: str) -> int:
        if self.at >= len(self.body):
            raise BodyError(f"{name}: the body ends before it")
        value = self.body[self.at]
        self.at += 1
        return value

    def octets(self, count: int, name: str) -> bytes:
        if self.at + count > len(self.body):
            raise BodyError(f"{name}: {count} octets announced, {len(self.body) - self.at} left")
        value = self.body[self.at : self.at + count]
        self.at += count
        return value


def parse_bind(body: bytes) -> Bind:
    """Raises BodyError. The address fields at the end may be missing: some clients cut them."""
    read = _Reader(body)
    system_id, password, system_type = (read.cstring(name) for name in ("system_id", "password", "system_type"))
    version = read.octet("interface_version")
    if read.at == len(body):
        return Bind(system_id, password, system_type, version)
    ton, npi = read.octet("addr_ton"), read.octet("addr_npi")
    return Bind(system_id, password, system_type, version, ton, npi, body[read.at :].split(b"\0", 1)[0])


def parse_outbind(body: bytes) -> tuple[bytes, bytes]:
    """system_id and password of an outbind body (SMPP 3.4 4.1.7.1). Raises BodyError."""
    read = _Reader(body)
    return read.cstring("system_id"), read.cstring("password")


def parse_message(body: bytes) -> Message:
    """A submit_sm or deliver_sm body. Raises BodyError."""
    read = _Reader(body)
    service_type = read.cstring("service_type")
    source_ton, source_npi = read.octet("source_addr_ton"), read.octet("source_addr_npi")
    source = read.cstring("source_addr")
    dest_ton, dest_npi = read.octet("dest_addr_ton"), read.octet("dest_addr_npi")
    destination = read.cstring("destination_addr")
    esm_class, protocol_id, priority = (read.octet(name) for name in ("esm_class", "protocol_id", "priority_flag"))
    schedule_time, validity = read.cstring("schedule_delivery_time"), read.cstring("validity_period")
    registered, replace, coding, default_id, length = (
        read.octet(name)
        for name in (
            "registered_delivery",
            "replace_if_present_flag",
            "data_coding",
            "sm_default_msg_id",
            "sm_length",
        )
    )
    text = read.octets(length, "short_message")
    tlvs, trailing = parse_tlvs(body, read.at)
    return Message(
        service_type, source_ton, source_npi, source, dest_ton, dest_npi, destination, esm_class, protocol_id, priority,
        schedule_time, validity, registered, replace, coding, default_id, text, tlvs, trailing,
    )  # fmt: skip


def parse_data_sm(body: bytes) -> Message:
    """A data_sm body. Raises BodyError."""
    read = _Reader(body)
    service_type = read.cstring("service_type")
    source_ton, source_npi = read.octet("source_addr_ton"), read.octet("source_addr_npi")
    source = read.cstring("source_addr")
    dest_ton, dest_npi = read.octet("dest_addr_ton"), read.octet("dest_addr_npi")
    destination = read.cstring("destination_addr")
    esm_class, registered, coding = (read.octet(name) for name in ("esm_class", "registered_delivery", "data_coding"))
    tlvs, trailing = parse_tlvs(body, read.at)
    return Message(
        service_type, source_ton, source_npi, source, dest_ton, dest_npi, destination, esm_class,
        registered_delivery=registered, data_coding=coding, tlvs=tlvs, trailing=trailing,
    )  # fmt: skip


def parse(frame: bytes) -> Message:
    """The message in a whole submit_sm, deliver_sm or data_sm PDU. Raises BodyError."""
    (command,) = struct.unpack_from(">I", frame, 4)
    body = frame[HEADER_SIZE:]
    return parse_data_sm(body) if command == c.DATA_SM else parse_message(body)


def response_id(frame: bytes) -> bytes:
    """message_id of a submit_sm_resp, submit_multi_resp or data_sm_resp PDU; empty where the body has none.

    A body without a NUL is taken whole: some peers leave it out. Never ask this when command_status is not 0:
    an error response may carry an id.
    """
    end = frame.find(b"\0", HEADER_SIZE)
    return frame[HEADER_SIZE:] if end < 0 else frame[HEADER_SIZE:end]
