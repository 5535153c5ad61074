"""Python's garbage collector, set for a node: a long life, little that is ever garbage in cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Allocations before a young collection; Python's own 700 suits programs that make little. Measured in a whole node at
# W=100 over 90,000 messages: collections took 4.1 us a message, the longest 65 ms; with what start-up made frozen 2.1
# and 24; with this threshold as well 0.6 and 5. At 50,000 the young ones alone take 20 ms.
YOUNG_OBJECTS: Final = 10_000
# What custody holds lives long as well, and there may be millions of it: a full collection looked at 100,000 waiting
# reports for 270 ms. So they are frozen in steps. What is frozen still goes as soon as nobody refers to it; only cycles
# among it stay, and a step sees few.
STEP: Final = 10_000


def tune_collector() -> None:
    """What was made until now (modules, classes, the configuration) is not looked at by the collector any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


class CustodyCollector:
    """Keeps the collector away from what is in custody."""

    def __init__(self) -> None:
        self._frozen = 0

    def holds(self, held: int) -> None:
        """So many are in custody now."""
        if held < self._frozen // 2:
            self._frozen = held  # it has emptied; not at once, or each small swing would freeze what is garbage soon
        if held >= self._frozen + STEP:
            gc.freeze()
            self._frozen = held


@contextmanager
def at_rest() -> Iterator[None]:
    """No collection meanwhile: all that is made stays. Where the collector is tuned, it does not look at it later."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count():
            gc.freeze()
        if enabled:
            gc.enable()
