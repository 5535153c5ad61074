"""`dlrproxy simulate`: an operator and a gateway to try a set-up with, and the judge of what they saw."""

from pathlib import Path

import click

from dlrproxy.cli.simulate_gateway import gateway
from dlrproxy.cli.simulate_operator import operator
from dlrproxy.cli.simulate_running import show
from dlrproxy.simulator.judge import judge
from dlrproxy.simulator.ledger import Event, GatewayStarted, read_ledger


@click.group()
def simulate() -> None:
    """Play the operator or the gateway, to try a set-up without either.

    \b
    An operator that spreads reports over the wrong nodes, and two gateways:
      dlrproxy simulate operator --port 2775 --account shop:secret --spread other --ledger operator.jsonl
      dlrproxy simulate gateway --name gw1 --port 2775 --system-id shop --password secret \\
          --messages 1000 --ledger gw1.jsonl
      dlrproxy simulate gateway --name gw2 --port 2775 --system-id shop --password secret \\
          --messages 1000 --ledger gw2.jsonl
    Without a proxy between them, the judge finds reports at the wrong gateway:
      dlrproxy simulate judge operator.jsonl gw1.jsonl gw2.jsonl
    """


simulate.add_command(operator)
simulate.add_command(gateway)


@simulate.command(name="judge")
@click.argument("operator_ledger", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument(
    "gateway_ledgers", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def judge_command(operator_ledger: Path, gateway_ledgers: tuple[Path, ...], *, as_json: bool) -> None:
    """Compare an operator's ledger with those of all gateways that submitted to it.

    Exit status 1 if anything was lost, or reached a gateway that it does not belong to.
    """
    try:
        verdict = judge(read_ledger(operator_ledger), _by_name(gateway_ledgers))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    show(verdict.as_dict(), as_json=as_json)
    if not verdict.passed:
        raise SystemExit(1)


def _by_name(paths: tuple[Path, ...]) -> dict[str, list[Event]]:
    """The events of all files, by the gateway that wrote them. Raises ValueError."""
    found: dict[str, list[Event]] = {}
    for path in paths:
        ledger = list(read_ledger(path))
        if not ledger or not isinstance(ledger[0], GatewayStarted):
            raise ValueError(f"{path} is not the ledger of a gateway")
        found.setdefault(ledger[0].name, []).extend(ledger)
    return found
