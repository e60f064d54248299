"""The words of vectors/error_reactions.json, and what they ask for here."""

from __future__ import annotations

from passivx.exchanges.base import Reaction

WORDS = {
    "UNKNOWN": Reaction.LOOK_UP,
    "RESYNC_CLOCK": Reaction.RESYNC_CLOCK,
    "BACKOFF": Reaction.BACK_OFF,
    "GONE": Reaction.GONE,
    "REPRICE": Reaction.REPRICE,
    "NOOP": Reaction.ALREADY_SO,
    "REDUCE_ONLY": Reaction.REDUCE_ONLY,
    "HALT": Reaction.HALT,
    "REFRESH_RULES": Reaction.REFRESH_RULES,
    "RECREATE": Reaction.RECREATE,
    "DROP": Reaction.DROP,
    "re-query": Reaction.LOOK_UP,
    "reconnect": Reaction.RECREATE,
}


def wanted(action: str) -> Reaction:
    """Return what an action, which begins with one of the words, asks for."""
    return next(WORDS[word] for word in WORDS if action.startswith(word))
