"""Fixtures of the whole suite. Slow plain twins are imported as ``from reference import …``."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of recorded market data (its README lists the files)."""
    folder = Path(os.environ.get("PASSIVX_REAL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        message = f"no recorded market data at {folder}: set PASSIVX_REAL_DATA"
        if os.environ.get("PASSIVX_REQUIRE_REAL_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def shared(real_data):
    """Return the folder beside the recorded data that holds protocol vectors and golden cases."""
    return real_data.parent
