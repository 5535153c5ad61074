"""Message ids as operators write them: one number, several spellings, which do not compare equal."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType

PADDED_WIDTH = 10  # the width that zero-padded decimal ids have in the field: a 32-bit number's longest

# First numbers are drawn from here: eight hex digits, nine decimal ones, so that padding shows and no spelling of
# one id is by chance another spelling of its neighbour.
FIRST_LOW = 0x1000_0000
FIRST_HIGH = 0x3000_0000

# Odd, so that multiplying by it modulo 2**128 maps distinct numbers to distinct UUIDs.
_UUID_STEP = 0x9E3779B97F4A7C15F39CC0605CEDC835
_UUID_MASK = (1 << 128) - 1

_HEX_DIGITS = re.compile("[0-9a-fA-F]{1,64}")  # SMPP allows no longer id


class IdFormat(Enum):
    """How a message id is spelled."""

    HEX = "hex"
    UPPER_HEX = "HEX"
    DECIMAL = "decimal"
    PADDED = "padded"
    UUID = "uuid"


def _uuid(number: int) -> str:
    digits = f"{number * _UUID_STEP & _UUID_MASK:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


_SPELLINGS: Mapping[IdFormat, Callable[[int], str]] = MappingProxyType(
    {
        IdFormat.HEX: "{:x}".format,
        IdFormat.UPPER_HEX: "{:X}".format,
        IdFormat.DECIMAL: str,
        IdFormat.PADDED: f"{{:0{PADDED_WIDTH}d}}".format,
        IdFormat.UUID: _uuid,
    }
)


def spelling(form: IdFormat) -> Callable[[int], str]:
    """The function that writes a number in this format."""
    return _SPELLINGS[form]


def readings(reported: str) -> tuple[str, ...]:
    """Other ids that a gateway which converts may take `reported` for, in canonical form (see `canonical`).

    Written apart from the proxy's own matching on purpose: the simulators judge it.
    """
    if not _HEX_DIGITS.fullmatch(reported):
        return ()
    found = [canonical(reported), str(int(reported, 16))]
    if reported.isdigit():
        found.append(f"{int(reported):x}")
    return tuple(found)


def canonical(message_id: str) -> str:
    """Lower case without leading zeros for an id of hexadecimal digits only; any other id as it is."""
    if not _HEX_DIGITS.fullmatch(message_id):
        return message_id
    return message_id.lower().lstrip("0") or "0"
