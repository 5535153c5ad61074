"""Times as SMPP writes them: validity_period and schedule_delivery_time (SMPP 3.4 7.1.1).

    YYMMDDhhmmsstnnp      16 octets: date, time, tenths of a second, a time zone in quarter hours, and
                          p = "+" or "-"   absolute: local time, ahead of UTC or behind it by nn quarter hours
                          p = "R"          relative: so many years, months, days, hours, minutes and seconds from now

Peers write other things too. What is not one of these two says nothing here, as an empty field does, and as a relative
time of nothing does: nobody means a message that is over before it is sent.
"""

import re
from datetime import UTC, datetime
from typing import Final

_PARTS: Final = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([-+R])")
_DAY_S: Final = 86_400
_QUARTER_HOUR_S: Final = 900
_FARTHEST_ZONE: Final = 56  # quarter hours; the specification stops at 48, and UTC+14 exists

# The longest that a month and a year can be: the caller keeps something for that long, and not too short.
_MONTH_DAYS: Final = 31
_YEAR_DAYS: Final = 366


def seconds_until(time: bytes, now: float) -> float | None:
    """From `now` (seconds since the epoch) to a time without its NUL; negative if it is over, None if it says nothing.

    An absolute year has two digits: the one nearest to `now` is meant.
    """
    found = _PARTS.fullmatch(time)
    if found is None:
        return None
    *digits, sign = found.groups()
    year, month, day, hour, minute, second, tenths, zone = map(int, digits)
    if sign == b"R":
        days = year * _YEAR_DAYS + month * _MONTH_DAYS + day
        return float(days * _DAY_S + hour * 3600 + minute * 60 + second) or None
    if zone > _FARTHEST_ZONE:
        return None
    try:
        local = datetime(_full_year(year, now), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    ahead = zone * _QUARTER_HOUR_S
    return local.timestamp() + tenths / 10 + (ahead if sign == b"-" else -ahead) - now


def _full_year(year: int, now: float) -> int:
    this_year = datetime.fromtimestamp(now, UTC).year
    return this_year + (year - this_year + 50) % 100 - 50
