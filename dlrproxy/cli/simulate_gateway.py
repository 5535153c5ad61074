"""`dlrproxy simulate gateway`."""

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click

from dlrproxy.cli.simulate_running import open_ledger, playing, run, show
from dlrproxy.cli.simulate_types import MILLISECONDS, POSITIVE, SHARE, StatusType, choice
from dlrproxy.simulator.gateway import Gateway
from dlrproxy.simulator.options import MOST_MESSAGES, BindType, GatewayOptions


@click.command(
    epilog="Ends when every message has its final report, or nothing has moved for --give-up. Exit status 1 if "
    "messages are unfinished then. Ctrl-C unbinds and prints the summary."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to connect: the proxy, or an operator.")
@click.option("--port", default=2775, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option(
    "--name",
    default="gw",
    show_default=True,
    help="Of this gateway, in tags and ledgers: the last seven characters must tell gateways apart.",
)
@click.option("--system-id", default="user", show_default=True, help="Of the account.")
@click.option("--password", default="secret", show_default=True, help="Of the account.")
@click.option(
    "--system-type",
    default="",
    help="Sent in the bind. By it the simulated operator tells nodes apart that share an address.",
)
@click.option(
    "--bind-type",
    default=BindType.TRANSCEIVER.value,
    show_default=True,
    type=choice(BindType),
    help="transmitter+receiver opens both for each of --binds.",
)
@click.option("--binds", default=1, show_default=True, type=click.IntRange(1), help="How many.")
@click.option(
    "--messages",
    default=100,
    show_default=True,
    type=click.IntRange(0, MOST_MESSAGES),
    help="How many to submit. 0: none, only receive until stopped.",
)
@click.option(
    "--rate",
    default=None,
    type=POSITIVE,
    help="Submits a second, over all binds.  [default: as fast as the windows allow]",
)
@click.option("--window", default=10, show_default=True, type=click.IntRange(1), help="Unanswered submits per bind.")
@click.option("--source", default="12345", show_default=True, help="Sender of the messages.")
@click.option(
    "--destination-prefix",
    default="4670",
    show_default=True,
    help="Beginning of the destinations; seven digits drawn from the seed follow.",
)
@click.option(
    "--text",
    default="hello from the simulator",
    show_default=True,
    help="Text of the messages, after a tag of up to 20 characters that comes back in receipts.",
)
@click.option(
    "--registered-delivery",
    default=1,
    show_default=True,
    type=click.IntRange(0, 255),
    help="0 asks for no reports: a message is then done when it is accepted.",
)
@click.option(
    "--refuse-temporary",
    default=0.0,
    show_default=True,
    type=SHARE,
    help="Share of reports and MO answered with --temporary-status.",
)
@click.option(
    "--temporary-status", default="ESME_RTHROTTLED", show_default=True, type=StatusType(), help="A number or a name."
)
@click.option(
    "--refuse-permanent",
    default=0.0,
    show_default=True,
    type=SHARE,
    help="Share of reports and MO answered with --permanent-status.",
)
@click.option(
    "--permanent-status", default="ESME_RX_P_APPN", show_default=True, type=StatusType(), help="A number or a name."
)
@click.option("--silent", default=0.0, show_default=True, type=SHARE, help="Share of reports and MO never answered.")
@click.option(
    "--answer-delay", default="0", show_default=True, type=MILLISECONDS, help="Time before a report or MO is answered."
)
@click.option(
    "--resubmit",
    "resubmit_ms",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Milliseconds before a message that got a temporary error is submitted again.",
)
@click.option(
    "--reconnect",
    default="200-5000",
    show_default=True,
    type=MILLISECONDS,
    help="First and longest wait before a lost link is opened again; doubles in between.",
)
@click.option(
    "--response-timeout",
    default=60.0,
    show_default=True,
    type=POSITIVE,
    help="Seconds to wait for a submit_sm_resp; then the link is closed and opened again.",
)
@click.option(
    "--enquire-link",
    default=30.0,
    show_default=True,
    type=POSITIVE,
    help="Seconds of silence before an enquire_link.",
)
@click.option(
    "--give-up",
    default=30.0,
    show_default=True,
    type=POSITIVE,
    help="Seconds without a response or report of its own, then it ends with messages unfinished.",
)
@click.option(
    "--linger",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds to stay bound after the last message is done, for what still comes.",
)
@click.option("--seed", default=1, show_default=True, type=int, help="For destinations and answers.")
@playing
def gateway(duration: float | None, ledger_path: Path | None, *, as_json: bool, **given: Any) -> None:
    """A gateway (ESME) that submits messages and keeps account of every report that comes back.

    What is unanswered when a link is lost is submitted again, as real gateways do.

    \b
    A thousand messages through a proxy, as fast as two binds with a window of 50 allow:
      dlrproxy simulate gateway --name gw1 --port 2775 --messages 1000 --binds 2 --window 50
    A hundred a second, with a ledger for `dlrproxy simulate judge`:
      dlrproxy simulate gateway --name gw1 --messages 5000 --rate 100 --ledger gw1.jsonl
    A gateway that only receives, slowly, and now and then says "not now":
      dlrproxy simulate gateway --messages 0 --answer-delay 100-500 --refuse-temporary 0.1
    """
    try:
        options = GatewayOptions(
            bind_type=BindType(given.pop("bind_type")),
            answer_delay_ms=given.pop("answer_delay"),
            reconnect_ms=given.pop("reconnect"),
            response_timeout_s=given.pop("response_timeout"),
            enquire_link_s=given.pop("enquire_link"),
            give_up_s=given.pop("give_up"),
            linger_s=given.pop("linger"),
            **given,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    ledger = open_ledger(ledger_path)
    simulated = Gateway(options, ledger)
    run(simulated.run, partial(_stop, simulated), duration, None if as_json else partial(_line, simulated))
    ledger.close()
    summary = simulated.summary()
    show(attrs.asdict(summary), as_json=as_json)
    if summary.unfinished:
        raise SystemExit(1)


async def _stop(simulated: Gateway) -> None:
    simulated.stop()


def _line(simulated: Gateway) -> str:
    counts = simulated.summary()
    return (
        f"{counts.name}: {counts.messages} messages, {counts.accepted} accepted, {counts.reports} reports, "
        f"{counts.unfinished} unfinished, {counts.mo} MO, {counts.reconnects} reconnects"
    )
