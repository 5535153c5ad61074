"""How the commands that ask a running node show numbers, times and tables."""

import sys
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

GOOD, BAD, DOUBTFUL, QUIET = "green", "bold red", "yellow", "dim"

_PIPED_WIDTH = 200  # columns, where there is no terminal to ask: lines stay whole for grep
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def console() -> Console:
    # What is shown comes from elsewhere: "[Errno 111]" is no markup.
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False, emoji=False)


def table(*columns: str, title: str = "") -> Table:
    """Without lines, so that it can be copied."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim", padding=(0, 2, 0, 0)
    )
    for column in columns:
        name = column.lstrip(">")
        made.add_column(name, justify="right" if column != name else "left", overflow="fold")
    return made


def details(*rows: tuple[str, str | Text]) -> Table:
    """Names and values."""
    made = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows:
        made.add_row(Text(name, QUIET), value)
    return made


def duration(seconds: float | None) -> str:
    """The two greatest units: "1 d 2 h", "3 min 20 s", "0.4 s"."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left, shown = int(seconds), ""
    for size, name in _UNITS:
        count, rest = divmod(left, size)
        if shown:
            return f"{shown} {count} {name}" if count else shown
        if count:
            shown, left = f"{count} {name}", rest
    return shown


def moment(seconds: float) -> str:
    """Local time, with its offset: logs of several places are read side by side."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def size(octets: int) -> str:
    """In binary units."""
    power = min(max(octets.bit_length() - 1, 0) // 10, len(_SIZES) - 1)
    return f"{octets / 1024**power:.{1 if power else 0}f} {_SIZES[power]}"


def count(number: int) -> str:
    return f"{number:,}"
