"""`dlrproxy simulate operator`."""

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from dlrproxy.cli.simulate_running import open_ledger, playing, run, show
from dlrproxy.cli.simulate_types import MILLISECONDS, POSITIVE, SHARE, AccountType, WeightsType, choice
from dlrproxy.simulator.ids import IdFormat
from dlrproxy.simulator.operator import Operator
from dlrproxy.simulator.options import MoOptions, OperatorOptions, Receipts, Spread


@click.command(epilog="Stop it with Ctrl-C: it unbinds, writes its ledger and prints a summary.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=2775,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one and says which.",
)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    type=AccountType(),
    help="Who may bind; may be given several times. Default: anybody.",
)
@click.option(
    "--max-binds",
    default=0,
    type=click.IntRange(0),
    help="Binds per system_id; one more gets ESME_RALYBND. 0: no cap.  [default: 0]",
)
@click.option(
    "--spread",
    default=Spread.SAME.value,
    show_default=True,
    type=choice(Spread),
    help="Over which bind of the account a report goes. `same`: the one that submitted. `other`: one of "
    "another node (another system_type or address; failing that, another connection; failing that, the "
    "same). `random`, `round-robin`: any that receives.",
)
@click.option(
    "--misroute",
    default=1.0,
    show_default=True,
    type=SHARE,
    help="With --spread other: the share of messages that it is for. The rest go to the same bind.",
)
@click.option(
    "--receipts",
    default=Receipts.REQUESTED.value,
    show_default=True,
    type=choice(Receipts),
    help="Report on messages that ask for it in registered_delivery, or on all.",
)
@click.option(
    "--delay",
    default="0",
    show_default=True,
    type=MILLISECONDS,
    help="Time from the response to the report, and from an intermediate report to the final one.",
)
@click.option(
    "--early",
    default=0.0,
    show_default=True,
    type=SHARE,
    help="Share of messages whose report is sent before their submit_sm_resp.",
)
@click.option(
    "--early-gap-ms",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long the response follows after an early report.",
)
@click.option(
    "--states",
    default="DELIVRD",
    show_default=True,
    type=WeightsType(),
    help="Final states and their weights, as DELIVRD=90,UNDELIV=8,EXPIRED=2.",
)
@click.option(
    "--enroute",
    default=0.0,
    show_default=True,
    type=SHARE,
    help="Share of messages that get an intermediate ENROUTE report before the final one.",
)
@click.option(
    "--overlap",
    is_flag=True,
    help="Send the final report without waiting for the answer to the intermediate one, over the same bind.",
)
@click.option(
    "--response-id",
    default=IdFormat.HEX.value,
    show_default=True,
    type=choice(IdFormat),
    help="How submit_sm_resp spells the message id. `padded` is decimal with ten digits.",
)
@click.option(
    "--receipt-id",
    default=None,
    type=choice(IdFormat),
    help="How reports spell the same id.  [default: as --response-id]",
)
@click.option(
    "--tlv/--no-tlv", default=True, show_default=True, help="Reports carry receipted_message_id and message_state."
)
@click.option(
    "--tlv-id",
    default=None,
    type=choice(IdFormat),
    help="How receipted_message_id spells the id.  [default: as --receipt-id]",
)
@click.option(
    "--first-id",
    default=None,
    type=int,
    help="Number of the first message id. Give one to continue after a restart.  [default: from the seed]",
)
@click.option("--error", default=0.0, show_default=True, type=SHARE, help="Share of submits that get ESME_RSYSERR.")
@click.option(
    "--throttle", default=0.0, show_default=True, type=SHARE, help="Share of submits that get ESME_RTHROTTLED."
)
@click.option("--window", default=10, show_default=True, type=click.IntRange(1), help="Unanswered deliver_sm per bind.")
@click.option(
    "--answer-timeout",
    default=10.0,
    show_default=True,
    type=POSITIVE,
    help="Seconds to wait for a deliver_sm_resp; then the report goes out again, over another bind.",
)
@click.option(
    "--retry",
    "retry_ms",
    default=1000.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Milliseconds before a report that got a temporary error (ESME_RTHROTTLED, ESME_RMSGQFUL, "
    "ESME_RSYSERR) goes out again; doubles each time, up to a minute.",
)
@click.option(
    "--max-attempts",
    default=0,
    type=click.IntRange(0),
    help="Give a report up after so many attempts. 0: never.  [default: 0]",
)
@click.option(
    "--max-queue",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Reports and MO that may be open; at the bound submits get ESME_RMSGQFUL and MO wait.",
)
@click.option(
    "--mo-rate",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Mobile-originated messages a second.",
)
@click.option(
    "--mo-after-binds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="MO begin when so many binds receive: all of them, where parts are to be spread.",
)
@click.option(
    "--mo-answers",
    default=0.0,
    type=SHARE,
    help="Share of MO that answer a message submitted lately: from its recipient, to its sender.  [default: 0]",
)
@click.option("--mo-count", default=0, type=click.IntRange(0), help="How many MO in all. 0: no end.  [default: 0]")
@click.option(
    "--mo-destination",
    "mo_destinations",
    multiple=True,
    default=("7000",),
    show_default=True,
    help="Number that MO are sent to; one is drawn where several are given.",
)
@click.option(
    "--mo-text", default="MO", show_default=True, help="First words of an MO, a keyword for instance. A tag follows."
)
@click.option(
    "--mo-concatenated",
    default=0.0,
    show_default=True,
    type=SHARE,
    help="Share of MO that come in parts, each part over the next bind.",
)
@click.option("--mo-parts", default=2, show_default=True, type=click.IntRange(2, 255), help="Parts of such an MO.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=int,
    help="The same seed gives the same ids, and the same fate to the n-th message.",
)
@playing
def operator(
    accounts: tuple[tuple[str, str], ...],
    duration: float | None,
    ledger_path: Path | None,
    *,
    as_json: bool,
    **given: Any,
) -> None:
    """An operator (SMSC) that takes messages and spreads their reports over all binds of the account.

    \b
    Reports always to the wrong node, in decimal where responses are hexadecimal, some of them early:
      dlrproxy simulate operator --spread other --response-id hex --receipt-id decimal --no-tlv --early 0.1
    A bad day: throttling, slow reports, two binds per account:
      dlrproxy simulate operator --throttle 0.05 --delay 100-5000 --max-binds 2
    MO in two parts over different binds, ten a second:
      dlrproxy simulate operator --mo-rate 10 --mo-concatenated 1
    """
    mo = MoOptions(
        rate=given.pop("mo_rate"),
        count=given.pop("mo_count"),
        after_binds=given.pop("mo_after_binds"),
        destinations=given.pop("mo_destinations"),
        answers=given.pop("mo_answers"),
        text=given.pop("mo_text"),
        concatenated=given.pop("mo_concatenated"),
        parts=given.pop("mo_parts"),
    )
    receipt_id, tlv_id = given.pop("receipt_id"), given.pop("tlv_id")
    try:
        options = OperatorOptions(
            accounts=dict(accounts),
            mo=mo,
            spread=Spread(given.pop("spread")),
            receipts=Receipts(given.pop("receipts")),
            delay_ms=given.pop("delay"),
            response_id=IdFormat(given.pop("response_id")),
            receipt_id=IdFormat(receipt_id) if receipt_id else None,
            tlv_id=IdFormat(tlv_id) if tlv_id else None,
            answer_timeout_s=given.pop("answer_timeout"),
            **given,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    ledger = open_ledger(ledger_path)
    simulated = Operator(options, ledger)
    run(partial(_serve, simulated), simulated.stop, duration, None if as_json else partial(_line, simulated))
    ledger.close()
    show(attrs.asdict(simulated.summary()), as_json=as_json)


async def _serve(simulated: Operator) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(simulated.run)
        click.echo(f"operator: listening on {simulated.options.host}:{port}", err=True)


def _line(simulated: Operator) -> str:
    counts = simulated.summary()
    return (
        f"operator: {len(simulated.binds)} binds, {counts.accepted} accepted, {sum(counts.refused.values())} refused, "
        f"{counts.reports} reports and {counts.mo} MO made, {counts.deliveries_accepted} deliveries accepted, "
        f"{counts.open} open"
    )
