"""Ticks as one ``.npy`` file a column, memory-mapped: how processes share them.

However many processes open the folder, the pages are in memory once.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Final

import numpy as np

from passivx.data.ticks import Ticks
from passivx.errors import DataError

__all__ = ["TEMPORARY", "columns_folder", "mapped", "open_columns", "write_columns"]

# How a folder of columns begins that lives only as long as who made it.
TEMPORARY: Final = ".ticks-"

_NAMES: Final = ("price", "qty", "ts_ms", "buyer_maker")


def write_columns(ticks: Ticks, folder: Path) -> None:
    """Write the columns that engines read into a folder of their own; trade ids stay out."""
    for name in _NAMES:
        np.save(folder / f"{name}.npy", getattr(ticks, name), allow_pickle=False)


def open_columns(folder: Path) -> Ticks:
    """Map the columns of a folder that `write_columns` wrote.

    Raises
    ------
    DataError
        If they are not there, or are no such columns.
    """
    try:
        columns = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _NAMES
        }
        return Ticks(**columns)
    # What NumPy raises for bytes that are no array, besides ValueError.
    except (OSError, ValueError, EOFError, TokenError, AttributeError) as e:
        raise DataError(f"cannot be mapped ({e})", folder) from e


@contextlib.contextmanager
def mapped(load: Callable[[], Ticks], parent: Path) -> Iterator[Ticks]:
    """Map the ticks that ``load`` returns from a temporary folder in ``parent``.

    What was loaded is let go: the ticks are in memory once.
    """
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=parent) as place:
        folder = Path(place)
        write_columns(load(), folder)
        yield open_columns(folder)


def columns_folder(ticks: Ticks) -> Path | None:
    """Return the folder that ticks are mapped from, whole; None when they are not, or no more."""
    files = set()
    for name in _NAMES:
        column = getattr(ticks, name)
        file = getattr(column, "filename", None)
        try:
            if file is None or column.nbytes + column.offset != Path(file).stat().st_size:
                return None
        except FileNotFoundError:
            return None
        files.add(Path(file).resolve())
    folder = next(iter(files)).parent
    return folder if files == {folder / f"{name}.npy" for name in _NAMES} else None
