"""What a process that holds a key does first."""

from __future__ import annotations

import ctypes
import logging
import sys

__all__ = ["harden"]

_log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Keep this process's memory, which holds a key, to itself. Elsewhere than on Linux: nothing.

    No core is dumped, and no other process of the same user may attach to it or read it through
    ``/proc`` (root may). What the system does not allow is warned about.
    """
    if sys.platform != "linux":
        return
    # Absent on Windows.
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    except (OSError, ValueError) as e:
        _log.warning("this process could not be hardened: %s", e)
