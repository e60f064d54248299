"""The command line: parse arguments, call one function, print, exit with a meaningful code.

Exit codes: 0 done · 1 the request failed (the message says why) · 2 wrong usage or bad config ·
130 interrupted. Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any

# Plain click here: rich-click, which the commands use for their own help, takes 80 ms to draw a
# page, and this page is what people and shells ask for most.
import click

from passivx.errors import PassivxError

# Where each command lives and its line in `passivx --help`: a command's module, and with it numpy
# and friends, is imported only when that command runs.
COMMANDS = {
    "init": ("passivx.cli.init", "Make a workspace with commented examples."),
    "demo": ("passivx.cli.demo", "Backtest and trade a made-up market; no keys, no network."),
    "config": ("passivx.cli.config", "Check a config, or explain what each field does."),
    "grid": ("passivx.cli.grid", "Show the orders the bot would rest now."),
    "backtest": ("passivx.cli.backtest", "Replay trades against a config."),
    "optimize": ("passivx.cli.optimize", "Search for the settings that would have done best."),
    "run": ("passivx.cli.run", "Trade: live, or with --dry-run on a simulated account."),
    "parity": ("passivx.cli.parity", "Replay a live record through the backtest, and compare."),
    "sim": ("passivx.cli.sim", "Run a simulated exchange; no keys, no network."),
    "doctor": ("passivx.cli.doctor", "Check this installation and machine."),
}


def load_command(name: str) -> click.Command:
    """Import and return the command ``name``; KeyError when there is none."""
    command: click.Command = importlib.import_module(COMMANDS[name][0]).command
    return command


class _Deferred(click.Command):
    """Stands in the list of commands; becomes the real one when it is invoked."""

    def make_context(self, info_name: str | None, *args: Any, **kwargs: Any) -> click.Context:
        assert self.name is not None
        return load_command(self.name).make_context(info_name, *args, **kwargs)


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return _Deferred(name=cmd_name, help=COMMANDS[cmd_name][1])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="passivx", message="passivx %(version)s")
def cli() -> None:
    """A grid market maker for perpetual futures: backtest, inspect, trade.

    \b
    Example:
      passivx demo
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line; never returns."""
    # Started without them (`>&-`), a process has no streams at all.
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        # A pipe on an old code page must not turn finished work into a failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = cli.main(args=argv, prog_name="passivx", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        code = 130
    except PassivxError as e:
        print(f"Error: {e}", file=sys.stderr)
        code = e.exit_code
    except BrokenPipeError:
        # `passivx ... | head`: the reader has seen enough.
        _give_up_stdout()
        code = 0
    except SystemExit as e:
        # The same, met by click: it exits with 1, and says so by wrapping the streams.
        code = 0 if "PacifyFlush" in type(sys.stdout).__name__ else e.code
    except OSError as e:
        # Without a name it is no file: what was left is the output.
        _give_up_stdout()
        what = "" if e.filename else "the output cannot be written: "
        with contextlib.suppress(OSError):
            print(f"Error: {what}{e}", file=sys.stderr)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _give_up_stdout() -> None:
    # So that the interpreter's last flush does not complain.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
