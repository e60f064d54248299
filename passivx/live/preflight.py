"""What must be so before a bot's first order, and the worst that could come of trading.

`gather` reads, `judge` decides by what was read, `approve` asks. Nothing here changes anything at
the venue: the settings that are announced here are made by `Exchange.prepare`, afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from passivx._core import calc
from passivx.clock import Clock, WallClock
from passivx.config import Config
from passivx.documents import is_number
from passivx.errors import ConfigError, PassivxError, Problem, UnavailableError, VenueError
from passivx.exchanges.base import Account, Exchange, KeyRights, Order, Rules
from passivx.live.orders import PREFIX
from passivx.models import Market, Position
from passivx.planner import liquidation_price, plan_orders, plan_rungs
from passivx.report.render import number
from passivx.venue import venue_problems

__all__ = [
    "Facts",
    "Finding",
    "Level",
    "Preflight",
    "WorstCase",
    "approve",
    "gather",
    "judge",
    "render",
    "worst_case",
]

# Last trade and mark price this far apart (a fraction) are not of one market at one time.
_MOST_OFF_MARK: Final = 0.1
_MOST_CLOCK_OFFSET_S: Final = 1.0
_BEYOND: Final = "correct the config, or choose another symbol"
# The longest ladder that one plan can hold.
_LONGEST_LADDER: Final = 200
# Plans that are followed in search of the largest position; a ladder of smallest orders has no end
# worth waiting for.
_MOST_PLANS: Final = 100


class Level(StrEnum):
    """How grave a finding is."""

    REFUSE = "refuse"
    WARN = "warn"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: the setting it is about, what was found, what to do about it."""

    level: Level
    field: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return str(Problem(self.field, None, self.text, self.remedy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a venue says before anything is sent.

    ``price`` is that of the last trade. ``clock_offset_s`` is by how much the venue's clock is
    ahead of this machine's, at least; 0 when they agree as far as could be seen.
    """

    symbol: str
    rules: Rules
    account: Account
    price: float
    mark_price: float
    rights: KeyRights
    orders: tuple[Order, ...]
    clock_offset_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """The position after every order that the planner would place on one side, and its end.

    ``size`` is signed. ``notional`` (at ``entry_price``) and ``loss`` are in settle currency;
    ``reached_at`` is the price of the last fill. ``liq_price`` 0 means none: ``distance``, that of
    the liquidation price from the price now as a signed fraction, is None then, and the loss that
    of a worthless coin (long) or contract (short). ``complete`` is False where the ladder went on
    beyond what was followed.
    """

    size: float
    notional: float
    entry_price: float
    reached_at: float
    liq_price: float
    distance: float | None
    loss: float
    loss_share: float
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What was found, gravest first, and the worst case; None when nothing could be planned."""

    symbol: str
    wallet: float
    price: float
    findings: tuple[Finding, ...]
    worst: WorstCase | None

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What forbids to start."""
        return tuple(f for f in self.findings if f.level is Level.REFUSE)

    def to_json(self) -> str:
        """Return it as one JSON object; what is not finite becomes null."""
        row = asdict(self) | {"refused": bool(self.refusals)}
        return orjson.dumps(row, option=orjson.OPT_INDENT_2).decode() + "\n"


# --- reading --------------------------------------------------------------------------------------


async def gather(exchange: Exchange, clock: Clock | None = None) -> Facts:
    """Read what `judge` wants to know.

    Rights that cannot be read now do not keep a bot from its position: they count as not told.

    Raises
    ------
    VenueError
        If anything else cannot be read, or the market has no trade at all.
    """
    clock = clock or WallClock()
    rules = await exchange.rules()
    begun_ms = clock.time_ms()
    account = await exchange.account()
    # The venue's time was taken in between: what lies in between agrees.
    nearest_ms = min(max(account.ts_ms, begun_ms), clock.time_ms())
    mark = await exchange.mark()
    trades = await exchange.recent_trades(1)
    if not trades:
        raise VenueError(f"{exchange.symbol}: has no trades, hence no price; wait until it trades")
    try:
        rights = await exchange.rights()
    except UnavailableError as e:
        rights = KeyRights(
            can_trade=None, can_withdraw=None, read_only=None, detail=f"could not be read: {e}"
        )
    return Facts(
        symbol=exchange.symbol,
        rules=rules,
        account=account,
        price=trades[-1].price,
        mark_price=mark.mark_price,
        rights=rights,
        orders=tuple(await exchange.open_orders()),
        clock_offset_s=(account.ts_ms - nearest_ms) / 1000,
    )


# --- judging --------------------------------------------------------------------------------------


def judge(config: Config, facts: Facts, *, allow_withdraw: bool = False) -> Preflight:
    """Return what is to be said before ``config`` trades on those facts.

    ``allow_withdraw`` lets a key pass that may withdraw.
    """
    account = facts.account
    worst = None
    sizes = list(_unusable_numbers(facts))
    if not sizes:
        try:
            worst = worst_case(
                config,
                facts.rules.market,
                wallet=account.wallet,
                price=facts.price,
                position=account.position,
            )
            sizes += _check_sizes(config, facts, worst)
        except ConfigError as e:
            sizes += [_of_problem(problem, Level.REFUSE, _BEYOND) for problem in e.problems]
        except (ValueError, ArithmeticError) as e:
            # Sizes so small or large that nothing is computed with them.
            sizes.append(_refuse("market", f"does not fit the config: {e}", _BEYOND))
    findings = [
        *_check_key(facts.rights, allow_withdraw),
        *_check_market(config, facts),
        *_check_account(config, account),
        *_check_clock(facts.clock_offset_s),
        *sizes,
        *_check_what_is_there(account.position, facts.orders),
    ]
    gravest = list(Level)
    findings.sort(key=lambda finding: gravest.index(finding.level))
    return Preflight(
        symbol=facts.symbol,
        wallet=account.wallet,
        price=facts.price,
        findings=tuple(findings),
        worst=worst,
    )


def _refuse(field: str, text: str, remedy: str) -> Finding:
    return Finding(Level.REFUSE, field, text, remedy)


def _warn(field: str, text: str, remedy: str = "") -> Finding:
    return Finding(Level.WARN, field, text, remedy)


def _ok(field: str, text: str) -> Finding:
    return Finding(Level.OK, field, text)


def _of_problem(problem: Problem, level: Level, remedy: str) -> Finding:
    """Return it as a finding; ``remedy`` is for one that names none."""
    was = "" if problem.value is None else f", was {problem.value!r:.80}"
    return Finding(level, problem.field, problem.message + was, problem.remedy or remedy)


def _unusable_numbers(facts: Facts) -> Iterator[Finding]:
    """Tell of numbers that nothing may be computed from."""
    account, position, rules = facts.account, facts.account.position, facts.rules
    above_0 = {
        "price": facts.price,
        "mark_price": facts.mark_price,
        "wallet": account.wallet,
        "account leverage": account.leverage,
        "max_price": rules.max_price,
        "max_qty": rules.max_qty,
    }
    finite = {
        "available": account.available,
        "min_price": rules.min_price,
        "position size": position.size,
        "liq_price": position.liq_price,
        "clock_offset_s": facts.clock_offset_s,
    }
    if position.size != 0.0:
        above_0["entry_price"] = position.entry_price
    least = 2.0 * rules.market.price_step
    if 0.0 < facts.price < least:
        text = f"must be at least two price steps, {number(least)}, was {facts.price!r}"
        yield _refuse("price", text, "choose another symbol")
    for field, value in above_0.items():
        if not (is_number(value) and 0.0 < value < math.inf):
            remedy = "deposit first" if field == "wallet" else "wait for the venue to tell it"
            yield _refuse(field, f"must be finite and > 0, was {value!r}", remedy)
    for field, value in finite.items():
        if not (is_number(value) and math.isfinite(value)):
            remedy = "wait for the venue to tell it"
            yield _refuse(field, f"must be a finite number, was {value!r}", remedy)


def _check_key(rights: KeyRights, allow_withdraw: bool) -> Iterator[Finding]:
    make_another = "make a key with the right to trade futures and no other"
    told = f" ({rights.detail})" if rights.detail else ""
    if rights.read_only:
        yield _refuse("API key", f"must be allowed to trade, may only read{told}", make_another)
    elif rights.can_trade is False:
        yield _refuse("API key", f"must be allowed to trade futures, is not{told}", make_another)
    elif rights.can_trade is None:
        yield _warn("API key", f"whether it may trade is not known{told}")
    else:
        yield _ok("API key", f"may trade{told}")
    if rights.can_withdraw:
        if allow_withdraw:
            yield _warn("API key", "may withdraw: whoever has it has the money", make_another)
        else:
            yield _refuse("API key", f"must not be allowed to withdraw, is{told}", make_another)
    elif rights.can_withdraw is None:
        yield _warn("API key", f"whether it may withdraw is not known{told}", "look it up by hand")
    else:
        yield _ok("API key", "may not withdraw")


def _check_market(config: Config, facts: Facts) -> Iterator[Finding]:
    rules, price, mark = facts.rules, facts.price, facts.mark_price
    if config.symbol != facts.symbol:
        yield _refuse(
            "symbol",
            f"must be that of the market, {facts.symbol}, was {config.symbol!r}",
            "choose the config of this market",
        )
    if rules.trading:
        yield _ok("symbol", f"{facts.symbol} is trading")
    else:
        remedy = "wait, or choose another symbol"
        yield _refuse("symbol", f"{facts.symbol} must be trading, is not", remedy)
    # A number that is none has been told of, and fails no comparison.
    if price < rules.min_price or price > rules.max_price:
        yield _refuse(
            "price",
            f"must be within the venue's limits of {number(rules.min_price)} and "
            f"{number(rules.max_price)}, was {number(price)}",
            "wait until it is back",
        )
    if abs(price - mark) > _MOST_OFF_MARK * mark:
        yield _refuse(
            "price",
            f"must be within {_MOST_OFF_MARK:.0%} of the mark price of {number(mark)}, was "
            f"{number(price)}",
            "wait until the market is in order",
        )


def _check_account(config: Config, account: Account) -> Iterator[Finding]:
    if not account.can_trade:
        remedy = "ask the venue why; it may be reducing or liquidating a position"
        yield _refuse("account", "must be allowed to trade, is not", remedy)
    if account.one_way:
        yield _ok("position mode", "one-way")
    else:
        remedy = "close all positions and orders, and switch it in the venue's settings"
        yield _refuse("position mode", "must be one-way, was hedge", remedy)
    wanted, held = _mode(config.cross_mode), _mode(account.cross_mode)
    if wanted == held:
        yield _ok("margin mode", held)
    else:
        yield _warn("margin mode", f"will be changed from {held} to {wanted}")
    if account.leverage == config.venue_leverage:
        yield _ok("leverage", f"{config.venue_leverage}×")
    else:
        change = f"from {account.leverage:g}× to {config.venue_leverage}×"
        yield _warn("leverage", f"will be changed {change}")
    sides = config.indicator_settings
    if not (sides.do_long or sides.do_shrt):
        text = "do_long and do_shrt are both false: nothing will be opened"
        yield _warn("indicator_settings", text, "set one of them to true")


def _mode(cross: bool) -> str:
    return "cross" if cross else "isolated"


def _check_clock(offset_s: float) -> Iterator[Finding]:
    if abs(offset_s) > _MOST_CLOCK_OFFSET_S:
        yield _warn(
            "clock",
            f"this machine's is {abs(offset_s):.1f} s {'behind' if offset_s > 0 else 'ahead of'} "
            "the venue's; requests carry the venue's time",
            "set it by NTP",
        )
    else:
        yield _ok("clock", "agrees with the venue's to a second")


def _check_sizes(config: Config, facts: Facts, worst: WorstCase | None) -> Iterator[Finding]:
    account, market = facts.account, facts.rules.market
    held = account.position.size != 0.0
    # A position must not be left to itself because the wallet has shrunk: it is managed, with
    # orders of the venue's minimum where the config's are smaller.
    small = Level.WARN if held else Level.REFUSE
    problems = venue_problems(config, market, facts.price, account.wallet)
    for problem in problems:
        level = Level.REFUSE if problem.field == "leverage" else small
        yield _of_problem(problem, level, "lower leverage")
    if not problems:
        yield _ok("wallet", f"{number(account.wallet)}: every order reaches the venue's minimum")
    sides = config.indicator_settings
    if worst is None:
        if not problems and (sides.do_long or sides.do_shrt):
            yield _refuse(
                "wallet",
                "must hold a first entry and its margin: the largest position is below the "
                f"venue's minimum order, was {number(account.wallet)}",
                "deposit, or raise balance_pct or leverage",
            )
        return
    cap = market.notional_cap(config.venue_leverage)
    if worst.notional > cap:
        allowed = [t.max_leverage for t in market.tiers if t.floor < worst.notional][-1]
        yield _refuse(
            "leverage",
            f"must be at most {allowed:g} for the largest position, worth "
            f"{number(worst.notional, 6)}, was {config.venue_leverage}",
            "lower leverage or balance_pct",
        )
    side = math.copysign(1.0, worst.size)
    if worst.liq_price and side * (facts.price - worst.liq_price) <= 0.0:
        yield _refuse(
            "leverage",
            f"the largest position would be liquidated at {number(worst.liq_price)}, before the "
            f"price now, {number(facts.price)}",
            "lower leverage or balance_pct",
        )
    if not worst.complete:
        text = f"the ladder goes on beyond {number(worst.reached_at)}: the worst case is worse"
        yield _warn("ddown_factor", text, "raise it, or grid_spacing")
    n_orders = config.n_entry_orders + config.n_close_orders + 1
    if n_orders > facts.rules.max_orders:
        text = f"up to {n_orders} orders at once, the venue takes {facts.rules.max_orders}"
        yield _warn("n_entry_orders", text, "lower it, or n_close_orders")
    if abs(worst.size) > facts.rules.max_qty:
        yield _refuse(
            "balance_pct",
            f"the largest position, {number(abs(worst.size))}, must fit into one order to be "
            f"closed, the venue's largest is {number(facts.rules.max_qty)}",
            "lower balance_pct or leverage",
        )
    if not held and not facts.orders and account.available < account.wallet * config.balance_pct:
        yield _warn(
            "available",
            f"{number(account.available)} of {number(account.wallet)}: positions or orders of "
            "other symbols use the rest",
            "lower balance_pct, or free the margin",
        )


def _check_what_is_there(position: Position, orders: tuple[Order, ...]) -> Iterator[Finding]:
    if position.size:
        yield _warn(
            "position",
            f"{number(position.size)} at {number(position.entry_price)} is taken over, added to "
            "and closed by this config",
        )
    ours = sum(order.client_id.startswith(PREFIX) for order in orders)
    if ours:
        yield _ok("orders", f"{ours} of an earlier run are taken over")
    if len(orders) > ours:
        yield _warn(
            "orders",
            f"{len(orders) - ours} are not this bot's: they are never touched, and may fill",
            "cancel them by hand if they are not wanted",
        )


# --- the worst case -------------------------------------------------------------------------------


def worst_case(
    config: Config, market: Market, *, wallet: float, price: float, position: Position
) -> WorstCase | None:
    """Return the largest position that the planner could get into, and what it would cost.

    Every order of a side fills and nothing closes; stops are not counted on. The first one fills at
    the price that the planner wants with its average at the price now. Fees before the liquidation
    are left out, so is what else a cross wallet may have to back. A position held is followed, and
    what could be opened once it is closed.

    Returns
    -------
    WorstCase or None
        None when nothing is held and nothing would be opened.

    Raises
    ------
    ConfigError
        If wallet, price or position cannot be planned with.
    """
    boldest = config.model_copy(
        update={
            "n_entry_orders": _LONGEST_LADDER,
            "stop_loss_pos_reduction": 0.0,
            "indicator_settings": config.indicator_settings.model_copy(
                update={"funding_fee_collect_mode": False}
            ),
        }
    )
    entries = plan_orders(boldest, market, wallet=wallet, last_price=price, ema=price)
    starts = [(e.side * e.qty, e.ideal_price, e.ideal_price) for e in entries]
    if position.size:
        starts.append((position.size, position.entry_price, price))
    cases = []
    for size, entry_price, at in starts:
        liq = liquidation_price(boldest, market, wallet=wallet, size=size, entry_price=entry_price)
        held = Position(size, entry_price, liq)
        held, reached_at, complete = _filled(boldest, market, wallet, at, held)
        cases.append(_end_of(held, reached_at, complete, config, market, wallet, price))
    return max(cases, key=lambda case: (case.notional, case.loss), default=None)


def _filled(
    config: Config, market: Market, wallet: float, price: float, held: Position
) -> tuple[Position, float, bool]:
    """Return the position after every re-entry, the last one's price, and whether that is all."""
    for _ in range(_MOST_PLANS):
        if price <= market.price_step:
            # Below it there is no price, hence no book to plan for.
            return held, price, True
        rungs = plan_rungs(
            config, market, wallet=wallet, last_price=price, ema=price, position=held
        )
        adding = [rung for rung in rungs if not rung.order.reduce_only]
        reached = [rung for rung in adding if not rung.past_liquidation]
        if reached:
            last = reached[-1]
            held = Position(last.position, last.entry_price, last.liq_price)
            price = last.order.price
        if not reached or len(reached) < len(adding):
            return held, price, True
    return held, price, False


def _end_of(
    held: Position,
    reached_at: float,
    complete: bool,
    config: Config,
    market: Market,
    wallet: float,
    price: float,
) -> WorstCase:
    inverse, size, liq = market.inverse, abs(held.size), held.liq_price
    notional = calc.cost(size, held.entry_price, inverse=inverse)
    loss = notional
    if liq > 0.0:
        rate = market.taker_fee + market.liquidation_fee
        loss = rate * calc.cost(size, liq, inverse=inverse) - calc.pnl(
            held.entry_price,
            liq,
            size,
            position_side=1 if held.size > 0.0 else -1,
            inverse=inverse,
        )
    backing = wallet if config.cross_mode else min(wallet, notional / config.venue_leverage)
    loss = min(max(loss, 0.0), backing)
    return WorstCase(
        size=held.size,
        notional=notional,
        entry_price=held.entry_price,
        reached_at=reached_at,
        liq_price=liq,
        distance=liq / price - 1.0 if liq > 0.0 else None,
        loss=loss,
        loss_share=loss / wallet,
        complete=complete,
    )


# --- showing and asking ---------------------------------------------------------------------------

_MARKS: Final = {
    Level.REFUSE: ("✗", "bold red"),
    Level.WARN: ("!", "yellow"),
    Level.OK: ("✓", "green"),
}


def render(preflight: Preflight) -> RenderableType:
    """Return what a person reads before the first order: the findings, and the worst case."""
    table = Table("", "", "", box=None, show_header=False, pad_edge=False)
    for finding in preflight.findings:
        mark, style = _MARKS[finding.level]
        told = f"{finding.text}; {finding.remedy}" if finding.remedy else finding.text
        table.add_row(Text(mark, style), Text(finding.field), Text(told))
    return Group(table, Text(), Text(_in_words(preflight)))


def _in_words(preflight: Preflight) -> str:
    worst = preflight.worst
    if worst is None:
        return "Worst case: none could be worked out, or nothing would be opened."
    way = "long" if worst.size > 0.0 else "short"
    more = "" if worst.complete else " or more"
    text = (
        f"Worst case: {way} {number(abs(worst.size))}{more} at {number(worst.entry_price)}, once "
        f"every order to {number(worst.reached_at)} has filled: worth {number(worst.notional, 6)}, "
        f"{worst.notional / preflight.wallet:.3g} times the wallet of {number(preflight.wallet)}. "
    )
    share = f"{number(worst.loss, 6)}, {worst.loss_share:.1%} of the wallet"
    if worst.distance is None:
        return text + f"It is never liquidated, and could still cost {share}."
    return text + (
        f"It would be liquidated at {number(worst.liq_price)}, {worst.distance:+.1%} from the "
        f"price now, and cost {share}. Stops may come before that, or be too late."
    )


def approve(
    preflight: Preflight, *, yes: bool, interactive: bool, ask: Callable[[str], bool]
) -> None:
    """Return when trading may begin.

    Parameters
    ----------
    yes : bool
        Whether somebody agreed beforehand; nobody is asked then.
    interactive : bool
        Whether there is a terminal with somebody at it.
    ask : callable
        Puts a question to that person, and returns whether the answer was yes.

    Raises
    ------
    ConfigError
        If anything refuses, whoever says yes; or there is nobody to ask and no ``yes``.
    PassivxError
        If the answer was no.
    """
    if refusals := preflight.refusals:
        raise ConfigError([Problem(f.field, None, f.text, f.remedy) for f in refusals], "preflight")
    if yes:
        return
    if not interactive:
        raise ConfigError(
            [
                Problem(
                    "preflight",
                    None,
                    "must be confirmed, and there is no terminal to ask on",
                    "read what it says, then add --yes",
                )
            ]
        )
    if not ask(f"Trade {preflight.symbol} with this?"):
        raise PassivxError("not started: it was not confirmed; nothing was sent or changed")
