"""The kept corpus, and a little fuzzing around it; `python -m tests.fuzz.run` does it for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
N_EXAMPLES = int(os.environ.get("PASSIVX_FUZZ_EXAMPLES", "300"))
# Words that readers look for, and the ends of number ranges.
WORDS = [
    b'"', b"{}", b"[]", b"null", b"true", b"0", b"-1", b"1e999", b'"NaN"', b'"1e999"', b'"0"',
    b'""', b"9" * 19, b'"' + b"9" * 400 + b'"', b"\\u0000", b"\xff", b"[" * 40, b'"1_0"', b"1.5",
]  # fmt: skip


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target):
    entries = seeds(target)
    assert entries
    for entry in entries:
        TARGETS[target](entry)


@pytest.mark.parametrize("target", TARGETS)
def test_around_the_corpus(target):
    entries = seeds(target)

    @settings(max_examples=N_EXAMPLES, deadline=None)
    @given(st.data())
    def spoil(data):
        text = bytearray(data.draw(st.sampled_from(entries)))
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(0, len(text)))
            to = min(len(text), at + data.draw(st.integers(0, 16)))
            text[at:to] = data.draw(st.sampled_from(WORDS) | st.binary(max_size=4))
        TARGETS[target](bytes(text))

    spoil()
