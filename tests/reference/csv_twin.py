"""The CSV scanner once more, slow and plain: regular expressions, exact fractions, float()."""

import math
import re
from fractions import Fraction
from typing import NamedTuple

FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INT = re.compile(r"[+-]?[0-9]+")
SECONDS = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
FLAGS = {"true": 1, "1": 1, "false": 0, "0": 0}
SIDES = {"sell": 1, "buy": 0}


class Fault(NamedTuple):
    """Where the scanner must raise its CsvError."""

    row: int
    field: int | None


def decode(text, how):
    """Return the value of one field, or None when the text is not one."""
    if how == "FLOAT":
        value = float(text) if FLOAT.fullmatch(text) else math.nan
        return value if math.isfinite(value) else None
    if how == "INT":
        value = int(text) if INT.fullmatch(text) else 2**63
        return value if -(2**63) <= value < 2**63 else None
    if how == "SECONDS":
        # int() cuts towards zero.
        value = int(Fraction(text.rstrip(".")) * 1000) if SECONDS.fullmatch(text) else 2**63
        return value if -(2**63) <= value < 2**63 else None
    words = FLAGS if how == "FLAG" else SIDES
    # Not text.lower(): that folds letters beyond ASCII too.
    return words.get(text.lower()) if text.isascii() else None


def split(line):
    """Split a line at its commas; those of a field that begins with a quote are part of it."""
    fields, start = [], 0
    while True:
        end, inside = start, False
        while end < len(line) and (inside or line[end] != ","):
            if line[start] == line[end] == '"':
                inside = not inside
            end += 1
        fields.append(line[start:end])
        if end == len(line):
            return fields
        start = end + 1


def scan(data, columns, n_fields):
    """Return one list of values a column, or the first Fault."""
    lines = data.split("\n")
    out = [[] for _ in columns]
    for row, raw in enumerate(lines):
        line = raw.removesuffix("\r")
        if not line:
            if "".join(lines[row:]).strip("\r"):
                return Fault(row, None)
            break
        fields = split(line)
        for column, (field, how) in zip(out, columns, strict=True):
            if field >= len(fields):
                break
            text = fields[field]
            if len(text) >= 2 and text[0] == text[-1] == '"':
                text = text[1:-1]
            value = decode(text, how)
            if value is None:
                return Fault(row, field)
            column.append(value)
        if len(fields) != n_fields:
            return Fault(row, None)
    return out
