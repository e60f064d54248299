"""What Bybit's answers mean: one table from code to (is it proven?, what to do).

Codes by the V5 error page. What is not in the table is `Verdict.UNKNOWN`: only a code that can be
trusted to say "this never happened" is a rejection.
"""

from __future__ import annotations

import re
from typing import Final

from passivx.exchanges.base import Reaction, Verdict
from passivx.exchanges.http import Finding

__all__ = ["judge", "react"]

_OK: Final = Verdict.OK
_NO: Final = Verdict.REJECTED
_UNKNOWN: Final = Verdict.UNKNOWN

_TABLE: Final[dict[int, tuple[Verdict, Reaction]]] = {
    0: (_OK, Reaction.NONE),
    # The venue's own failures: the order may have gone through.
    429: (_UNKNOWN, Reaction.BACK_OFF),
    10000: (_UNKNOWN, Reaction.LOOK_UP),
    10014: (_UNKNOWN, Reaction.LOOK_UP),
    10016: (_UNKNOWN, Reaction.LOOK_UP),
    10018: (_UNKNOWN, Reaction.BACK_OFF),
    10019: (_UNKNOWN, Reaction.RECREATE),
    10403: (_UNKNOWN, Reaction.BACK_OFF),
    10429: (_UNKNOWN, Reaction.BACK_OFF),
    20003: (_UNKNOWN, Reaction.BACK_OFF),
    20006: (_UNKNOWN, Reaction.LOOK_UP),
    40004: (_UNKNOWN, Reaction.LOOK_UP),
    110079: (_UNKNOWN, Reaction.BACK_OFF),
    # Ids are never reused, so the one that exists is ours: an earlier message did arrive.
    110072: (_UNKNOWN, Reaction.LOOK_UP),
    # Refused at the door.
    10001: (_NO, Reaction.DROP),
    10002: (_NO, Reaction.RESYNC_CLOCK),
    10003: (_NO, Reaction.HALT),
    10004: (_NO, Reaction.HALT),
    10005: (_NO, Reaction.HALT),
    10006: (_NO, Reaction.BACK_OFF),
    10010: (_NO, Reaction.HALT),
    10024: (_NO, Reaction.HALT),
    10027: (_NO, Reaction.HALT),
    10404: (_NO, Reaction.DROP),
    33004: (_NO, Reaction.HALT),
    # Refused by the rules.
    110001: (_NO, Reaction.GONE),
    110003: (_NO, Reaction.REPRICE),
    110004: (_NO, Reaction.DROP),
    110006: (_NO, Reaction.DROP),
    110007: (_NO, Reaction.DROP),
    110008: (_NO, Reaction.GONE),
    110009: (_NO, Reaction.DROP),
    110010: (_NO, Reaction.GONE),
    110012: (_NO, Reaction.DROP),
    110013: (_NO, Reaction.DROP),
    110017: (_NO, Reaction.DROP),
    110020: (_NO, Reaction.DROP),
    110021: (_NO, Reaction.REDUCE_ONLY),
    110023: (_NO, Reaction.REDUCE_ONLY),
    110024: (_NO, Reaction.DROP),
    110028: (_NO, Reaction.DROP),
    110042: (_NO, Reaction.REDUCE_ONLY),
    110044: (_NO, Reaction.DROP),
    110045: (_NO, Reaction.DROP),
    110052: (_NO, Reaction.DROP),
    110064: (_NO, Reaction.DROP),
    110066: (_NO, Reaction.BACK_OFF),
    110073: (_NO, Reaction.DROP),
    110074: (_NO, Reaction.HALT),
    110086: (_NO, Reaction.DROP),
    110090: (_NO, Reaction.DROP),
    110094: (_NO, Reaction.DROP),
    110101: (_NO, Reaction.HALT),
    110103: (_NO, Reaction.DROP),
    110120: (_NO, Reaction.REPRICE),
    110121: (_NO, Reaction.REPRICE),
    30208: (_NO, Reaction.REPRICE),
    30209: (_NO, Reaction.REPRICE),
    3400045: (_NO, Reaction.DROP),
    # As asked for already.
    20001: (_OK, Reaction.ALREADY_SO),
    110025: (_OK, Reaction.ALREADY_SO),
    110026: (_OK, Reaction.ALREADY_SO),
    110027: (_OK, Reaction.ALREADY_SO),
    110043: (_OK, Reaction.ALREADY_SO),
    34040: (_OK, Reaction.ALREADY_SO),
}

# HTTP answers without the venue's envelope: something in between may have made them, and they prove
# nothing. 403 is the address's limit, a region, or a firewall; by the docs every connection must
# rest for ten minutes.
_HTTP: Final[dict[int, tuple[Verdict, Reaction]]] = {
    401: (_UNKNOWN, Reaction.HALT),
    403: (_UNKNOWN, Reaction.BACK_OFF),
    429: (_UNKNOWN, Reaction.BACK_OFF),
}

_TOO_OFTEN: Final = 10006
_BAD_KEY: Final = 10003
# What concerns one order, or the kind of message it came in answer to.
_OF_ONE_KIND: Final = frozenset({_TOO_OFTEN, _BAD_KEY, 110066, 110079})
# The venue's load, or one order's state: cancels and reductions may still go.
_SPARES_URGENT: Final = frozenset({429, 10429, 110066, 110079})
# A refused signature is answered with the whole text that was to be signed.
_SIGNED_TEXT: Final = re.compile(r"origin_string.*", re.DOTALL)


def react(
    status: int, code: int | None, text: str, *, on_trade_socket: bool = False
) -> tuple[Verdict, Reaction]:
    """Classify an answer; ``code`` None when there was no envelope to read one from."""
    if code is None:
        return _HTTP.get(status, (_UNKNOWN, Reaction.LOOK_UP))
    if code == 10001 and "remains unchanged" in text:
        return _OK, Reaction.ALREADY_SO
    if code == _BAD_KEY and on_trade_socket:
        # There it also means too many sessions of one account.
        return _NO, Reaction.BACK_OFF
    return _TABLE.get(code, (_UNKNOWN, Reaction.LOOK_UP))


def judge(
    status: int,
    code: int | None,
    text: str,
    *,
    window: str,
    retry_after_s: float = 0.0,
    until_reset_s: float = 0.0,
    on_trade_socket: bool = False,
) -> Finding:
    """Say what an answer of REST or of the trade socket means, and what must be quiet for how long.

    ``window`` is the budget's for the message that was answered, ``retry_after_s`` what the answer
    itself asks for (0: nothing), ``until_reset_s`` the time to its reset stamp, which tells
    something of a refusal for too many messages only.
    """
    text = _SIGNED_TEXT.sub("", text)
    verdict, reaction = react(status, code, text, on_trade_socket=on_trade_socket)
    if reaction is not Reaction.BACK_OFF:
        return Finding(verdict, reaction, code, text)
    return Finding(
        verdict,
        reaction,
        code,
        text,
        retry_after_s or (until_reset_s if code == _TOO_OFTEN else 0.0),
        window if code in _OF_ONE_KIND else "",
        spare_urgent=code in _SPARES_URGENT,
    )
