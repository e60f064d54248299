"""Named places at which the tests kill the process: after this, before that.

Nothing happens unless PASSIVX_FAULT_POINT names one, as ``name`` or ``name:n`` for the n-th time.
"""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["POINTS", "fault_point"]

POINTS: Final = (
    "before_journal",
    "after_journal",
    "after_send",
    "before_fill_commit",
    "after_fill_commit",
    "while_opening",
    "after_cancel",
    "while_stopping",
)
_NAME, _, _NTH = os.environ.get("PASSIVX_FAULT_POINT", "").partition(":")
_left = int(_NTH or 1)


def fault_point(name: str) -> None:
    """Die here, without a word, if that is what this run is for."""
    global _left
    if name == _NAME:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
