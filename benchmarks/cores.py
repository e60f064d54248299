"""To measure on one core, beside a process that has another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.latency_venue import keep_to

needs_cores = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs Linux: cores are assigned"
)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Stay on one core for as long as this lasts."""
    everywhere = os.sched_getaffinity(0)
    keep_to(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)
