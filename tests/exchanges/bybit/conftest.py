"""What the tests of Bybit's client share."""

from __future__ import annotations

import pytest

from passivx.clock import VirtualClock
from tests.exchanges.bybit.venue import NOW_MS


@pytest.fixture
def clock() -> VirtualClock:
    """The client's and its venue's: what is signed with it is checked by it."""
    return VirtualClock(NOW_MS)
