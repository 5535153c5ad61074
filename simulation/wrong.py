"""What a run of a seed may be found guilty of."""

from enum import StrEnum


class Wrong(StrEnum):
    ACKNOWLEDGED_TOO_EARLY = "acknowledged_too_early"  # ESME_ROK, and it was neither on disk nor delivered
    LOST = "lost"  # answered ESME_ROK, not delivered, and on no disk
    MISDELIVERED = "misdelivered"  # a gateway got what is another's
    DELIVERED_TWICE = "delivered_twice"  # and nothing had broken between the first delivery and its answer
    OVERTAKEN = "overtaken"  # a report came before an earlier one of its message from the same bind
    LATE_INTERMEDIATE = "late_intermediate"  # an intermediate report after the final one
    SPLIT = "split"  # parts of one MO at two gateways, and no node has said so
    HELD_TWICE = "held_twice"  # in the end it is in two custodies
    STILL_HELD = "still_held"  # in the end it is delivered, and in custody or parked
    STUCK = "stuck"  # in the end it is in custody, and nothing stands in its way
    PARKED_WITHOUT_CAUSE = "parked_without_cause"  # nothing has happened that its reason stands for
    ROWS_LEFT = "rows_left"  # in the end a disk keeps rows of custody that are about nothing
    UNLAWFUL = "unlawful"  # a frame that goes round in circles, or where none of its kind may go
    UNANSWERED = "unanswered"  # the bind was there, and the operator got no answer
    BROKEN = "broken"  # the code raised


class FoundError(Exception):
    """Ends the run of a seed."""

    def __init__(self, wrong: Wrong, trace: str, what: str) -> None:
        super().__init__(f"{wrong.value}: {trace}: {what}")
        self.wrong = wrong
        self.trace = trace
