"""The package builds from its sdist, without .git, and the wheel carries what users need."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Checkout without .git -> sdist -> wheel, with the build tools of this environment."""
    work = tmp_path_factory.mktemp("build")
    checkout = work / "checkout"
    # What git would hand out, uncommitted work included.
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in files.splitlines():
        source = ROOT / name
        if source.is_file():
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", work, cwd=checkout)
    (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(work / "source", filter="data")
    assert not [name for name in names if name.endswith((".c", ".so"))]
    assert [name for name in names if name.endswith("_core/grid.pyx")]
    (source,) = (work / "source").iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", work, cwd=source)
    (built,) = work.glob("*.whl")
    return built


def test_the_wheel_carries_declarations_stubs_and_examples_but_no_c(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".c", ".pyx"))]
    for wanted in (
        "passivx/py.typed",
        "passivx/_core/types.pxd",
        "passivx/_core/formulas.pxd",
        "passivx/_core/grid.pyi",
        "passivx/configs/live_settings/binance/default.json",
    ):
        assert wanted in names
    assert [name for name in names if name.startswith("passivx/_core/grid.") and ".so" in name]


def test_the_installed_wheel_runs_the_main_job_away_from_the_checkout(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel,
        cwd=elsewhere,
    )  # fmt: skip
    shown = run(
        sys.executable, "-c", "import passivx; print(passivx.__file__)",
        cwd=elsewhere, PYTHONPATH=str(site),
    )  # fmt: skip
    assert shown.stdout.startswith(str(site))
    demo = run(
        sys.executable, "-m", "passivx", "demo", "--ticks", "20000", "--live-ticks", "500",
        "--out", "demo",
        cwd=elsewhere, PYTHONPATH=str(site),
    )  # fmt: skip
    assert "synthetic" in demo.stdout
    run(sys.executable, "-m", "passivx", "init", "ws", cwd=elsewhere, PYTHONPATH=str(site))
    assert (elsewhere / "ws/live_settings/bybit/default.json").exists()
