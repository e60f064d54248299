"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded data, read in place; skips, or fails when it is required."""
    folder = Path(os.environ.get("PASSIVX_REAL_DATA") or _DEFAULT)
    if not folder.is_dir():
        if os.environ.get("PASSIVX_REQUIRE_REAL_DATA") == "1":
            pytest.fail(f"recorded data is required, but {folder} is missing")
        pytest.skip(f"no recorded data in {folder}; set PASSIVX_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def shared(real_data: Path) -> Path:
    """The folder that holds the recorded data and the golden results."""
    return real_data.parent
