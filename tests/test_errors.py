"""Errors keep their fields and their text on the way to another process."""

import pickle

import pytest

from passivx.errors import ConfigError, DataError, PassivxError, Problem

SAMPLES = [
    PassivxError("no"),
    ConfigError(
        [Problem("leverage", 0, "must be > 0", "write 1"), Problem("", None, "empty")], "c"
    ),
    ConfigError([Problem("a", 1, "is wrong")]),
    DataError("bad price", "ticks.csv", 7),
    DataError("bad price"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=str)
def test_errors_survive_a_process_border(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
