"""Where recorded data lies, and which build is under test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# pytest puts the checkout first on the path; a build that PYTHONPATH names comes before it.
sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]

from passivx._core.types import build_info  # noqa: E402

REAL_DATA = Path(os.environ.get("PASSIVX_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config):
    expected = os.environ.get("PASSIVX_EXPECT_DEBUG") == "1"
    if build_info()["debug"] is not expected:
        raise pytest.UsageError(
            f"these tests were meant for the {'debug' if expected else 'release'} build of the "
            "core: `make debug` builds one, `make build` the other"
        )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of recorded trades and published configs."""
    if not REAL_DATA.is_dir():
        reason = f"no recorded data at {REAL_DATA} (set PASSIVX_REAL_DATA)"
        if os.environ.get("PASSIVX_REQUIRE_REAL_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return REAL_DATA


@pytest.fixture(scope="session")
def shared(real_data: Path) -> Path:
    """Folder that holds golden/ and vectors/ beside the recorded data."""
    return real_data.parent
