"""What every command prints with: JSON for scripts, tables for people, progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Console

__all__ = ["console", "note", "print_json", "working"]


def console() -> Console:
    """Return a console on stdout that keeps tables whole when stdout is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON object, nothing else, on stdout; NaN and infinities become null."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.write(orjson.dumps(value, option=options).decode() + "\n")


def note(text: str) -> None:
    """Print a message for the person at the terminal on stderr."""
    print(text, file=sys.stderr)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something longer is going on: a spinner on a terminal, else one plain line."""
    if sys.stderr.isatty():
        with Console(stderr=True).status(what):
            yield
    else:
        note(f"{what} ...")
        yield
