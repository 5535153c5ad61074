"""`dlrproxy run`: one node, until a signal. What it takes to run one is imported when SIGHUP does no harm any more."""

import signal
import sys
from pathlib import Path

import click


@click.command()
@click.argument("config_file", type=click.Path(path_type=Path))
def run(config_file: Path) -> None:
    """Run one node with the settings in CONFIG_FILE.

    SIGTERM or SIGINT ends it gracefully within node.drain_s: MT are refused, what is in flight is finished, the binds
    are released; custody that another node can deliver is handed on to it, and the rest is kept for the next start. A
    second signal ends it at once; nothing that was acknowledged is lost then either. SIGHUP opens the log file again,
    and takes over operators, peers, MO rules and certificates that have changed; a file with an error changes nothing.
    """
    hung_up: list[int] = []  # SIGHUP that came before the node could hear it; its default would end the process
    signal.signal(signal.SIGHUP, lambda number, _: hung_up.append(number))
    from dlrproxy.cli.running import run_node  # takes a second on a busy machine

    sys.exit(run_node(config_file, hung_up))
