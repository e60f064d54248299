"""The command line: parse arguments, call one function, print, exit with a meaningful code.

Exit codes: 0 done · 1 the request failed (the message says why) · 2 wrong usage or bad config ·
130 interrupted. Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import rich_click as click

from passivx.errors import PassivxError

# Where each command lives and its line in `passivx --help`: a command's module, and with it numpy
# and friends, is imported only when that command runs.
_COMMANDS = {
    "init": ("passivx.cli.init", "Make a workspace with commented examples."),
    "demo": ("passivx.cli.demo", "Backtest a synthetic market end to end; no keys, no network."),
    "config": ("passivx.cli.config", "Check a config, or explain what each field does."),
    "grid": ("passivx.cli.grid", "Show the orders the bot would rest now."),
    "backtest": ("passivx.cli.backtest", "Replay trades against a config."),
    "doctor": ("passivx.cli.doctor", "Check this installation and machine."),
}


class LazyGroup(click.RichGroup):
    """A group whose commands are imported when they are invoked, not when help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return click.Command(name=cmd_name, short_help=_COMMANDS[cmd_name][1])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = importlib.import_module(_COMMANDS[name][0]).command
        return name, command, rest


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="passivx", message="passivx %(version)s")
def cli() -> None:
    """A grid market maker for perpetual futures: backtest, inspect, trade."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; never returns."""
    try:
        # Without standalone mode click returns the code of a command that ended by ctx.exit().
        code = cli.main(args=argv, prog_name="passivx", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except PassivxError as e:
        print(f"Error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def print_json(value: Any) -> None:
    """Print one JSON object and nothing else on stdout; NaN and infinities become null."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.write(orjson.dumps(value, option=options).decode() + "\n")
