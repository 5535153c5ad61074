"""What every simulated gateway of the chaos is told, besides its name, its account and its pace."""

from typing import Final

from dlrproxy.simulator.options import MOST_MESSAGES, GatewayOptions

_FOREVER_S: Final = float("inf")

# It sends until it is told that there are enough, dials again soon, and gives up for nothing that fails.
TIRELESS: Final = GatewayOptions(
    messages=MOST_MESSAGES,
    resubmit_ms=300.0,
    response_timeout_s=15.0,
    enquire_link_s=3.0,
    reconnect_ms=(100.0, 500.0),
    give_up_s=_FOREVER_S,
    linger_s=_FOREVER_S,
)
