"""Columns that processes map: the same ticks from a folder, and only ever whole ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from passivx.data.columns import (
    TEMPORARY,
    columns_folder,
    mapped,
    open_columns,
    write_columns,
)
from passivx.data.ticks import Ticks, load_ticks
from passivx.errors import DataError

NAMES = ("price", "qty", "ts_ms", "buyer_maker")


def make_ticks(n: int = 1000) -> Ticks:
    rng = np.random.default_rng(1)
    return Ticks.from_arrays(
        price=100 + rng.random(n),
        qty=rng.random(n),
        ts_ms=np.sort(rng.integers(0, 10**6, n)),
        buyer_maker=rng.integers(0, 2, n),
        trade_id=np.arange(n),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of its own that holds the columns of `make_ticks`."""
    out = tmp_path / "columns"
    out.mkdir()
    write_columns(make_ticks(), out)
    return out


def equal(a: Ticks, b: Ticks) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES)


# --- writing and opening


def test_what_was_written_is_mapped_read_only(folder: Path) -> None:
    ticks = open_columns(folder)
    assert equal(ticks, make_ticks())
    assert ticks.trade_id is None  # no engine reads them
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.npy" for n in NAMES)
    for name in NAMES:
        column = getattr(ticks, name)
        assert isinstance(column, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_slices_are_written_as_their_own_columns(tmp_path: Path, folder: Path) -> None:
    part = open_columns(folder)[100:300]
    write_columns(part, tmp_path)
    assert equal(open_columns(tmp_path), make_ticks()[100:300])


def test_no_ticks_are_columns_too(tmp_path: Path) -> None:
    write_columns(make_ticks()[:0], tmp_path)
    assert len(open_columns(tmp_path)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_a_data_error(folder: Path, name: str) -> None:
    (folder / f"{name}.npy").unlink()
    with pytest.raises(DataError, match=rf"cannot be mapped .*{name}\.npy") as caught:
        open_columns(folder)
    assert caught.value.path == folder


def test_no_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        with pytest.raises(DataError, match="cannot be mapped"):
            open_columns(path)


def bent(column: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "other numbers": column.astype(np.float32),
        "a table": np.stack([column, column]),
        "one number": column[0],
        "shorter": column[:-1],
        "longer": np.concatenate([column, column[:1]]),
        "swapped bytes": column.astype(column.dtype.newbyteorder(">")),
    }


@pytest.mark.parametrize("case", bent(np.zeros(2)))
@pytest.mark.parametrize("name", NAMES)
def test_columns_of_another_kind_are_a_data_error(folder: Path, name: str, case: str) -> None:
    if (name, case) == ("buyer_maker", "swapped bytes"):
        return  # one byte has no order
    np.save(folder / f"{name}.npy", bent(getattr(make_ticks(), name))[case])
    with pytest.raises(DataError, match="cannot be mapped"):
        open_columns(folder)


@pytest.mark.parametrize(
    "bend",
    [
        lambda raw: b"hello",
        lambda raw: raw[:6],
        lambda raw: raw[:100],
        lambda raw: raw[:-1],
        lambda raw: raw[:500],
        lambda raw: b"\x93NUMPY\x09\x00" + raw[8:],
        lambda raw: raw.replace(b"'<f8'", b"'|O' "),
        lambda raw: raw.replace(b"(1000,)", b"(9999,)"),
        lambda raw: raw.replace(b"descr", b"dscr "),
    ],
)
def test_damaged_files_are_a_data_error(folder: Path, bend: Callable[[bytes], bytes]) -> None:
    path = folder / "price.npy"
    path.write_bytes(bend(path.read_bytes()))
    with pytest.raises(DataError, match="cannot be mapped"):
        open_columns(folder)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.mkdir, (tmp_path / "owned",))

    np.save(folder / "price.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be mapped"):
        open_columns(folder)
    assert not (tmp_path / "owned").exists()


# --- which folder ticks come from


def test_whole_ticks_know_their_folder(folder: Path) -> None:
    ticks = open_columns(folder)
    assert columns_folder(ticks) == folder.resolve()
    assert columns_folder(ticks[:]) == folder.resolve()
    assert columns_folder(ticks[0 : len(ticks)]) == folder.resolve()


def test_parts_and_copies_are_not_whole(folder: Path) -> None:
    ticks = open_columns(folder)
    for part in (ticks[1:], ticks[:-1], ticks[100:300], ticks[:1], ticks[:0], ticks[-1:]):
        assert columns_folder(part) is None
    assert columns_folder(make_ticks()) is None
    columns = {name: getattr(ticks, name) for name in NAMES}
    copied = Ticks(**{name: np.array(column) for name, column in columns.items()})
    assert columns_folder(copied) is None
    for name in NAMES:
        mixed = Ticks(**columns | {name: np.array(columns[name])})
        assert columns_folder(mixed) is None


def test_columns_of_two_folders_are_no_folder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_columns(make_ticks(), other)
    columns = {name: getattr(open_columns(folder), name) for name in NAMES}
    columns["qty"] = open_columns(other).qty
    assert columns_folder(Ticks(**columns)) is None
    # Nor files of one folder in each other's place.
    columns = {name: getattr(open_columns(folder), name) for name in NAMES}
    assert columns_folder(Ticks(**columns | {"qty": columns["price"]})) is None


def test_relative_folders_stay_where_they_were(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Path(folder.name)
    ticks = open_columns(relative)
    monkeypatch.chdir(folder)
    assert columns_folder(ticks) == folder.resolve()
    assert equal(open_columns(Path()), ticks)
    assert columns_folder(open_columns(Path())) == folder.resolve()


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_to_the_folder_is_the_folder(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    assert columns_folder(open_columns(link)) == folder.resolve()


# --- for as long as they are needed


def test_a_mapping_lives_as_long_as_its_block(tmp_path: Path) -> None:
    ticks = make_ticks()
    with mapped(lambda: ticks, tmp_path) as shared:
        assert equal(shared, ticks)
        (place,) = tmp_path.iterdir()
        assert place.name.startswith(TEMPORARY)
        assert columns_folder(shared) == place.resolve()
        # Whoever is told the folder maps the same.
        assert equal(open_columns(place), ticks)
    assert list(tmp_path.iterdir()) == []


def test_what_was_loaded_is_let_go(tmp_path: Path) -> None:
    with mapped(lambda: make_ticks()[10:20], tmp_path) as shared:
        assert all(isinstance(getattr(shared, name), np.memmap) for name in NAMES)
        assert equal(shared, make_ticks()[10:20])


def test_the_folder_is_gone_after_an_error_too(tmp_path: Path) -> None:
    def load() -> Ticks:
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"), mapped(load, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), mapped(make_ticks, tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_mapping_in_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "session").mkdir()
    with mapped(make_ticks, Path("session")) as shared:
        monkeypatch.chdir("/")
        assert columns_folder(shared) == next((tmp_path / "session").resolve().iterdir())
        monkeypatch.chdir(tmp_path)
    assert list((tmp_path / "session").iterdir()) == []


@pytest.mark.real_data
def test_recorded_trades_are_mapped_as_they_are_read(real_data: Path, tmp_path: Path) -> None:
    (path,) = real_data.glob("binance_coinm/*.csv.gz")
    with mapped(lambda: load_ticks(path), tmp_path) as shared:
        assert equal(shared, load_ticks(path))


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00\x08\x00{'descr'", b"PK\x05\x06" + b"\0" * 18]
)
def test_bytes_that_are_no_array_are_an_error(tmp_path: Path, content: bytes) -> None:
    write_columns(make_ticks(), tmp_path)
    (tmp_path / "qty.npy").write_bytes(content)
    with pytest.raises(DataError, match="cannot be mapped"):
        open_columns(tmp_path)


def test_a_folder_that_is_gone_is_none(tmp_path: Path) -> None:
    with mapped(make_ticks, tmp_path) as shared:
        pass
    assert columns_folder(shared) is None
