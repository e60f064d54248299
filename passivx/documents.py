"""Settings documents: read HJSON safely, check it strictly, and name everything wrong at once.

Models are pydantic; their number fields carry a `Number`, so that a range is stated once and serves
the check, the message and the reference.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeGuard

import hjson
import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    Strict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError

from passivx.errors import ConfigError, Problem

__all__ = [
    "Checking",
    "Flag",
    "Name",
    "Number",
    "fields_of",
    "is_number",
    "load_document",
    "problems_of",
    "read_document",
    "wanted",
]

# Configs are a few kB; a file beyond this is something else, and slow to parse as HJSON.
_MAX_BYTES: Final = 256 << 10
# hjson makes an int of every digit it sees; a double ends at 309 digits.
_MAX_DIGITS: Final = 308


@dataclass(slots=True)
class Checking:
    """What goes with one check: pass as pydantic's ``context``; ``notes`` collects warnings.

    ``ranges`` False checks types and finiteness only.
    """

    ranges: bool = True
    notes: list[str] = field(default_factory=list)


def is_number(value: object) -> TypeGuard[float]:
    """Say whether ``value`` is a finite real number; a bool is none, nor an int too large."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest double
        return False


def wanted(what: str, remedy: str = "") -> PydanticCustomError:
    """Return the error a validator raises: ``what`` completes "<field>: must be ..."."""
    return PydanticCustomError("wanted", "must be {what}", {"what": what, "remedy": remedy})


def _unwrap(value: Any) -> Any:
    """Turn a NumPy scalar, as optimizers produce them, into the Python value it stands for."""
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True, slots=True)
class Number:
    """Field metadata: a number within ``interval``, written as in mathematics: "(0, 1]".

    Infinity only where the interval is closed with it: "[1, inf]". On an int field whole floats
    count, and an optimizer's 15.74 is rounded with a note. ``absolute`` takes a negative value by
    its absolute, with a note.
    """

    interval: str
    absolute: bool = False

    def __contains__(self, number: float) -> bool:
        low, high = (float(end) for end in self.interval[1:-1].split(","))
        number = _unwrap(number)  # a float32 cannot be compared with every end
        above = number >= low if self.interval[0] == "[" else number > low
        below = number <= high if self.interval[-1] == "]" else number < high
        return above and below

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(
            value: Any, inner: ValidatorFunctionWrapHandler, info: ValidationInfo
        ) -> int | float:
            return self._check(value, inner, info, whole=source is int)

        return WrapValidator(check).__get_pydantic_core_schema__(source, handler)

    def _check(
        self, value: Any, inner: ValidatorFunctionWrapHandler, info: ValidationInfo, *, whole: bool
    ) -> int | float:
        problem = wanted(f"a {'whole ' if whole else ''}number in {self.interval}")
        value = _unwrap(value)
        infinite = isinstance(value, float) and math.isinf(value) and value in self
        if not (is_number(value) or infinite):
            raise problem
        if whole and abs(value) >= 1 << 53:  # beyond, a float no longer says which int it is
            raise problem
        notes = []
        if whole and value != round(value):
            notes.append(f"{info.field_name}: {value!r} is rounded to {round(value)}")
        if self.absolute and value < 0:
            notes.append(f"{info.field_name}: {value!r} counts as {-value!r}")
            value = -value
        number: int | float = inner(round(value) if whole else value)
        checking = info.context or Checking()
        if checking.ranges and number not in self:
            raise problem
        checking.notes += notes
        return number + 0  # -0.0 becomes 0.0, which prints and compares as what it is


def _name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.%-]{1,64}", text) and ".." not in text and text != ".":
        return text
    swallowed = re.search(r"[,#]", text)
    raise wanted(
        "1 to 64 of the characters A-Z a-z 0-9 _ . % - (no '..')",
        "unquoted text runs to the end of its line: put it in quotes" if swallowed else "",
    )


Flag = Annotated[bool, Strict(), BeforeValidator(_unwrap)]
# Names become parts of file names and of log lines.
Name = Annotated[str, Strict(), AfterValidator(_name)]


def fields_of(model: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield ``(dotted path, field)`` of every leaf of a pydantic model or dataclass, in order."""
    for name, info in model.__pydantic_fields__.items():
        if hasattr(info.annotation, "__pydantic_fields__"):
            yield from fields_of(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def read_document(path: Path | str) -> dict[str, Any]:
    """Read one JSON or HJSON object: comments, missing commas and a byte-order mark are fine.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not UTF-8, is empty, longer than 256 KiB, nested too deeply
        or not an object, repeats a key, or has a syntax error (with line and column).
    """
    source = Path(path)

    def refuse(message: str, remedy: str) -> ConfigError:
        return ConfigError([Problem("", None, message, remedy)], source)

    try:
        with source.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse("no such file", "check the path") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL character in the path
        raise refuse(f"cannot be read ({getattr(e, 'strerror', None) or e})", "name a file") from e
    if len(raw) > _MAX_BYTES:
        raise refuse("is larger than 256 KiB", "this is not a settings file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise refuse(f"is not UTF-8 text (byte {e.start})", "save it as UTF-8") from e
    repeated: list[tuple[dict[str, Any], str]] = []
    document = _parse(text, repeated, refuse)
    if not document:
        raise refuse("is empty", "`passivx init` writes examples to start from")
    if not isinstance(document, dict):
        raise refuse("must be one object { ... }", "put the settings between { and }")
    if repeated:
        problems = [
            Problem(_dotted((*where, key)), None, "is given more than once", "keep one of them")
            for where, node in _objects(document)
            for owner, key in repeated
            if owner is node
        ]
        raise ConfigError(problems, source)
    return document


def load_document(source: Path | str | Mapping[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Return ``(path, document)`` of a file, or ``(None, shallow copy)`` of a mapping."""
    if isinstance(source, str | os.PathLike):
        return Path(source), read_document(source)
    return None, dict(source)


def problems_of(error: ValidationError, model: Any) -> list[Problem]:
    """Turn what pydantic found wrong with a document for ``model`` into readable problems."""
    known = [path for path, _ in fields_of(model)]
    return [_problem(details, known) for details in error.errors(include_url=False)]


_PLAIN: Final = {
    "missing": "is missing",
    "missing_keyword_only_argument": "is missing",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "model_type": "must be an object { ... }",
    "dataclass_type": "must be an object { ... }",
    "tuple_type": "must be a list [ ... ]",
}
_UNKNOWN: Final = {"extra_forbidden", "unexpected_keyword_argument", "invalid_key"}


def _problem(details: Any, known: list[str]) -> Problem:
    kind, path, value = details["type"], _dotted(details["loc"]), details["input"]
    if kind in _UNKNOWN:
        return Problem(path, value, "is not a known field", _nearest(path, known))
    if kind == "literal_error":
        message = f"must be {details['ctx']['expected']}"
    else:
        message = _PLAIN.get(kind) or details["msg"]
    if message == "is missing":
        return Problem(path, None, message)
    remedy = details.get("ctx", {}).get("remedy", "")
    return Problem(path, value, f"{message}, was null" if value is None else message, remedy)


def _nearest(path: str, known: list[str]) -> str:
    """Suggest the known path whose last name is most like that of ``path``, wherever it belongs."""
    by_name = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(path.rpartition(".")[2], by_name, n=1)
    return f"did you mean {by_name[close[0]]}?" if close else "remove it"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # A key is whatever the file says: never let it write control characters to a terminal.
            shown = part if part.isprintable() and len(part) <= 64 else ascii(part[:64])
            text += f".{shown}" if text else shown
    return text


def _objects(document: Any) -> Iterator[tuple[tuple[int | str, ...], dict[str, Any]]]:
    stack: list[tuple[tuple[int | str, ...], Any]] = [((), document)]
    while stack:
        where, node = stack.pop()
        if isinstance(node, dict):
            yield where, node
        items = node.items() if isinstance(node, dict) else enumerate(node)
        stack += [((*where, k), v) for k, v in items if isinstance(v, dict | list)]


class _TooLargeError(Exception):
    """A number literal that no double can hold."""


def _parse(text: str, repeated: list[tuple[dict[str, Any], str]], refuse: Any) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for raw, value in pairs:
            # An escaped half of a surrogate pair is no character: nothing could print such a key.
            key = raw.encode(errors="replace").decode()
            if key in out:
                repeated.append((out, key))
            out[key] = value
        return out

    def number(literal: str) -> float:
        value = float(literal)
        if math.isinf(value):
            raise _TooLargeError(literal)
        return value

    def whole(literal: str) -> int:
        if len(literal) > _MAX_DIGITS:
            raise _TooLargeError(literal)
        return int(literal)

    hooks: Any = {"object_pairs_hook": unique, "parse_float": number, "parse_int": whole}
    try:
        # JSON first: HJSON takes an unquoted NaN and the rest of its line for a text.
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text, parse_constant=float, **hooks)
        repeated.clear()
        return hjson.loads(text, **hooks)
    except hjson.HjsonDecodeError as e:
        what = re.sub(r"( starting)? at$", "", e.msg.replace("%r", repr(text[e.pos : e.pos + 1])))
        raise refuse(
            f"line {e.lineno} column {e.colno}: {what}",
            "look there and just before for a missing quote, brace or value",
        ) from e
    except _TooLargeError as e:
        line = text.count("\n", 0, text.find(str(e))) + 1
        raise refuse(f"line {line}: a number is too large", "finite numbers only") from e
    except IndexError as e:  # how hjson reports an open /* or ''' at the end of the file
        raise refuse("ends inside a comment or a text", "close it") from e
    except RecursionError as e:
        raise refuse("is nested too deeply", "this is not a settings file") from e
