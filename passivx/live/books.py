"""Our books of the account against the venue's: who is right when they differ.

Ours follow each fill at once, by the venue's own arithmetic. The venue's come by streams, a little
later, and by REST, sometimes much older than they look. A difference is believed when it stays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from passivx._core.bot import Bot
from passivx.config import Config
from passivx.exchanges.base import Account, Payment
from passivx.live.events import Intent, Note, Now, Record

__all__ = ["MONEY_STEP", "Books", "Desk", "payment_body"]

MONEY_STEP: Final = 3e-8
"""Figures of money come with 8 decimals: what rounding makes of two of them, settle currency."""

_MONEY_NOISE: Final = 1e-9
_PRICE_NOISE: Final = 1e-6
# What a wallet differs by without anybody having moved money: roundings that added up.
_DRIFT: Final = 1e-6
# How long own books and the stream's may differ before one must be wrong, s.
_DIFFER_S: Final = 1.5
# A difference must be read twice; so far apart when the stream, or reason, denies it, s.
_AGAIN_S: Final = 1.0
_CONTRADICTION_S: Final = 6.0
# A wallet that has lost this share of it at once has not lost it by trading.
_GREAT_LOSS: Final = 0.05


class Desk(Protocol):
    """What the books need of the bot that keeps them; `live.core.Core` is one."""

    bot: Bot
    config: Config
    counts: Counter[str]

    def tell(self, intent: Intent) -> None: ...
    def gate(self, name: str, why: str, until_s: float = ..., *, alert: bool = ...) -> None: ...
    def clear(self, name: str) -> None: ...
    def doubt(self, why: str, now: Now) -> None: ...
    def halt(self, why: str) -> None: ...
    def plan_anew(self) -> None: ...
    @property
    def hears_account(self) -> bool: ...


class Books:
    """What the venue says of wallet and position, beside what ours say."""

    def __init__(self, desk: Desk, now: Now) -> None:
        self._desk = desk
        self._booked_s = now.s
        self._wallet: tuple[float, int] | None = None  # as last told by a stream, and of when
        self._wallet_s: float | None = None  # heard then, and not compared yet
        self._position: tuple[float, float] | None = None  # size, heard at s
        self._differs: dict[str, tuple[float, float]] = {}

    def booked(self, now: Now) -> None:
        """Take note that a fill or payment was booked: what streams tell of it may still come."""
        self._booked_s = now.s

    # --- streams ---

    def wallet_told(self, wallet: float, ts_ms: int, now: Now) -> None:
        """Take in a wallet of the stream."""
        if self._wallet is not None and ts_ms < self._wallet[1]:
            return
        self._wallet, self._wallet_s = (wallet, ts_ms), now.s
        if wallet < self._desk.bot.account[0] * (1.0 - _GREAT_LOSS):
            # Taken out, perhaps: what is open may be too much already.
            self._desk.doubt("the wallet has become much smaller", now)

    def position_told(self, size: float, now: Now) -> None:
        """Take in a position of the stream."""
        self._position = size, now.s

    def pay(self, payment: Payment) -> None:
        """Book a funding payment, unless the wallet has told it already."""
        told = self._wallet
        wallet = self._desk.bot.account[0]
        if told is None or told[1] < payment.ts_ms or not _same_money(told[0], wallet):
            self._desk.bot.pay(payment.amount)

    def compare(self, now: Now) -> None:
        """Compare with what the streams last told, once no fill can be on its way any more."""
        if now.s - self._booked_s < _DIFFER_S:
            return
        desk = self._desk
        wallet, _, size, _, _ = desk.bot.account
        if self._wallet is not None and self._wallet_s is not None:
            told = self._wallet[0]
            if now.s - self._wallet_s >= _DIFFER_S:
                self._wallet_s = None
                if not _same_money(told, wallet) and told > 0.0:
                    desk.counts["wallet_adopted"] += 1
                    desk.bot.adopt(wallet=told)
                    if abs(told - wallet) > _DRIFT * abs(wallet):
                        desk.plan_anew()
                        desk.tell(Note("wallet", {"was": wallet, "is": told}))
        position = self._position
        if position is not None and now.s - position[1] >= _DIFFER_S and position[0] != size:
            self._position = None
            desk.doubt("the venue tells another position", now)

    # --- REST ---

    def agree(self, account: Account, now: Now) -> bool:
        """Compare with a whole reading; what stays different is the venue's to say."""
        desk = self._desk
        wallet, _, size, entry_price, _ = desk.bot.account
        held = account.position
        if not account.one_way:
            desk.halt("the account is in hedge mode now; switch back to one-way and start again")
            return False
        self._hold_if(
            "margin_mode",
            account.cross_mode is not desk.config.cross_mode,
            "the margin mode was changed at the venue",
        )
        self._hold_if(
            "leverage",
            account.leverage < desk.config.leverage,
            f"the leverage was set to {account.leverage:g} at the venue",
        )
        if held.size != 0.0 and not held.entry_price > 0.0:
            desk.counts["unusable_account"] += 1
            desk.gate("account", "a position without a price was reported")
            return False
        stream_says = self._position is not None

        def adopt_position() -> None:
            self._adopt_position(account)

        agreed = self._settled(
            "position", held.size == size, held.size, now, adopt_position, denied=stream_says
        )
        agreed &= self._settled(
            "wallet",
            _same_money(account.wallet, wallet),
            account.wallet,
            now,
            lambda: self._adopt_wallet(account.wallet),
        )
        if agreed and size != 0.0:
            # Fills that came out of their order leave another average.
            agreed = self._settled(
                "entry_price",
                abs(held.entry_price - entry_price) <= _PRICE_NOISE * entry_price,
                held.entry_price,
                now,
                adopt_position,
            )
            self.take_liq(held.liq_price)
        return agreed

    def take_liq(self, told: float) -> None:
        """Go by the venue's liquidation price where ours is clearly another."""
        ours = self._desk.bot.account[4]
        if math.isfinite(told) and told > 0.0 and abs(told - ours) > _PRICE_NOISE * told:
            self._desk.bot.adopt(liq_price=told)

    def _hold_if(self, name: str, wrong: bool, why: str) -> None:
        if wrong:
            self._desk.gate(name, why, alert=True)
        else:
            self._desk.clear(name)

    def _settled(
        self,
        name: str,
        same: bool,
        told: float,
        now: Now,
        adopt: Callable[[], None],
        *,
        denied: bool = False,
    ) -> bool:
        """Believe a difference once it was read twice; for longer when the stream denies it."""
        if same:
            self._differs.pop(name, None)
            return True
        desk = self._desk
        before = self._differs.get(name)
        if before is None or before[0] != told:
            desk.counts["mismatch"] += 1
            self._differs[name] = told, now.s
            desk.gate("account", f"{name} is not what the venue says")
            return False
        doubtful = desk.hears_account and (denied or told == 0.0)
        if now.s - before[1] < (_CONTRADICTION_S if doubtful else _AGAIN_S):
            return False
        del self._differs[name]
        desk.counts["adopted"] += 1
        adopt()
        return True

    def _adopt_position(self, account: Account) -> None:
        desk, held = self._desk, account.position
        was = desk.bot.account[2]
        desk.bot.adopt(size=held.size, entry_price=held.entry_price)
        self.take_liq(held.liq_price)
        self._position = None
        desk.plan_anew()
        self._record("position", was, held.size, price=held.entry_price)
        desk.tell(Note("adopted", {"size": held.size, "was": was}, alert=True))

    def _adopt_wallet(self, wallet: float) -> None:
        self._record("wallet", self._desk.bot.account[0], wallet)
        self._desk.bot.adopt(wallet=wallet)
        self._desk.plan_anew()

    def _record(self, what: str, was: float, now: float, **more: Any) -> None:
        self._desk.tell(Record("adopted", what, {"was": was, "is": now, **more}))


def payment_body(payment: Payment) -> dict[str, Any]:
    """Return what the journal keeps of a payment."""
    return {"amount": payment.amount, "venue_ts_ms": payment.ts_ms}


def _same_money(a: float, b: float) -> bool:
    return abs(a - b) <= MONEY_STEP + _MONEY_NOISE * max(abs(a), abs(b))
