"""``passivx sim`` as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sim(*args: object) -> Iterator[subprocess.Popen[str]]:
    """Start it; whatever becomes of it, it is gone in the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "passivx", "sim", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(*args: object) -> Iterator[str]:
    """Yield its first line; it must end cleanly when it is told to."""
    with sim(*args) as process:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        try:
            yield line
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors, errors
