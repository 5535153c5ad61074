"""What an operator and a gateway can be told to do. The commands' options carry the same names."""

from collections.abc import Mapping
from enum import Enum

from attrs import Attribute, field, frozen, validators

from dlrproxy.simulator.ids import IdFormat
from protocols.smpp import constants as c

# Of one gateway: with seven characters of its name, four of the run and two dashes, a tag has 20, as many as come back.
MOST_MESSAGES = 9_999_999

Range = tuple[float, float]  # minimum and maximum of a uniform distribution; equal for a fixed value


class Spread(Enum):
    """Over which bind of the account a report goes.

    SAME: the bind that submitted the message, else one of the same node, else any.
    OTHER: a bind of another node than the submitting one; where all binds belong to one node, another connection;
           where there is only one, that one.
    RANDOM, ROUND_ROBIN: any bind of the account that receives.

    A node, as far as the operator can tell, is the system_type of the bind together with the address it comes from.
    """

    SAME = "same"
    OTHER = "other"
    RANDOM = "random"
    ROUND_ROBIN = "round-robin"


class Receipts(Enum):
    """Which messages are reported on: those that ask in registered_delivery, or all."""

    REQUESTED = "requested"
    ALL = "all"


class BindType(Enum):
    TRANSCEIVER = "transceiver"
    TRANSMITTER = "transmitter"
    RECEIVER = "receiver"
    PAIR = "transmitter+receiver"


def _ordered(_: object, attribute: "Attribute[Range]", value: Range) -> None:
    if not 0 <= value[0] <= value[1]:
        raise ValueError(f"{attribute.name}: {value} is not a range of times")


def _share(_: object, attribute: "Attribute[float]", value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name}: {value} is not between 0 and 1")


def _word(_: object, attribute: "Attribute[str]", value: str) -> None:
    if not value.isascii() or any(character.isspace() for character in value):
        raise ValueError(f"{attribute.name}: {value!r} has characters that a tag or a number cannot have")


def _run_name(_: object, attribute: "Attribute[str | None]", value: str | None) -> None:
    if value is not None and not (value.isascii() and value.isalnum() and len(value) <= 4):
        raise ValueError(f"{attribute.name}: {value!r} is not a word of at most four letters and digits")


_COUNT = validators.ge(0)
_POSITIVE = validators.ge(1)


@frozen(kw_only=True)
class MoOptions:
    """Mobile-originated messages that the operator makes up."""

    rate: float = 0.0  # a second
    count: int = 0  # in all; 0: no end
    after_binds: int = field(default=1, validator=_POSITIVE)  # that receive, before the first MO
    destinations: tuple[str, ...] = ("7000",)
    answers: float = field(default=0.0, validator=_share)  # from whom a message was for, to whom it came from
    text: str = "MO"  # the first words: a keyword for routing rules
    concatenated: float = field(default=0.0, validator=_share)
    parts: int = field(default=2, validator=(validators.ge(2), validators.le(255)))


@frozen(kw_only=True)
class OperatorOptions:
    """See `dlrproxy simulate operator --help`. Times in milliseconds and seconds as their names say."""

    host: str = "127.0.0.1"
    port: int = 2775
    accounts: Mapping[str, str] = field(factory=dict)  # system_id: password; empty: any credentials are good
    max_binds: int = field(default=0, validator=_COUNT)  # per system_id; 0: no cap
    receipts: Receipts = Receipts.REQUESTED
    spread: Spread = Spread.SAME
    misroute: float = field(
        default=1.0, validator=_share
    )  # with OTHER: the share of messages for which it holds; the rest are SAME
    delay_ms: Range = field(default=(0.0, 0.0), validator=_ordered)
    states: Mapping[str, float] = field(factory=lambda: {"DELIVRD": 1.0})
    enroute: float = field(default=0.0, validator=_share)
    overlap: bool = False  # a final report does not wait for the answer to the intermediate one
    early: float = field(default=0.0, validator=_share)
    early_gap_ms: float = 20.0
    response_id: IdFormat = IdFormat.HEX
    receipt_id: IdFormat | None = None  # None: as response_id
    tlv: bool = True
    tlv_id: IdFormat | None = None  # None: as receipt_id
    first_id: int | None = None  # None: drawn from the seed
    error: float = field(default=0.0, validator=_share)
    throttle: float = field(default=0.0, validator=_share)
    window: int = field(default=10, validator=_POSITIVE)
    answer_timeout_s: float = 10.0
    retry_ms: float = 1000.0
    max_retry_ms: float = 60000.0
    max_attempts: int = field(default=0, validator=_COUNT)  # 0: for ever
    max_queue: int = field(default=1_000_000, validator=_POSITIVE)
    mo: MoOptions = MoOptions()
    run: str | None = field(default=None, validator=_run_name)  # in the tags of MO; None: drawn from the wall clock
    seed: int = 1

    def __attrs_post_init__(self) -> None:
        if self.error + self.throttle > 1:
            raise ValueError("error and throttle together are more than every message")
        if not self.states or min(self.states.values()) < 0 or sum(self.states.values()) <= 0:
            raise ValueError("states: no state has a weight")
        unknown = sorted(set(self.states) - c.FINAL_STATES)
        if unknown:
            raise ValueError(f"states: {', '.join(unknown)} is not one of {', '.join(sorted(c.FINAL_STATES))}")


@frozen(kw_only=True)
class GatewayOptions:
    """See `dlrproxy simulate gateway --help`."""

    host: str = "127.0.0.1"
    port: int = 2775
    name: str = field(default="gw", validator=(_word, validators.min_len(1)))
    system_id: str = "user"
    password: str = field(default="secret", repr=False)
    system_type: str = ""
    bind_type: BindType = BindType.TRANSCEIVER
    binds: int = field(default=1, validator=_POSITIVE)
    interface_version: int = 0x34
    messages: int = field(
        default=0, validator=(_COUNT, validators.le(MOST_MESSAGES))
    )  # 0: only receives, until stopped
    rate: float | None = None  # a second, over all binds; None: as fast as the windows allow
    window: int = field(default=10, validator=_POSITIVE)
    source: str = field(default="12345", validator=(_word, validators.max_len(20)))
    destination_prefix: str = field(default="4670", validator=(_word, validators.max_len(13)))
    text: str = "hello from the simulator"
    registered_delivery: int = 1
    refuse_temporary: float = field(default=0.0, validator=_share)
    temporary_status: int = c.ESME_RTHROTTLED
    refuse_permanent: float = field(default=0.0, validator=_share)
    permanent_status: int = c.ESME_RX_P_APPN
    silent: float = field(default=0.0, validator=_share)
    answer_delay_ms: Range = field(default=(0.0, 0.0), validator=_ordered)
    resubmit_ms: float = 1000.0  # before a submit that got a temporary error is tried again
    response_timeout_s: float = 60.0
    enquire_link_s: float = 30.0
    reconnect_ms: Range = field(default=(200.0, 5000.0), validator=_ordered)  # first and longest wait
    give_up_s: float = 30.0  # without any progress
    linger_s: float = 0.5
    run: str | None = field(default=None, validator=_run_name)  # None: drawn from the wall clock
    seed: int = 1

    def __attrs_post_init__(self) -> None:
        if self.refuse_temporary + self.refuse_permanent + self.silent > 1:
            raise ValueError("refuse_temporary, refuse_permanent and silent together are more than every message")
        if self.bind_type is BindType.RECEIVER and self.messages:
            raise ValueError("a receiver cannot submit: messages must be 0")
