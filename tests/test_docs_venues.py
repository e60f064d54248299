"""The example of docs/venues.md runs as it stands, beside a simulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.simulator.process import serving

DOCS = Path(__file__).parents[1] / "docs"


def test_the_example_runs(tmp_path):
    code = (DOCS / "venues.md").read_text().split("```python\n")[1].split("```")[0]
    with serving("--exchange", "binance") as line:
        (tmp_path / "endpoints.json").write_text(line)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "Verdict.OK" in done.stdout
    assert "mine-1" in done.stdout.splitlines()[-1]
