"""How long a person waits for `passivx --help`: the whole process, interpreter included."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("args", [["--help"], ["--version"]], ids=" ".join)
def test_start(benchmark, args):
    command = [sys.executable, "-m", "passivx", *args]
    benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"capture_output": True, "check": True}, rounds=15
    )


def test_bare_interpreter(benchmark):
    """What of it is Python itself."""
    command = [sys.executable, "-c", "pass"]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True}, rounds=15)
