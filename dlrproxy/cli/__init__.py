"""The `dlrproxy` command. Sub-commands are imported when they are called, so that help and completion come at once."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import click


class Entry(NamedTuple):
    module: str
    command: str  # the name of the click command in the module
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "run": Entry("dlrproxy.cli.run", "run", "Run one node."),
        "check-config": Entry("dlrproxy.cli.config", "check_config", "Say everything that is wrong with a file."),
        "sample-config": Entry("dlrproxy.cli.config", "sample_config", "Print a commented, complete configuration."),
        "status": Entry("dlrproxy.cli.status", "status", "Show how a running node is."),
        "lookup": Entry("dlrproxy.cli.lookup", "lookup", "Ask a running node what it knows of a message id."),
        "trace": Entry("dlrproxy.cli.trace", "trace", "Show a report's route, hop by hop, from the nodes' logs."),
        "parked": Entry("dlrproxy.cli.parked", "parked", "List, show, replay or drop what was given up on."),
        "drain": Entry("dlrproxy.cli.drain", "drain", "Take a running node out of service."),
        "promote": Entry("dlrproxy.cli.promote", "promote", "Let a standby of a pair take over."),
        "demote": Entry("dlrproxy.cli.promote", "demote", "Let the active of a pair hand over."),
        "db": Entry("dlrproxy.cli.db", "db", "Make and check the schema and accounts at a database server."),
        "rejoin": Entry("dlrproxy.cli.rejoin", "rejoin", "Make a former primary the replica of the new one."),
        "witness": Entry("dlrproxy.cli.witness", "witness", "Be the third place of a pair."),
        "explain": Entry("dlrproxy.cli.explain", "explain", "Show what the proxy sees in a PDU or a receipt's text."),
        "demo": Entry("dlrproxy.cli.demo", "demo", "Run a ring on this machine and watch it work."),
        "simulate": Entry("dlrproxy.cli.simulate", "simulate", "Play an operator or a gateway, to try a set-up."),
    }
)


class UnusableConfig(click.ClickException):
    """A ConfigError as click shows it: every problem on its line, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(self.message, file=file, err=True)


class Commands(click.Group):
    """A group whose members are in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        from dlrproxy.config import ConfigError  # slow, and help does without

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise UnusableConfig(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dlrproxy", message="%(prog)s %(version)s")
def main() -> None:
    """Every delivery report reaches the gateway that sent the message, whichever bind it comes down.

    A dlrproxy stands beside each SMS gateway node: the gateway dials it instead of the operator, and it dials the
    operator. Start with "dlrproxy demo", then "dlrproxy sample-config > dlrproxy.toml".
    """
