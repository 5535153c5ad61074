"""The log: one JSON object a line. Event names, not sentences; secrets and texts never, phone numbers masked.

    log = logger("operators", operator="acme")
    log.info("bind.up", bind=1)

`configure` is called once, before any component takes its logger: a bound logger below its level costs 0.07 us a call,
structlog's lazy proxy 0.8 (measured). Nothing on the common path logs at all; the steps of a report or MO that leaves
it are route events, see `ROUTE_EVENTS`.
"""

import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from dlrproxy.config.tables import Log
from dlrproxy.log_sink import Sink
from ring.commands import EventName

# Fields that hold phone numbers, wherever they are logged.
NUMBER_FIELDS: Final = frozenset({"destination", "source", "subscriber"})
# Fields that never belong in a log; a call that has one is a mistake, and the value is withheld.
WITHHELD_FIELDS: Final = frozenset({"password", "secret", "token", "text", "short_message", "payload", "pdu", "frame"})
_WITHHELD: Final = "***"

_LONGEST_SHORT_CODE: Final = 6  # digits: a service's number, nobody's own
_SHOWN_AT_START: Final = 4  # country code and a little of the network
_SHOWN_AT_END: Final = 2


def configure(log: Log, *, node: str) -> Sink:
    """Set structlog up for this process, and the standard library's logging of other packages with it.

    Every line carries `node`. Raises OSError when the log file cannot be opened. Call `reopen` of what is returned when
    the file has been moved away.
    """
    sink = Sink(log.file)
    level = logging.getLevelNamesMapping()[log.level.upper()]
    processors: list[Processor] = [
        structlog.processors.format_exc_info,
        _withhold if log.full_numbers else _withhold_and_mask,
        _Line(node),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    # Other packages may put what they carry into their lower levels.
    logging.basicConfig(handlers=[_Foreign()], level=max(level, logging.WARNING), force=True)
    return sink


def logger(component: str, **fields: object) -> FilteringBoundLogger:
    """A component's logger, bound already, so that a filtered call costs next to nothing."""
    bound: FilteringBoundLogger = structlog.get_logger().bind(component=component, **fields)
    return bound


def mask(number: str | bytes) -> str:
    """Only the country and the last digits: "447911123456" becomes "4479******56".

    Short codes and names are not a person's number and stay.
    """
    text = number.decode("ascii", "backslashreplace") if isinstance(number, bytes) else number
    digits = text.removeprefix("+")
    if len(digits) <= _LONGEST_SHORT_CODE or not digits.isdecimal():
        return text
    start = text[: len(text) - len(digits) + min(_SHOWN_AT_START, len(digits) - 5)]
    return f"{start}{'*' * (len(text) - len(start) - _SHOWN_AT_END)}{text[-_SHOWN_AT_END:]}"


# Processors


def _withhold(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if not WITHHELD_FIELDS.isdisjoint(event):
        for name in WITHHELD_FIELDS & event.keys():
            event[name] = _WITHHELD
    return event


def _withhold_and_mask(log: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if not NUMBER_FIELDS.isdisjoint(event):
        for name in NUMBER_FIELDS & event.keys():
            if isinstance(event[name], str | bytes):
                event[name] = mask(event[name])
    return _withhold(log, method, event)


class _Line:
    """The last processor: the line itself, with what a reader looks for first in front."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._timestamp = _Timestamp()

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> bytes:
        return _encoded(
            {
                "timestamp": self._timestamp.now(),
                "level": "error" if method == "exception" else method,
                "event": event.pop("event"),
                "node": self._node,
                **event,
            }
        )


class _Timestamp:
    """ISO 8601 in UTC, with milliseconds. Formatting a date costs more than the rest of a line: once a second."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._text = ""
        self._second = -1
        self._to_the_second = ""

    def now(self) -> str:
        millisecond = time.time_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._text = self._of(*divmod(millisecond, 1000))
        return self._text

    def _of(self, second: int, millisecond: int) -> str:
        if second != self._second:
            self._second = second
            self._to_the_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._to_the_second}.{millisecond:03}+00:00"


def _encoded(fields: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(fields, default=_plain, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # integers beyond 64 bits, lone surrogates: rare, and worth a slower line
        return json.dumps(fields, default=_plain).encode() + b"\n"


def _plain(value: object) -> object:
    """What JSON has no word for. A Secret's str() is "***"."""
    match value:
        case bytes():
            return value.decode("ascii", "backslashreplace")
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case set() | frozenset():
            return sorted(value, key=str)
        case _:
            return str(value)


class _Foreign(logging.Handler):
    """Warnings and errors of other packages, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # their arguments do not fit their format
            said = str(record.msg)
        log = logger(record.name)
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("package.message", said=said, exc_info=record.exc_info)


# Route events

Kind = Literal["dlr", "mo"]
Step = Literal["missed", "expired"] | EventName


class EventDoc(NamedTuple):
    meaning: str
    fields: tuple[str, ...]  # beyond trace, operator, message_id, hop and lap, which every route event has


ROUTE_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "trace": "joins the events of one report or MO on all nodes; empty for an MT that got no report",
        "node": "the node that logs",
        "operator": "where it came from",
        "message_id": "the id that the report names, as received; empty for an MO",
        "hop": "links travelled in this lap; 0 where it has not travelled",
        "lap": "rounds of the ring, this one included; 0 where it has not travelled",
        "to": "the next node",
        "origin": "the node that took it from the operator",
        "by": "the node that claimed it, or that decided where it goes",
        "gateway": "the gateway that gets it",
        "instead_of": "the gateway that it was for, whose node is lost",
        "other": "the gateway that another part of the same message goes to",
        "status": "the gateway's answer, a command_status",
        "age_s": "seconds since the origin took it from the operator",
        "wait_s": "seconds until the next try",
        "complete": "every configured node has answered in this lap",
        "nodes": "node names, with a blank between them",
        "parked": "the reason for which it had been parked",
        "reason": "the name of the give-up, as in the counters",
        "destination": "the number that an MT went to, masked unless log.full_numbers",
        "would": 'under observe = true: what would have been done ("custody")',
    }
)

_STEPS: Final[Mapping[Step, EventDoc]] = MappingProxyType(
    {
        "received": EventDoc("the origin takes it into custody; the operator is answered ESME_ROK", ("gateway",)),
        "missed": EventDoc("it is about no open message of this node", ("would",)),
        "forwarded": EventDoc("sent to the next node of the lap", ("to",)),
        "crossed": EventDoc("no node of this ring owns it: sent to a gate of the other one", ("to",)),
        "waiting": EventDoc("the lap is over and nobody claimed it", ("complete", "nodes", "wait_s")),
        "busy": EventDoc("a node could not take it or look for it: custody or lookups are full there", ("nodes",)),
        "claimed": EventDoc("this node owns it and has it in its own custody", ("origin", "gateway")),
        "claim_refused": EventDoc("the origin has given it elsewhere; this node lets go of its claim", ("reason",)),
        "settled": EventDoc("the origin let go of it, durably, in favour of a node", ("by", "age_s", "parked")),
        "handed_on": EventDoc("the origin leaves: another node is its origin now", ("to", "age_s", "parked")),
        "inherited": EventDoc("this node is its origin now, in place of one that leaves", ("origin",)),
        "moved": EventDoc("in a quorum: put into the inbox of the node where its gateway is bound", ("to", "age_s")),
        "arrived": EventDoc("in a quorum: taken from this node's inbox into its custody", ("origin",)),
        "arrived_again": EventDoc(
            "in a quorum: it was taken from there before, and its origin, which had no answer, put it there once more",
            ("origin",),
        ),
        "stood_in": EventDoc("in a quorum: it goes to the gateway that stands in", ("gateway", "instead_of")),
        "delivered": EventDoc("the gateway took it", ("gateway",)),
        "superseded": EventDoc("an intermediate report after the final one: not delivered", ("gateway",)),
        "retried": EventDoc("the gateway could not take it: again later", ("gateway", "status", "wait_s", "reason")),
        "parked": EventDoc("set aside, visible and replayable", ("reason", "gateway", "status")),
        "parking_full": EventDoc("to be parked, and max_parked is reached: it stays in custody", ("reason",)),
        "gathered": EventDoc("a part of a concatenated MO: where all its parts go", ("gateway", "by")),
        "split": EventDoc("two nodes decided otherwise about one concatenated MO", ("gateway", "other", "nodes")),
        "replayed": EventDoc(
            "it was taken out of the parked ones: by a person, or by the node, which has its message now",
            ("reason", "to"),
        ),
        "dropped": EventDoc("given up by policy or by a person", ("reason", "parked")),
        "expired": EventDoc("no report: an MT's time is up without a final one", ("gateway", "destination")),
    }
)
ROUTE_EVENTS: Final[Mapping[str, EventDoc]] = MappingProxyType(
    {f"{kind}.{step}": doc for kind in ("dlr", "mo") for step, doc in _STEPS.items()}
)


class RouteLog:
    """Logs the steps of reports and MO that leave the common path.

    There are half a dozen for each, so they are lines like all others without structlog's way to them: 3 us an event
    instead of 12.
    """

    __slots__ = ("_node", "_redacted", "_sink", "_timestamp")

    def __init__(self, node: str, sink: Sink | None = None, *, full_numbers: bool = False) -> None:
        """Without a sink nothing is logged."""
        self._node = node
        self._sink = sink
        self._redacted = _withhold if full_numbers else _withhold_and_mask
        self._timestamp = _Timestamp()

    @classmethod
    def of(cls, log: Log, node: str, sink: Sink | None) -> "RouteLog":
        """By the settings `log.route_events`, `log.level` and `log.full_numbers`."""
        wanted = log.route_events and logging.getLevelNamesMapping()[log.level.upper()] <= logging.INFO
        return cls(node, sink if wanted else None, full_numbers=log.full_numbers)

    def event(
        self,
        kind: Kind,
        step: Step,
        *,
        trace: str,
        operator: str,
        message_id: bytes,
        hop: int = 0,
        lap: int = 0,
        **fields: str | float | bytes,
    ) -> None:
        """`fields` are those that ROUTE_EVENTS lists for this step."""
        if self._sink is None:
            return
        self._sink.msg(
            _encoded(
                {
                    "timestamp": self._timestamp.now(),
                    "level": "info",
                    "event": f"{kind}.{step}",
                    "node": self._node,
                    "component": "route",
                    "trace": trace,
                    "operator": operator,
                    "message_id": message_id.decode("ascii", "backslashreplace"),
                    "hop": hop,
                    "lap": lap,
                    **self._redacted(None, "info", fields),
                }
            )
        )
