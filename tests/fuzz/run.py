"""Fuzz one target for long: coverage-guided with atheris where it is installed, else plain.

    python -m tests.fuzz.run bybit_messages --seconds 600

What it finds new goes to tests/fuzz/corpus/TARGET; an input that breaks a promise stops it and is
written there too, as crash-*. Prints executions and the size of the corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
# Words that readers look for, and the ends of number ranges.
WORDS = [
    b'"', b"{}", b"[]", b"null", b"true", b"0", b"-1", b"1e999", b'"NaN"', b'"1e999"', b'"0"',
    b'""', b"9" * 19, b'"' + b"9" * 400 + b'"', b"\\u0000", b"\xff", b"[" * 40, b'"1_0"', b"1.5",
]  # fmt: skip


def kept(target: str) -> list[bytes]:
    """Return a target's corpus."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def plain(target: Callable[[bytes], None], folder: Path, seconds: float, seed: int) -> int:
    """Splice and spoil the corpus for so long; return how often."""
    rng = random.Random(seed)
    entries = kept(folder.name)
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end:
        text = bytearray(rng.choice(entries))
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(text))
            to = min(len(text), at + rng.choice((0, 1, 1, 4, 16)))
            other = rng.choice(entries)
            cut = rng.randint(0, len(other))
            text[at:to] = rng.choice(
                (
                    rng.choice(WORDS),
                    bytes([rng.randrange(256)]),
                    other[cut : cut + rng.randint(1, 40)],
                )
            )
        try:
            target(bytes(text))
        except Exception:
            name = hashlib.sha1(text, usedforsecurity=False).hexdigest()[:12]
            (folder / f"crash-{name}").write_bytes(text)
            raise
        n += 1
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = CORPUS / options.target
    with contextlib.suppress(ImportError):
        import atheris  # type: ignore[import-not-found]

        with atheris.instrument_imports(include=["passivx"]):
            from tests.fuzz.targets import TARGETS
        arguments = [
            sys.argv[0],
            str(folder),
            f"-max_total_time={int(options.seconds)}",
            f"-seed={options.seed}",
            "-max_len=4096",
            f"-artifact_prefix={folder}/crash-",
        ]
        atheris.Setup(arguments, TARGETS[options.target])
        atheris.Fuzz()
        return
    from tests.fuzz.targets import TARGETS

    n = plain(TARGETS[options.target], folder, options.seconds, options.seed)
    print(f"{options.target}: {n:,} executions, corpus of {len(list(folder.iterdir()))}, no crash")


if __name__ == "__main__":
    main()
