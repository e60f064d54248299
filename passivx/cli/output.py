"""What every command prints with: JSON for scripts, tables for people, progress on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from rich.console import Console
from rich.progress import Progress

__all__ = ["console", "loop_runner", "note", "print_json", "working"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would exit with 1 here: whether that is a failure, `main` says.
        raise BrokenPipeError


def console() -> Console:
    """Return a console on stdout that keeps tables whole when stdout is a file or a pipe."""
    return _Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON object, nothing else, on stdout; NaN and infinities become null."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.write(orjson.dumps(value, option=options).decode() + "\n")


def note(text: str) -> None:
    """Print a message for the person at the terminal on stderr; work goes on without a reader."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


@contextlib.contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show that something longer is going on: a bar on a terminal, else one plain line.

    Yields a function to call with what is done of ``total``; without a total the bar just moves.
    """
    if not sys.stderr.isatty():
        note(f"{what} ...")
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def loop_runner() -> asyncio.Runner:
    """Return what runs coroutines on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
