"""The kept corpus, and a little fuzzing around it; `python -m tests.fuzz.run` does it for long."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import WORDS, kept
from tests.fuzz.targets import TARGETS

N_EXAMPLES = int(os.environ.get("PASSIVX_FUZZ_EXAMPLES", "300"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target):
    entries = kept(target)
    assert entries
    for entry in entries:
        TARGETS[target](entry)


@pytest.mark.parametrize("target", TARGETS)
def test_around_the_corpus(target):
    entries = kept(target)

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
