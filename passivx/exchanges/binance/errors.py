"""What Binance's answers mean: one table from code to (is it proven?, what to do).

Codes by the derivatives error page. What is not in the table is `Verdict.UNKNOWN`: only a code that
can be trusted to say "this never happened" is a rejection.
"""

from __future__ import annotations

import re
from typing import Final

from passivx.exchanges.base import Reaction, Verdict
from passivx.exchanges.http import MOST_BAN_S, Finding

__all__ = ["NO_SUCH_ORDER", "ORDERS_1M", "ORDERS_10S", "WEIGHT", "judge", "react"]

# The budget's windows, as the answers name them.
WEIGHT: Final = "weight"
ORDERS_10S: Final = "orders_10s"
ORDERS_1M: Final = "orders_1m"

_OK: Final = Verdict.OK
_NO: Final = Verdict.REJECTED
_UNKNOWN: Final = Verdict.UNKNOWN

# The answer to a query that proves: there is no such order now.
NO_SUCH_ORDER: Final = -2013
_TOO_MUCH_WEIGHT: Final = -1003
_TOO_MANY_ORDERS: Final = -1015

_TABLE: Final[dict[int, tuple[Verdict, Reaction]]] = {
    # The venue's own failures: the order may have gone through.
    -1000: (_UNKNOWN, Reaction.LOOK_UP),
    -1006: (_UNKNOWN, Reaction.LOOK_UP),
    -1007: (_UNKNOWN, Reaction.LOOK_UP),
    # Ids are never reused, so the open order with this one is ours: an earlier message did arrive.
    -4116: (_UNKNOWN, Reaction.LOOK_UP),
    # Certain failures by the docs, although the venue's own.
    -1001: (_NO, Reaction.BACK_OFF),
    -1008: (_NO, Reaction.BACK_OFF),
    # Refused at the door.
    _TOO_MUCH_WEIGHT: (_NO, Reaction.BACK_OFF),
    _TOO_MANY_ORDERS: (_NO, Reaction.BACK_OFF),
    -1021: (_NO, Reaction.RESYNC_CLOCK),
    -1022: (_NO, Reaction.HALT),
    -1100: (_NO, Reaction.DROP),
    -1101: (_NO, Reaction.DROP),
    -1102: (_NO, Reaction.DROP),
    -1103: (_NO, Reaction.DROP),
    -1104: (_NO, Reaction.DROP),
    -1105: (_NO, Reaction.DROP),
    -1106: (_NO, Reaction.DROP),
    -1111: (_NO, Reaction.REFRESH_RULES),
    -1114: (_NO, Reaction.DROP),
    -1115: (_NO, Reaction.DROP),
    -1116: (_NO, Reaction.DROP),
    -1117: (_NO, Reaction.DROP),
    -1121: (_NO, Reaction.DROP),
    -1125: (_NO, Reaction.RECREATE),
    -1130: (_NO, Reaction.DROP),
    -2014: (_NO, Reaction.HALT),
    -2015: (_NO, Reaction.HALT),
    # Refused by the rules.
    -2010: (_NO, Reaction.DROP),
    -2011: (_NO, Reaction.GONE),
    NO_SUCH_ORDER: (_NO, Reaction.GONE),
    -2018: (_NO, Reaction.DROP),
    -2019: (_NO, Reaction.DROP),
    -2021: (_NO, Reaction.REPRICE),
    -2022: (_NO, Reaction.DROP),
    -2023: (_NO, Reaction.HALT),
    -2025: (_NO, Reaction.DROP),
    -2027: (_NO, Reaction.DROP),
    -2028: (_NO, Reaction.DROP),
    -4002: (_NO, Reaction.REFRESH_RULES),
    -4003: (_NO, Reaction.DROP),
    -4004: (_NO, Reaction.REFRESH_RULES),
    -4005: (_NO, Reaction.REFRESH_RULES),
    -4013: (_NO, Reaction.REFRESH_RULES),
    -4014: (_NO, Reaction.REFRESH_RULES),
    -4015: (_NO, Reaction.DROP),
    -4016: (_NO, Reaction.REPRICE),
    -4023: (_NO, Reaction.REFRESH_RULES),
    -4024: (_NO, Reaction.REPRICE),
    -4028: (_NO, Reaction.DROP),
    -4047: (_NO, Reaction.DROP),
    -4048: (_NO, Reaction.DROP),
    -4061: (_NO, Reaction.HALT),
    -4067: (_NO, Reaction.DROP),
    -4068: (_NO, Reaction.DROP),
    -4082: (_NO, Reaction.DROP),
    -4087: (_NO, Reaction.REDUCE_ONLY),
    -4105: (_NO, Reaction.REDUCE_ONLY),
    -4106: (_NO, Reaction.REDUCE_ONLY),
    -4107: (_NO, Reaction.REDUCE_ONLY),
    -4109: (_NO, Reaction.HALT),
    -4118: (_NO, Reaction.DROP),
    -4120: (_NO, Reaction.DROP),
    -4131: (_NO, Reaction.BACK_OFF),
    -4141: (_NO, Reaction.HALT),
    -4161: (_NO, Reaction.DROP),
    -4164: (_NO, Reaction.DROP),
    -4168: (_NO, Reaction.DROP),
    -4189: (_NO, Reaction.REDUCE_ONLY),
    -4192: (_NO, Reaction.HALT),
    -4400: (_NO, Reaction.REDUCE_ONLY),
    -4401: (_NO, Reaction.REDUCE_ONLY),
    -4531: (_NO, Reaction.DROP),
    -5021: (_NO, Reaction.DROP),
    -5022: (_NO, Reaction.REPRICE),
    -5024: (_NO, Reaction.DROP),
    -5025: (_NO, Reaction.DROP),
    -5026: (_NO, Reaction.DROP),
    -5028: (_NO, Reaction.RESYNC_CLOCK),
    -5029: (_NO, Reaction.DROP),
    -5043: (_NO, Reaction.BACK_OFF),
    -5047: (_NO, Reaction.DROP),
    # As asked for already.
    -4046: (_OK, Reaction.ALREADY_SO),
    -4059: (_OK, Reaction.ALREADY_SO),
    -5027: (_OK, Reaction.ALREADY_SO),
}

# Answers without the venue's own code: something in between may have made them, and they prove
# nothing.
_HTTP: Final = {403: Reaction.BACK_OFF, 418: Reaction.BACK_OFF, 429: Reaction.BACK_OFF}

# Of the three bodies of a 503 the docs call this one a failure; "Unknown error" may have executed.
_NOT_SERVED: Final = re.compile(r"\s*Service Unavailable\.?\s*")
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})\b")
# Refusals that concern one order, or the venue's load: cancels may still go.
_SPARES_URGENT: Final = frozenset({-1001, -1008, -4131, -5043})
_OF_ONE_ORDER: Final = frozenset({-4131, -5043})


def react(status: int, code: int | None, text: str) -> tuple[Verdict, Reaction]:
    """Classify an answer by HTTP status (or that of a socket's answer), code and text."""
    if code is None or code == 200:
        if 200 <= status < 300:
            return _OK, Reaction.NONE
    elif code in _TABLE:
        return _TABLE[code]
    if status == 503 and _NOT_SERVED.fullmatch(text):
        return _NO, Reaction.BACK_OFF
    return _UNKNOWN, _HTTP.get(status, Reaction.LOOK_UP)


def judge(status: int, code: int | None, text: str, *, retry_after_s: float, ts_ms: int) -> Finding:
    """Say what an answer of REST or of the order socket means, and for how long to keep quiet.

    ``retry_after_s`` is what the answer itself asks for, 0 if nothing; ``ts_ms`` the venue's time.
    """
    verdict, reaction = react(status, code, text)
    if reaction is not Reaction.BACK_OFF:
        return Finding(verdict, reaction, code, text)
    wait_s, window = retry_after_s, ""
    until = _BANNED_UNTIL.search(text)
    if until is not None:
        wait_s = wait_s or min(MOST_BAN_S, max(1.0, (int(until[1]) - ts_ms) / 1000))
    elif code == _TOO_MANY_ORDERS:
        minute = "MINUTE" in text.upper()
        window = ORDERS_1M if minute else ORDERS_10S
        wait_s = wait_s or _to_next_s(60_000 if minute else 10_000, ts_ms)
    elif code in _OF_ONE_ORDER:
        window = ORDERS_10S
    elif code == _TOO_MUCH_WEIGHT or status == 429:
        # Asking on after a 429 is what earns a ban.
        wait_s = wait_s or _to_next_s(60_000, ts_ms)
    return Finding(
        verdict,
        reaction,
        code,
        text,
        wait_s,
        window,
        spare_urgent=code in _SPARES_URGENT or status == 503,
        ban=until is not None or status in (403, 418),
    )


def _to_next_s(interval_ms: int, ts_ms: int) -> float:
    """Return the seconds to the next wall-clock multiple, where the venue counts anew."""
    return (interval_ms - ts_ms % interval_ms) / 1000
