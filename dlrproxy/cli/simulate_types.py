"""Values on the command line of `dlrproxy simulate`."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import click

from dlrproxy.simulator.options import Range
from protocols.smpp import constants as c


class RangeType(click.ParamType[Range]):
    """`50` or `50-200`: a time in milliseconds, or one drawn evenly between two."""

    name = "MS[-MS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        if isinstance(value, tuple):
            return value
        low, _, high = str(value).partition("-")
        try:
            found = float(low), float(high or low)
        except ValueError:
            self.fail(f"{value!r} is neither a number of milliseconds nor two with a dash between", param, ctx)
        if not 0 <= found[0] <= found[1]:
            self.fail(f"{value!r}: the first time must not be above the second", param, ctx)
        return found


class WeightsType(click.ParamType[Mapping[str, float]]):
    """`DELIVRD=90,UNDELIV=10`."""

    name = "STATE=WEIGHT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Mapping[str, float]:
        if isinstance(value, Mapping):
            return value
        weights = {}
        for part in str(value).split(","):
            state, _, weight = part.partition("=")
            try:
                weights[state.strip().upper()] = float(weight or 1)
            except ValueError:
                self.fail(f"{part!r} is not STATE=WEIGHT", param, ctx)
        return weights


class StatusType(click.ParamType[int]):
    """A command_status by number (0x58, 88) or by name (ESME_RTHROTTLED)."""

    name = "STATUS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        by_name: dict[str, int] = {name: number for number, name in c.STATUS_NAMES.items()}
        name = str(value)
        if name in by_name:
            return by_name[name]
        try:
            return int(name, 0)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor the name of a status", param, ctx)


class AccountType(click.ParamType[tuple[str, str]]):
    """`system_id:password`."""

    name = "SYSTEM_ID:PASSWORD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        system_id, colon, password = str(value).partition(":")
        if not colon or not system_id:
            self.fail("wanted SYSTEM_ID:PASSWORD", param, ctx)
        return system_id, password


SHARE = click.FloatRange(0, 1)
POSITIVE = click.FloatRange(0, min_open=True)
MILLISECONDS = RangeType()


def choice(values: type[Enum]) -> click.Choice[str]:
    """The values of an enumeration."""
    return click.Choice([member.value for member in values])
