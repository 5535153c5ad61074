"""The messages by which two nodes introduce themselves, before any frame: values, and their bytes.

    listener                        dialler
    Challenge(nonce)          ->
                              <-    Introduction(Hello, proof)
    Introduction(Hello, proof) ->
                              <-    Ready()

The listener says nothing about itself until the dialler has proved to belong to the ring. `ring/handshake.py` decides;
here are only the layouts. Like the frames (frames.py) they are tagged arrays: a later version may append fields, and a
decoder ignores what it does not know at the end. The hello travels as bytes inside the introduction, because the proof
covers the bytes that were sent, fields of later versions included.
"""

from typing import Final

import msgspec

from protocols.peer.frames import UNDECODABLE, FrameError

# A hello holds five names and numbers; 4 KiB leaves room for later fields and is what a stranger may make us hold.
MAX_HELLO_BYTES: Final = 4 * 1024
NONCE_BYTES: Final = 32  # the size of the HMAC's hash, so that a nonce is never met twice


class HelloError(FrameError):
    """Bytes that are no message of the handshake; the connection is closed without a word."""


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node says about itself."""

    node: str
    to: str  # the node that it means to talk to
    cluster: str
    oldest: int  # the frame versions it speaks, both ends included
    newest: int
    store_id: bytes
    boot: bytes  # random, drawn at process start: another one from the same node means that it was restarted
    dial: int  # the dialler's attempts in this boot, so that a late older attempt never displaces a newer link
    nonce: bytes
    capabilities: tuple[str, ...] = ()  # what it can do beyond its version; unknown ones are ignored
    release: str = ""  # of the program, for people: nothing is decided by it; empty: it does not say


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=101, gc=False):
    nonce: bytes


class Introduction(msgspec.Struct, frozen=True, array_like=True, tag=102, gc=False):
    hello: bytes  # an encoded Hello
    proof: bytes  # HMAC over the whole exchange so far; empty where the ring has no shared secret


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=103, gc=False):
    """The dialler accepts the listener; frames may follow."""


Message = Challenge | Introduction | Ready

_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_hello_decoder = msgspec.msgpack.Decoder(Hello)


def common_version(first: Hello, second: Hello) -> int | None:
    """The highest frame version that both speak; None when their ranges do not meet."""
    version = min(first.newest, second.newest)
    return version if version >= max(first.oldest, second.oldest) else None


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Raises HelloError."""
    _check_size(data)
    try:
        return _message_decoder.decode(data)
    except UNDECODABLE as error:
        raise HelloError(f"not a message of the handshake: {error}") from error


def encode_hello(hello: Hello) -> bytes:
    return _encoder.encode(hello)


def decode_hello(data: bytes) -> Hello:
    """Raises HelloError."""
    _check_size(data)
    try:
        return _hello_decoder.decode(data)
    except UNDECODABLE as error:
        raise HelloError(f"not a hello: {error}") from error


def _check_size(data: bytes) -> None:
    if len(data) > MAX_HELLO_BYTES:
        raise HelloError(f"{len(data)} bytes where a hello has at most {MAX_HELLO_BYTES}")
