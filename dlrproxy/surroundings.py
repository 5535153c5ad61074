"""What the parts of one relay have in common."""

from collections.abc import Callable

from attrs import frozen

from dlrproxy.config.operator import Operator
from dlrproxy.counters import Counters
from dlrproxy.custody_port import Custody
from dlrproxy.logs import RouteLog
from dlrproxy.mo.routing import MoRouting
from dlrproxy.store.port import Store


@frozen
class Surroundings:
    operator: Operator
    store: Store
    custody: Custody
    counters: Counters
    mo: MoRouting
    routes: RouteLog
    now: Callable[[], float]  # the node's clock
    new_trace: Callable[[], str]
    roaming: bool  # every node knows the messages of all, and a gateway may be bound at another one
    wrap_up: Callable[[], None]  # to be called when something was done outside of a batch
