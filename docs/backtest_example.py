"""The worked example of backtest.md: its prints and settings, its tables, its picture.

python docs/backtest_example.py          prints the tables, writes docs/backtest_example.png
python docs/backtest_example.py --table  prints the tables only (no matplotlib needed)
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import passivx
from passivx._core.flow import OrderFlow, What
from passivx._core.matching import PaperVenue
from passivx._core.types import KIND_NAMES, Kind
from passivx.backtesting import BacktestResult, backtest_flat
from passivx.candidates import exact_from_flat, with_defaults

# --- the prints -------------------------------------------------------------------------------


class Print(NamedTuple):
    """One recorded trade; ``taker`` is what its taker did: 'sold' is a buyer-maker print."""

    ms: int
    taker: str
    price: float
    remark: str = ""


SETTINGS: dict[str, Any] = {
    # the market
    "price_step": 1.0,
    "qty_step": 1.0,
    "min_qty": 1.0,
    "min_cost": 0.0,
    "maker_fee": 0.0002,
    "taker_fee": 0.0005,
    "max_leverage": 100.0,
    "inverse": False,
    # the account and the way to the venue
    "starting_balance": 100_000.0,
    "latency_simulation_ms": 100.0,
    # the config
    "balance_pct": 1.0,
    "leverage": 1.0,
    "entry_qty_pct": 0.1,
    "ddown_factor": 1.0,
    "grid_spacing": 0.01,
    "grid_coefficient": 0.0,
    "n_entry_orders": 2,
    "min_markup": 0.004,
    "max_markup": 0.008,
    "n_close_orders": 3,
    "min_close_qty_multiplier": 0.3,
    "ema_span": 1.0,
    "ema_spread": 0.0,
    "do_long": True,
    "do_shrt": False,
    "stop_loss_liq_diff": 0.0,
    "stop_loss_pos_price_diff": 0.02,
    "stop_loss_pos_reduction": 0.0,
    "market_stop_loss": False,
    "requote_ms": 1000,
    "orders_per_batch": 2,
}


@dataclass(frozen=True)
class Example:
    """Prints, what they meet (changes of SETTINGS), and the funding paid meanwhile."""

    prints: tuple[Print, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    funding: tuple[tuple[int, float], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        return SETTINGS | self.changes


ROUND_TRIP = Example(
    prints=(
        Print(100, "sold", 1000, "first print, first plan"),
        Print(150, "sold", 999, "below 1000, but the buy is still on its way"),
        Print(250, "bought", 1001),
        Print(300, "sold", 1000, "only touches the buy: no fill"),
        Print(400, "sold", 999, "through the buy"),
        Print(650, "sold", 996),
        Print(700, "sold", 989, "through the buy at 990"),
        Print(950, "bought", 993),
        Print(1050, "bought", 997),
        Print(1200, "bought", 999, "only touches the sell: no fill"),
        Print(1250, "bought", 1002, "through two sells"),
        Print(1400, "sold", 1000),
        Print(1600, "bought", 1004, "through 1003"),
        Print(1750, "sold", 1002),
        Print(1900, "bought", 1003, "the run ends"),
    ),
    funding=((1500, 0.0001),),
)
_FALL = (
    Print(100, "sold", 1000),
    Print(300, "sold", 999, "through the buy"),
    Print(500, "bought", 981, "one step above the stop level 980"),
    Print(600, "sold", 980, "at the stop level"),
    Print(650, "sold", 978),
    Print(750, "bought", 977),
    Print(900, "bought", 975),
    Print(1300, "bought", 981, "through 975"),
)
_WITH_A_STOP = {
    "grid_spacing": 0.04,
    "n_entry_orders": 1,
    "n_close_orders": 1,
    "stop_loss_pos_reduction": 0.5,
}
LIMIT_STOP = Example(prints=_FALL, changes=_WITH_A_STOP)
MARKET_STOP = Example(
    prints=(*_FALL[:-1], Print(1300, "bought", 981)),
    changes=_WITH_A_STOP | {"market_stop_loss": True},
)


def run_engine(example: Example) -> BacktestResult:
    """Run the exact engine on the example."""
    prints = example.prints
    ticks = passivx.Ticks.from_arrays(
        price=[p.price for p in prints],
        qty=[1.0] * len(prints),  # `cross` does not look at it
        ts_ms=[p.ms for p in prints],
        buyer_maker=[p.taker == "sold" for p in prints],
    )
    return backtest_flat(ticks, example.settings, engine="exact", funding=example.funding)


# --- the replay: what the engine does between its fills ------------------------------------------


@dataclass
class Sent:
    """One order on its way, resting, gone; ``until_ms`` and ``end`` say when and how it ended."""

    side: int
    price: float
    qty: float
    sent_ms: int
    from_ms: int | None = None
    until_ms: int | None = None
    end: str = "open"

    @property
    def text(self) -> str:
        return f"{'buy' if self.side > 0 else 'sell'} {self.qty:g} @ {self.price:g}"


@dataclass
class Row:
    """One line of the table, and the account after it."""

    ms: int
    prints: list[Print] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    ends: bool = False  # nothing more is said in it
    size: float = 0.0
    entry_price: float = 0.0
    wallet: float = 0.0


class Replay:
    """The engine's event order (backtest.md, *One millisecond*) with its own venue and flow.

    Every millisecond is played, so this is for examples; latency 0 is left out.
    """

    def __init__(self, example: Example) -> None:
        run = exact_from_flat(
            with_defaults(example.settings, "exact"), fill="cross", queue_share=0.0
        )
        record = run.record()
        self.example = example
        self.latency_ms = int(run.latency_ms)
        self.venue = PaperVenue(
            record["market"],
            run.market.tier_records(),
            price=example.prints[0].price,
            wallet=run.starting_balance,
            leverage=run.config.venue_leverage,
        )
        self.flow = OrderFlow(
            record["strategy"], record["market"], record["flow"], wallet=run.starting_balance
        )
        self.on_their_way: list[tuple[int, npt.NDArray[np.void]]] = []
        self.orders: dict[int, Sent] = {}
        self.fills: list[tuple[Any, ...]] = []
        self.rows: list[Row] = []
        self.ms = 0
        alpha = 2.0 / (run.config.indicator_settings.tick_ema.span + 1.0)
        ema = last = example.prints[0].price
        funding = dict(example.funding)

        for ms in range(example.prints[0].ms, example.prints[-1].ms + 1):
            self.ms = ms
            for p in example.prints:
                if p.ms != ms:
                    continue
                self._note(p.remark, printed=p)
                for happened in self.venue.print(p.price, 1.0, p.taker == "sold"):
                    self._filled(*happened)
                self.flow.print(p.price)
                if p.price != last:
                    ema, last = ema * (1.0 - alpha) + p.price * alpha, p.price
            bid, ask = self.venue.touch
            self.flow.see_market(last_price=last, bid=bid, ask=ask, ema=ema)
            if self.flow.due:
                self._send(self.flow.plan())
            if self._deliver():
                self._send(self.flow.plan())
            self._send(self.flow.release())
            if ms in funding:
                self._pay(funding[ms], last)
            if ms % run.config.requote_ms == 0:
                messages = self.flow.requote()
                self._note("requote" if len(messages) else "requote: nothing to do")
                self._send(messages)

    def _note(
        self,
        text: str,
        *,
        printed: Print | None = None,
        account: np.void | None = None,
        ends_line: bool = False,
    ) -> None:
        """Add to the table: a print, and what follows a fill, begins a line."""
        row = self.rows[-1] if self.rows else Row(-1)
        if row.ms != self.ms or printed or row.ends:
            row = Row(self.ms, [printed] if printed else [])
            self.rows.append(row)
        if text:
            row.happened.append(text)
        row.ends = ends_line
        row.size, row.entry_price, row.wallet = _after(
            self.venue.account if account is None else account
        )

    def _tell_account(self, account: np.void) -> None:
        names = account.dtype.names or ()
        self.flow.account(**{name: float(account[name]) for name in names})

    def _filled(self, ex: np.void, account: np.void, cancelled: list[int]) -> None:
        self._tell_account(account)
        kind = Kind(self.flow.filled(int(ex["id"]), abs(float(ex["qty"]))))
        for id in cancelled:
            self._gone(id, "cancelled")
        order = self.orders[int(ex["id"])]
        order.until_ms, order.end = self.ms, "filled"
        figures = (ex[name] for name in ("price", "qty", "pnl", "fee"))
        self.fills.append((self.ms, KIND_NAMES[kind], *figures, *_after(account)))
        pnl = f", pnl {signed(ex['pnl'])}" if ex["pnl"] else ""
        word = "buy" if ex["qty"] > 0 else "sell"
        if kind in (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF):
            word = f"stop, {word}"
        text = f"**{word} {abs(ex['qty']):g} @ {ex['price']:g} fills**{pnl}"
        self._note(f"{text}, fee {signed(ex['fee'])}", account=account, ends_line=True)

    def _gone(self, id: int, how: str) -> None:
        self.flow.gone(id)
        self.orders[id].until_ms, self.orders[id].end = self.ms, how

    def _send(self, messages: npt.NDArray[np.void]) -> None:
        places, cancels = [], []
        for m in messages:
            if m["what"] == What.CANCEL:
                cancels.append(self.orders[int(m["id"])])
                continue
            order = Sent(int(m["side"]), float(m["price"]), float(m["qty"]), self.ms)
            if m["what"] == What.PLACE_AT_MARKET:
                order.price = float("nan")
                self._note(f"sent: market {order.text.split(' @')[0]}", ends_line=True)
            else:
                places.append(order)
            self.orders[int(m["id"])] = order
        self._say("cancels sent", cancels)
        self._say("sent", places)
        if len(messages):
            self.on_their_way.append((self.ms + self.latency_ms, messages))

    def _deliver(self) -> bool:
        filled, rest, gone = False, [], []
        while self.on_their_way and self.on_their_way[0][0] == self.ms:
            _, messages = self.on_their_way.pop(0)
            for i, m in enumerate(messages):
                self.flow.arrived(messages[i : i + 1])
                id, side = int(m["id"]), int(m["side"])
                if m["what"] == What.CANCEL:
                    if self.venue.cancel(id, side):
                        gone.append(self.orders[id])
                        self._gone(id, "cancelled")
                    continue
                answer, happened = self.venue.place(
                    id,
                    side,
                    float(m["price"]),
                    float(m["qty"]),
                    reduce_only=bool(m["reduce_only"]),
                    at_market=m["what"] == What.PLACE_AT_MARKET,
                )
                if happened is not None:
                    self._filled(*happened)
                    filled = True
                elif answer == "rests":
                    self.flow.placed(id)
                    self.orders[id].from_ms = self.ms
                    rest.append(self.orders[id])
                else:
                    raise AssertionError(f"the example has no refusals, {answer}")
        self._say("cancelled", gone)
        self._say("now resting", rest)
        return filled

    def _pay(self, rate: float, last: float) -> None:
        amount = self.venue.settle_funding(rate)
        account = self.venue.account
        self._tell_account(account)
        self.fills.append((self.ms, "funding", last, 0.0, amount, 0.0, *_after(account)))
        self._note(f"**funding** {signed(amount)}")

    def _say(self, what: str, orders: list[Sent]) -> None:
        sides = []
        for side, word in ((1, "buy"), (-1, "sell")):
            of_side = [f"{o.qty:g} @ {o.price:g}" for o in orders if o.side == side]
            if of_side:
                sides.append(f"{word} {', '.join(of_side)}")
        if sides:
            self._note(f"{what}: {'; '.join(sides)}")


def _after(account: np.void) -> tuple[float, float, float]:
    return account["size"], account["entry_price"], account["wallet"]


def replay(example: Example) -> Replay:
    """Replay the example, and make sure that its fills are the engine's."""
    played = Replay(example)
    names = ["ts_ms", "kind", "price", "qty", "pnl", "fee", "pos_size", "pos_price", "balance"]
    engine = run_engine(example).fills[names].tolist()
    assert played.fills == engine, f"{played.fills} is not {engine}"
    return played


# --- the tables -------------------------------------------------------------------------------


def money(x: float) -> str:
    """Write with two decimals, up to four where they are needed."""
    whole, decimals = f"{x:,.4f}".split(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def signed(x: float) -> str:
    return ("−" if x < 0 else "+") + money(abs(x))


def markdown(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of the table; what is as in the line above is left blank."""
    yield "| ms | print | what happens | position | wallet |"
    yield "|---:|---|---|---|---:|"
    above = ("", "", "")
    for row in rows:
        prints = ", ".join(f"{p.taker} at {p.price:g}" for p in row.prints)
        position = f"{row.size:g} @ {row.entry_price:g}" if row.size else "flat"
        cells = (str(row.ms), position, money(row.wallet))
        ms, position, wallet = ("" if x == y else x for x, y in zip(cells, above, strict=True))
        above = cells
        line = f"| {ms} | {prints} | {'; '.join(row.happened)} | {position} | {wallet} |"
        yield line.replace("  ", " ")


def tables() -> list[str]:
    """Return the tables of backtest.md in its order; the market stop's from where it differs."""
    rows = [replay(example).rows for example in (ROUND_TRIP, LIMIT_STOP, MARKET_STOP)]
    rows[2] = [row for row in rows[2] if row.ms >= 600]
    return ["\n".join(markdown(part)) for part in rows]


def fingerprint() -> str:
    """Return what the picture carries, so that a test can tell when it is of another run."""
    return hashlib.sha256(tables()[0].encode()).hexdigest()


# --- the picture ------------------------------------------------------------------------------

PICTURE = Path(__file__).with_name("backtest_example.png")
_BUY, _SELL, _GREY = "#1f6fb4", "#c8571b", "#6f6f6f"
# What the first example is there to show: time, price, where the text begins, text.
_CALLOUTS = (
    (150, 999, (105, 994.2), "the buy is on its way:\nthis print cannot fill it"),
    (300, 1000, (205, 1003.6), "only touched:\nno fill"),
    (400, 999, (425, 994.2), "traded through:\nfills"),
    (700, 989, (735, 986.3), "traded through: fills"),
    (1200, 999, (1190, 993.6), "only touched: no fill"),
    (1250, 1002, (1290, 1006.4), "one print, two fills"),
)


def draw(path: Path = PICTURE) -> None:
    """Draw the first example: prints, orders from sending to their end, fills, position."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    played = replay(ROUND_TRIP)
    prints = ROUND_TRIP.prints
    last = prints[-1].ms
    figure = Figure(figsize=(12, 7), dpi=100)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=[4.4, 1])
    figure.subplots_adjust(left=0.065, right=0.985, top=0.875, bottom=0.08, hspace=0.06)

    top.plot([p.ms for p in prints], [p.price for p in prints], color="#d0d0d0", lw=1, zorder=1)
    for p in prints:
        color, marker = (_SELL, "v") if p.taker == "sold" else (_BUY, "^")
        top.plot(p.ms, p.price, marker, ms=8, color=color, mec="white", mew=0.8, zorder=6)
    for order in played.orders.values():
        color = _BUY if order.side > 0 else _SELL
        start, end = order.from_ms or last, order.until_ms or last
        price = order.price
        top.plot([order.sent_ms, start], [price, price], ":", color=color, lw=1.8, zorder=2)
        top.plot([start, end], [price, price], color=color, lw=2.6, zorder=2)
        if order.end == "cancelled":
            top.plot(end, price, "x", color=color, ms=8, mew=2, zorder=3)
        if order.end == "filled":
            top.plot(end, price, "o", ms=13, mfc="none", mec="black", mew=1.7, zorder=5)
        # The first and the last order rest where prints are: their texts go below.
        below = price == 1000
        top.annotate(
            order.text,
            (start, price),
            (2, -5 if below else 4),
            textcoords="offset points",
            va="top" if below else "bottom",
            color=color,
            fontsize=10,
        )
    for ms, price, text_at, text in _CALLOUTS:
        top.annotate(
            text,
            (ms, price),
            text_at,
            color="black",
            fontsize=10,
            arrowprops={"arrowstyle": "-", "color": _GREY, "lw": 0.9, "shrinkB": 6},
        )

    changes = [played.rows[0]]
    for row in played.rows:
        if row.size != changes[-1].size:
            changes.append(row)
    low.step(
        [*(row.ms for row in changes), last],
        [*(row.size for row in changes), changes[-1].size],
        where="post",
        color="black",
        lw=1.8,
    )
    held = {row.ms: row for row in changes}.values()  # the last of each millisecond
    for row in held:
        text = f"{row.size:g} @ {row.entry_price:g}" if row.size else "flat"
        low.annotate(
            text, (row.ms, row.size), (5, 3), textcoords="offset points", va="bottom", fontsize=10
        )
    for ms, what in ((1000, "requote"), *((ms, "funding") for ms, _ in ROUND_TRIP.funding)):
        low.axvline(ms, color=_GREY, lw=0.9, ls=(0, (4, 4)), zorder=0)
        low.annotate(what, (ms, 25), (4, 0), textcoords="offset points", color=_GREY, fontsize=10)

    keys: dict[str, dict[str, Any]] = {
        "print: sold into the bid": {"marker": "v", "color": _SELL, "ms": 8, "ls": ""},
        "print: bought from the ask": {"marker": "^", "color": _BUY, "ms": 8, "ls": ""},
        "our buy": {"color": _BUY, "lw": 2.6},
        "our sell": {"color": _SELL, "lw": 2.6},
        "on its way (100 ms)": {"color": _GREY, "ls": ":", "lw": 1.8},
        "filled": {"marker": "o", "color": "black", "mfc": "none", "ms": 11, "mew": 1.7, "ls": ""},
        "cancelled": {"marker": "x", "color": _GREY, "ms": 8, "mew": 2, "ls": ""},
    }
    figure.legend(
        handles=[Line2D([], [], label=label, **style) for label, style in keys.items()],
        loc="upper center",
        bbox_to_anchor=(0.525, 0.945),
        ncols=len(keys),
        frameon=False,
        fontsize=10,
        handletextpad=0.5,
        columnspacing=1.5,
    )
    figure.suptitle("One round trip: an order fills when a print goes through its price", y=0.985)
    top.set_ylabel("price (quote)")
    top.set_ylim(975.5, 1010.5)
    low.set_ylabel("position (units)")
    low.set_ylim(-3, 31)
    low.set_xlabel("time (ms)")
    low.set_xlim(80, last + 75)
    low.set_xticks(range(100, last + 1, 100))
    for axes in (top, low):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Comment": fingerprint()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables only")
    args = parser.parse_args()
    print("\n\n".join(tables()))
    if not args.table:
        draw()


if __name__ == "__main__":
    main()
