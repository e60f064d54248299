"""A driver in plain Python between `PaperVenue` and `OrderFlow` gets the fills of the exact engine.

The live bot and the simulated exchange use these two doors; that they are the machine that was
backtested is what this proves. `Driver` is also how a driver is written: it owns the clock, the
messages on their way and the record, and no rule. The numbers are the steps of docs/backtest.md,
*One millisecond*.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
import pytest

from passivx._core.ema import TickEma
from passivx._core.flow import FLOW_RULES_DTYPE, OrderFlow, What
from passivx._core.matching import FillMode, PaperVenue
from passivx._core.types import Kind
from tests.core.exact_scenarios import draw
from tests.reference.exact_door import run_engine, to_settings
from tests.reference.exact_twin import Scenario

Record = dict[str, Any]


class Driver:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.s = s = scenario
        rules = np.ascontiguousarray(to_settings(s)["flow"]).astype(FLOW_RULES_DTYPE)
        self.flow = OrderFlow(s.strategy, s.market, rules, wallet=s.starting_balance)
        self.venue = PaperVenue(
            s.market,
            s.tiers,
            price=s.price[0],
            wallet=s.starting_balance,
            leverage=s.venue_leverage,
            cross_mode=s.cross_mode,
            fill_mode=FillMode[s.fill.upper()],
            queue_share=s.queue_share,
            liquidation_fee=s.liquidation_fee,
        )
        self.ema = TickEma(s.price[0], span=s.ema_span)
        self.now, self.tick, self.n_sent = int(s.ts_ms[0]), 0, 0
        self.last_price, self.funding_rate = s.price[0], math.nan
        self.mail: list[tuple[int, int, Any]] = []  # arrives, number, message: MESSAGE_DTYPE, (1,)
        self.records: list[Record] = []
        self.liquidated = False

    def play(self) -> list[Record]:
        s, funding = self.s, self.s.funding.tolist()
        first, last = int(s.ts_ms[0]), int(s.ts_ms[-1])
        requote_ms = -(-first // s.requote_ms) * s.requote_ms
        at = 0
        while funding and funding[0][0] < first:
            self.funding_rate = funding.pop(0)[1]
        while True:
            while at < len(s.price) and s.ts_ms[at] == self.now:  # 1
                self.hear(at)
                if self.liquidated:
                    return self.records
                at += 1
            self.plan_if_due()  # 2
            self.exchange_messages()  # 3, 4, 5
            if self.liquidated:
                return self.records
            while funding and funding[0][0] == self.now:  # 6
                self.pay_funding(funding.pop(0)[1])
            if requote_ms == self.now:  # 7
                self.see_market()
                self.send(self.flow.requote())
                requote_ms += s.requote_ms
            while self.mail and self.mail[0][0] == self.now:  # 8
                self.exchange_messages()
            if self.now == last or self.liquidated:
                return self.records
            coming = [requote_ms, int(s.ts_ms[at])]
            coming += [self.mail[0][0]] if self.mail else []
            coming += [funding[0][0]] if funding else []
            self.now = min(coming)

    # --- the venue speaks ---

    def hear(self, i: int) -> None:
        s = self.s
        self.tick, self.last_price = i, s.price[i]
        for happened in self.venue.print(s.price[i], s.qty[i], bool(s.buyer_maker[i])):
            self.take(*happened)
        self.flow.print(s.price[i])
        self.ema.update(s.price[i])

    def take(self, execution: np.void, account: np.void, cancelled: list[int]) -> None:
        if execution["id"] == 0:
            self.record(execution, account, Kind.LIQUIDATION)
            self.liquidated = True
            return
        self.tell_account(account)
        kind = self.flow.filled(execution["id"], abs(execution["qty"]))
        for order in cancelled:
            self.flow.gone(order)
        self.record(execution, account, kind)

    def pay_funding(self, rate: float) -> None:
        self.funding_rate = rate
        size = self.venue.account["size"]
        if size != 0.0:
            paid = {"position_side": np.sign(size), "price": self.last_price, "qty": 0.0,
                    "pnl": self.venue.settle_funding(rate), "fee": 0.0}  # fmt: skip
            self.tell_account(self.venue.account)
            self.record(paid, self.venue.account, Kind.FUNDING)

    def tell_account(self, account: np.void) -> None:
        self.flow.account(**dict(zip(account.dtype.names, account.item(), strict=True)))

    # --- the bot speaks ---

    def see_market(self) -> None:
        bid, ask = self.venue.touch
        self.flow.see_market(
            last_price=self.last_price,
            bid=bid,
            ask=ask,
            ema=self.ema.value,
            funding_rate=self.funding_rate,
        )

    def plan_if_due(self) -> None:
        if self.flow.due:
            self.see_market()
            self.send(self.flow.plan())

    def send(self, messages: np.ndarray) -> None:
        for i in range(len(messages)):
            is_cancel = messages["what"][i] == What.CANCEL
            late = self.s.cancel_latency_ms if is_cancel else self.s.latency_ms
            entry = (self.now + math.ceil(late), self.n_sent, messages[i : i + 1])
            heapq.heappush(self.mail, entry)
            self.n_sent += 1

    def exchange_messages(self) -> None:
        while self.mail and self.mail[0][0] == self.now and not self.liquidated:
            self.deliver(heapq.heappop(self.mail)[2])
        self.plan_if_due()
        self.see_market()
        self.send(self.flow.release())

    def deliver(self, message: np.ndarray) -> None:
        self.flow.arrived(message)
        what, order, side, price, qty, reduce_only = message[0].item()
        if what == What.CANCEL:
            if self.venue.cancel(order, side):
                self.flow.gone(order)
            return
        answer, happened = self.venue.place(
            order, side, price, qty, reduce_only=reduce_only, at_market=what == What.PLACE_AT_MARKET
        )
        if answer == "rests":
            self.flow.placed(order)
        elif happened:
            self.take(*happened)
        else:
            self.flow.refused(order, would_take=answer == "would_take")

    # --- the record ---

    def record(self, execution: Any, account: np.void, kind: int) -> None:
        row = {name: execution[name] for name in ("position_side", "price", "qty", "pnl", "fee")}
        row |= {"tick": self.tick, "ts_ms": self.now, "kind": kind}
        row |= {"pos_size": account["size"], "pos_price": account["entry_price"]}
        row |= {"liq_price": account["liq_price"], "balance": account["wallet"]}
        self.records.append(row)


def drawn(block: int) -> range:
    return range(block * 15, block * 15 + 15)


@pytest.mark.parametrize("block", range(10))
def test_the_doors_driven_from_python_fill_as_the_engine_does(block: int) -> None:
    n_records = 0
    for seed in drawn(block):
        scenario = draw(seed)
        wanted = run_engine(scenario).records
        for row in wanted:
            del row["closest_liq"]  # of the prints between records, not of the two doors
        got = Driver(scenario).play()
        for i, (one, two) in enumerate(zip(got, wanted, strict=False)):
            assert one == two, f"seed {seed}, record {i}"
        assert len(got) == len(wanted), f"seed {seed}"
        n_records += len(got)
    assert n_records > 50, "the random runs hardly trade: the test proves little"


def test_the_driven_runs_hold_every_kind_of_record() -> None:
    kinds = {row["kind"] for block in range(3) for seed in drawn(block)
             for row in Driver(draw(seed)).play()}  # fmt: skip
    assert kinds == set(Kind)
