"""Peak memory of a piece of work, from Linux's own counter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

needs_peak_counter = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="reads Linux's peak memory counter"
)


def peak_growth(work: Callable[[], object]) -> int:
    """Return by how many bytes the resident set grew, at its highest, while ``work`` ran."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _kib("VmRSS")
    work()
    return (_kib("VmHWM") - before) * 1024


def _kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise LookupError(field)
