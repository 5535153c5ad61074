"""The operator's dice. A fixed number is drawn per message, so that what befalls the n-th message of a run depends on
the seed and n alone, not on timing."""

from bisect import bisect
from itertools import accumulate
from random import Random
from typing import NamedTuple

from dlrproxy.simulator.ids import FIRST_HIGH, FIRST_LOW
from dlrproxy.simulator.options import OperatorOptions, Range, Spread
from protocols.smpp import constants as c


class Fate(NamedTuple):
    """What will happen to one submitted message."""

    number: int  # its id
    status: int  # of its response
    spread: Spread
    choice: float  # in [0, 1): which of the binds that come into question
    early: bool
    enroute: bool
    state: str
    delay_s: float  # from the response, or from the report before, to the next report


class Plan:
    """Draws fates. Refused messages use up an id as well: a fate does not depend on earlier ones."""

    __slots__ = ("_delay", "_draw", "_number", "_options", "_states", "_weights")

    def __init__(self, options: OperatorOptions) -> None:
        random = Random(options.seed)
        first = random.randrange(FIRST_LOW, FIRST_HIGH)
        self._number = (options.first_id if options.first_id is not None else first) - 1
        self._draw = random.random
        self._options = options
        self._delay = seconds(options.delay_ms)
        self._states = tuple(options.states)
        total = sum(options.states.values())
        self._weights = tuple(accumulate(weight / total for weight in options.states.values()))[:-1]

    def next(self) -> Fate:
        options, draw = self._options, self._draw
        self._number += 1
        fault, choice, routed, early, enroute, state, delay = (
            draw(), draw(), draw(), draw(), draw(), draw(), draw()
        )  # fmt: skip
        return Fate(
            self._number,
            self._status(fault),
            Spread.SAME if options.spread is Spread.OTHER and routed >= options.misroute else options.spread,
            choice,
            early < options.early,
            enroute < options.enroute,
            self._states[bisect(self._weights, state)],
            self._delay[0] + delay * (self._delay[1] - self._delay[0]),
        )

    def _status(self, fault: float) -> int:
        if fault < self._options.error:
            return c.ESME_RSYSERR
        if fault < self._options.error + self._options.throttle:
            return c.ESME_RTHROTTLED
        return c.ESME_ROK


def seconds(milliseconds: Range) -> Range:
    return milliseconds[0] / 1000, milliseconds[1] / 1000
