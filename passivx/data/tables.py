"""Small tables that users bring, csv or JSON: rows by column name, each knowing where it stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from passivx.documents import is_number
from passivx.errors import DataError, PassivxError

__all__ = ["Column", "Fail", "Row", "number_of", "read_rows", "values_of"]

# Makes the error that says where a row stands; raise what it returns.
Fail = Callable[[str], PassivxError]
Row = tuple[Fail, list[Any]]


@dataclass(frozen=True)
class Column:
    """A column: what messages call it, the names it is known by, and whether it must be there."""

    what: str
    names: tuple[str, ...]
    required: bool = True


def read_rows(path: Path, columns: Sequence[Column], *, of: str) -> list[Row]:
    """Return a file's rows: how to complain about each, and its values in order of ``columns``.

    A csv has a header that names the columns, in any order and beside others; JSON is a list of
    objects with such names or, when all columns are required, of lists in their order. A value that
    is not given is None. ``of`` says in the plural what the rows are, for messages.

    Raises
    ------
    DataError
        If the file cannot be read, is no such table, or is empty.
    """
    text = _text_of(path)
    if not text.strip():
        raise DataError(f"is empty: give a csv or JSON with {of}", path)
    is_json = text.lstrip()[0] in "[{"
    rows = _json_rows(text, path, columns) if is_json else _csv_rows(text, path, columns)
    if not rows:
        raise DataError(f"holds no {of}: give a file with some, or none at all", path)
    return rows


def number_of(value: Any, fail: Fail) -> float:
    """Return a finite number, also one that is written as text."""
    if value is None:
        raise fail("has an empty value: fill it in or remove it")
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if not is_number(number):
        raise fail(f"{value!r:.60} is not a finite number: correct or remove it")
    return float(number)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError("is not UTF-8 text: save the table as csv or JSON", path) from e
    except (OSError, ValueError) as e:  # ValueError: a NUL character in the path
        why = getattr(e, "strerror", None) or e
        raise DataError(f"cannot be read: {why}; check the path", path) from e


def _csv_rows(text: str, path: Path, columns: Sequence[Column]) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=None))

    def fail_at(line: int) -> Fail:
        return lambda message: DataError(message, path, line)

    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        chosen = _places(header, columns, fail_at(1))
        for values in reader:
            if not values:
                continue
            fail = fail_at(reader.line_num)
            if len(values) != len(header):
                raise fail(f"has {len(values)} fields, the header {len(header)}: correct it")
            rows.append((fail, [None if i is None else values[i].strip() or None for i in chosen]))
    except csv.Error as e:
        raise fail_at(reader.line_num)(f"is not csv ({e}): check the file") from e
    return rows


def _json_rows(text: str, path: Path, columns: Sequence[Column]) -> list[Row]:
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise DataError(f"is not JSON: {e}; check the file", path) from e
    if not isinstance(entries, list):
        raise DataError("must be a JSON list: take it out of the object around it", path)

    def fail_at(i: int) -> Fail:
        return lambda message: DataError(f"entry [{i}]: {message}", path)

    return [(fail_at(i), values_of(entry, columns, fail_at(i))) for i, entry in enumerate(entries)]


def values_of(entry: Any, columns: Sequence[Column], fail: Fail) -> list[Any]:
    """Return the values of one JSON entry, or of an object like it, in order of ``columns``."""
    if isinstance(entry, Mapping):
        names = list(entry)
        places = _places(names, columns, fail)
        return [None if i is None else entry[names[i]] for i in places]
    if not isinstance(entry, list | tuple) or len(entry) != len(columns):
        wanted = ", ".join(column.names[0] for column in columns)
        raise fail(f"must be an object or a list ({wanted}), was {entry!r:.60}")
    return list(entry)


def _places(names: Sequence[str], columns: Sequence[Column], fail: Fail) -> list[int | None]:
    """Return where each column stands among ``names``."""
    out: list[int | None] = []
    for column in columns:
        found = [i for i, name in enumerate(names) if name in column.names]
        if len(found) > 1 or (column.required and not found):
            known = ", ".join(column.names)
            raise fail(
                f"must name one {column.what} column ({known}), was {', '.join(names)!r:.80}"
            )
        out.append(found[0] if found else None)
    return out
