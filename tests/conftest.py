"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of recorded trades; the test is skipped where there is none, unless CI demands it."""
    folder = Path(os.environ.get("PASSIVX_REAL_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no real market data at {folder} (set PASSIVX_REAL_DATA)"
        if os.environ.get("PASSIVX_REQUIRE_REAL_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def shared(real_data: Path) -> Path:
    """The folder the real data and the golden results lie in."""
    return real_data.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "nightly" in (config.getoption("-m") or ""):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]
