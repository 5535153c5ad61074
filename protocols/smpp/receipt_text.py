"""The text of a receipt: `id:... sub:... dlvrd:... submit date:... done date:... stat:... err:... text:...`.

SMPP 3.4 appendix B gives that as an example. In the field any key may be missing, in another order or case, without
its blank, without a value, or glued to the value before it. So keys are looked for, not a layout. A text is bytes, one
octet a character; only ASCII means anything here, and nothing raises.
"""

import re
from types import MappingProxyType
from typing import Final

from protocols.smpp import constants as c

Span = tuple[int, int]  # first octet, and the first one behind it

# Words seen in stat: besides those of the specification's states; that FAILED is final is its sender's own wording.
FINAL_WORDS: Final = c.FINAL_STATES | {"DELIVERED", "UNDELIVERED", "UNDELIVERABLE", "REJECTED", "FAILED"}

# A word and its colon. Whether it is a key depends on the word and on what stands before it (`keys_of`).
_WORD_COLON: Final = re.compile(rb"(?<![A-Za-z_])([A-Za-z_]++(?:[ ]?+[Dd][Aa][Tt][Ee])?+)[ \t]*+:")
_KEYS: Final = MappingProxyType(
    {
        b"id": "id",
        b"message_id": "message_id",
        b"messageid": "message_id",
        b"msg_id": "message_id",
        b"msgid": "message_id",
        b"sub": "sub",
        b"dlvrd": "dlvrd",
        b"submit date": "submit date",
        b"submitdate": "submit date",
        b"submit_date": "submit date",
        b"done date": "done date",
        b"donedate": "done date",
        b"done_date": "done date",
        b"stat": "stat",
        b"err": "err",
        b"text": "text",
    }
)
# What ids are made of besides letters: a key behind one of these is the end of a value. So is "id:" behind a digit, but
# no other key, for some senders leave out the blank ("done date:1409131010stat:").
_INSIDE_VALUES: Final = frozenset(b"-./@+#")
_DIGITS: Final = frozenset(b"0123456789")

# "stat:DELIVRDerr:000": letters on both sides, so that only a known state tells where the key begins.
_KNOWN_WORDS: Final = sorted({*FINAL_WORDS, *c.MESSAGE_STATES.values()}, key=len, reverse=True)
_GLUED_STATE: Final = re.compile(f"({'|'.join(_KNOWN_WORDS)})(?:ERR|TEXT|ID|DONE ?DATE):")

# A token behind a blank that is a key itself: the value before it was empty ("err: IMSI: MSC:").
_FOREIGN_KEY: Final = re.compile(rb"[A-Za-z_]+:")
# Blanks end a value; Latin-1's next line (0x85) and no-break space (0xA0) are used as such, too.
_AROUND_VALUES: Final = b" \t\r\n\v\f\0\x85\xa0,;|\"'"
_FIRST_WORD: Final = re.compile(rb"[\s\0\x85\xa0,;|\"']*+([^\s\0\x85\xa0]*[^\s\0\x85\xa0,;|\"'])?")


def looks_like_receipt(text: bytes) -> bool:
    """Whether a text has a receipt's shape: it begins with one of the keys, and has an id and a state.

    A state word that the specification does not know needs one more of a receipt's keys beside it.
    """
    found = values_of(text) if begins_with_key(text) else {}
    if not found.get("id") or not (word := state_word(found.get("stat", b""))):
        return False
    return word in FINAL_WORDS or word in c.MESSAGE_STATES.values() or len(found) > 2


def fields_of(text: bytes) -> tuple[bytes | None, str | None, str | None]:
    """Id, state and error of a receipt's text; None for a key that it does not have, empty for one without a value."""
    spans = _spans_of(text)
    id_span = spans.get("id") or spans.get("message_id")
    stat_span, error_span = spans.get("stat"), spans.get("err")
    return (
        _value(text, id_span) or None if id_span else None,
        state_word(_value(text, stat_span)) if stat_span else None,
        _value(text, error_span).decode("ascii", "replace") if error_span else None,
    )


def values_of(text: bytes) -> dict[str, bytes]:
    """Every key that stands in a receipt's text, by its usual name, with its value; text's is all that follows it."""
    spans = _spans_of(text)
    return {name: text[slice(*span)] if name == "text" else _value(text, span) for name, span in spans.items()}


def id_span_of(text: bytes) -> Span | None:
    """Where in the text its id stands."""
    spans = _spans_of(text)
    span = spans.get("id") or spans.get("message_id")
    start, end = _word_span(text, span) if span else (0, 0)
    return (start, end) if start < end else None


def _spans_of(text: bytes) -> dict[str, Span]:
    """For every key where the space between it and the next key is.

    The text of the message comes last, and may imitate any key; so what follows `text:` counts only where a key stands
    nowhere before it, and an id only where the state follows as well: then `text:` was not the last key.
    """
    keys = keys_of(text)
    ends = [*(start for _, start, _ in keys[1:]), len(text)]
    head: dict[str, Span] = {}
    tail: dict[str, Span] = {}
    for (name, _, at), end in zip(keys, ends, strict=False):  # without a key there is one end too many
        if "text" in head:
            tail[name] = at, end  # the last one: those before it are the message's
        elif name == "text":
            head[name] = at, len(text)
        else:
            head.setdefault(name, (at, end))
    if "stat" in head:
        tail = {name: span for name, span in tail.items() if name == "err"}
    return tail | head


def keys_of(text: bytes) -> list[tuple[str, int, int]]:
    """Every key in the text: its name, where it starts, and where its value does."""
    found = []
    for match in _WORD_COLON.finditer(text):
        name = _KEYS.get(match[1].lower())
        start = match.start()
        if name is None:
            continue
        before = text[start - 1] if start else None
        if before in _INSIDE_VALUES or (before in _DIGITS and name in ("id", "message_id")):
            continue
        found.append((name, start, match.end()))
    return found


def begins_with_key(text: bytes) -> bool:
    """Whether a receipt's key stands at the very beginning, but for blanks and quotes."""
    keys = keys_of(text)
    return bool(keys) and not text[: keys[0][1]].strip(_AROUND_VALUES)


def _word_span(text: bytes, span: Span) -> Span:
    """Where the first word of a value is; an empty span if there is none, or if that word is a key we do not know."""
    start, end = span
    match = _FIRST_WORD.match(text, start, end)
    if match is None or match.start(1) < 0:
        return start, start
    word = match.span(1)
    return (start, start) if word[0] > start and _FOREIGN_KEY.match(text, *word) else word


def _value(text: bytes, span: Span) -> bytes:
    return text[slice(*_word_span(text, span))]


def state_word(value: bytes) -> str:
    """A stat word in upper case, whatever it is, without a key glued to it; a state's number becomes its name."""
    word = value.decode("ascii", "replace").upper()
    if ":" in word and (glued := _GLUED_STATE.match(word)):
        return glued[1]
    return c.MESSAGE_STATES.get(int(word), word) if value.isdigit() and len(word) <= 3 else word
