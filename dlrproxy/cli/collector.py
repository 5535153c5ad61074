"""Python's garbage collector, set for a node: a long life, little that is ever garbage in cycles."""

import gc
from typing import Final

# Allocations before a young collection; Python's own 700 suits programs that make little. Measured in a whole node at
# W=100 over 90,000 messages: collections took 4.1 us a message, the longest 65 ms; with what start-up made frozen 2.1
# and 24; with this threshold as well 0.6 and 5. At 50,000 the young ones alone take 20 ms.
YOUNG_OBJECTS: Final = 10_000


def tune_collector() -> None:
    """What was made until now (modules, classes, the configuration) is not looked at by the collector any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
