"""Every error passivx raises on purpose, grouped by what the caller can do about it.

PassivxError              exit code 1: the request failed, the message says why
├── ConfigError           exit code 2: fix the file or the settings; ``problems`` lists all of them
├── DataError             fix, re-download or leave out the data file; ``path``, ``line`` say where
└── VenueError            a venue refused or failed; ``code`` is its own, ``reaction`` what to do
    ├── UnavailableError  no answer, or not now: try again, not before ``retry_after_s``
    └── BadReplyError     an answer that cannot be what it should be; never acted upon
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "BadReplyError",
    "ConfigError",
    "DataError",
    "PassivxError",
    "Problem",
    "UnavailableError",
    "VenueError",
    "nearest",
]


class PassivxError(Exception):
    """Base of all errors a user can act on; the command line prints it and exits with exit_code."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a config: where, what was there, what is wanted, how to put it right.

    ``field`` is a dotted path, empty when the problem is the document itself; ``value`` None means
    that nothing was there.
    """

    field: str
    value: object
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        if self.value is not None:
            # A value can be a whole document pasted into the wrong place: show enough to find it.
            shown = repr(self.value)
            text += f", was {shown if len(shown) <= 80 else shown[:77] + '...'}"
        return f"{text}; {self.remedy}" if self.remedy else text


def nearest(word: str, known: Collection[str]) -> str:
    """Return the remedy for a word that is none of ``known``: the one meant, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"one of {', '.join(known)}"


class ConfigError(PassivxError):
    """A config, market or settings file cannot be used; ``problems`` holds every reason."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], source: Path | str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        head = f"{source}: " if source is not None else ""
        lines = [str(problem) for problem in self.problems]
        if len(lines) == 1:
            super().__init__(head + lines[0])
        else:
            super().__init__(f"{head}{len(lines)} problems\n" + "\n".join(f"  {x}" for x in lines))

    def __reduce__(self) -> tuple[Any, ...]:
        # An error crosses to another process by its fields, not by its text.
        return type(self), (self.problems, self.source)


class DataError(PassivxError):
    """A tick file cannot be used; names the file and, where there is one, the line."""

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        self.message = message
        self.path = path
        self.line = line
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.path, self.line)


class VenueError(PassivxError):
    """A venue refused a request, or it is not known what became of it.

    ``code`` is the venue's own number, None when there was none; ``reaction`` names what to do
    (`exchanges.base.Reaction`). The message never holds a key, a signature or a signed query.
    """

    def __init__(self, message: str, *, code: int | None = None, reaction: str = "halt") -> None:
        self.code = code
        self.reaction = reaction
        super().__init__(message)


class UnavailableError(VenueError):
    """A venue did not answer, or will not now; what was asked for is not known."""

    def __init__(
        self, message: str, *, code: int | None = None, retry_after_s: float = 0.0
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, code=code, reaction="back_off")


class BadReplyError(VenueError):
    """A venue's message is malformed, or says what cannot be; nothing of it is used."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reaction="look_up")
