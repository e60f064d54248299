"""The break_on machine against Python itself, and the runs that it ends."""

import math
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from passivx._core import compat
from passivx._core.breaks import INSTRUCTION_DTYPE, N_FACTS, STACK_SIZE, TRADE_DTYPE, Op, evaluate
from passivx._core.types import KIND_NAMES, Kind
from passivx.breaks import FIELDS, compile_break_on
from passivx.errors import ConfigError
from tests.core.test_compat import CALM, draw, ticks_of
from tests.reference.breaks_twin import (
    Records,
    Ticks,
    as_python,
    complete,
    first_break,
    holds,
    open_pnl,
)
from tests.reference.compat_door import run_engine, to_settings
from tests.reference.compat_twin import thin

DAY = 86_400_000
RUN: dict[str, Any] = {"starting_balance": 100.0, "n_ticks": 1000, "start_ms": 1_600_000_000_000}
BLOCKS = 8
BLOCK = 1000


def program(*texts: str) -> npt.NDArray[np.void]:
    entries = [[f"ON: {i}", f"lambda trades, ticks, k: {text}"] for i, text in enumerate(texts)]
    return compile_break_on(entries).program


def trades(*rows: dict[str, Any]) -> npt.NDArray[np.void]:
    out = np.zeros(len(rows), TRADE_DTYPE)
    for record, row in zip(out, rows, strict=True):
        plain = {"position_side": 1, "kind": Kind.ENTRY, "ts_ms": RUN["start_ms"], "equity": 100.0}
        for name, value in (plain | row).items():
            record[name] = value
    return out


def held(text: str, *rows: dict[str, Any]) -> int:
    """At which record the condition holds, -1 for none."""
    trade, condition = evaluate(program(text), trades(*(rows or ({},))), **RUN)
    assert condition == (0 if trade >= 0 else -1)
    return trade


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "True",
        "7 - 2 - 1 == 4 and 2 * 3 + 1 == 7 and 7 / 2 == 3.5",
        "-7 // 2 == -4 and -7 % 3 == 2 and 7 % -3 == -2 and -8 % 4 == 0",
        "-2 ** 2 == -4 and 2 ** -1 == 0.5",
        "1 < 2 < 3 and not 1 < 3 < 2 and 3 > 2 >= 2 != 1",
        "(0 or 5) == 5 and (3 and 5) == 5 and (0 and 5) == 0 and (0 or 0.0) == 0",
        "(1 if 2 else 3) == 1 and (1 if 0 else 3) == 3",
        "min(3, 1, 2) == 1 and max(3, 1, 4, 2) == 4 and abs(-3) == 3 and +3 == 3",
        "calc_diff(9, -10) == 1.9",
        "True + True == 2",
        "1 / 0 > 1e308 and -1 / 0 < -1e308 and 1 // 0 > 1e308 and calc_diff(1, 0) > 1e308",
        "0 / 0 != 0 / 0 and 1 % 0 != 1 % 0 and (-1) ** 0.5 != 0",
        "not (0 / 0 < 1 or 0 / 0 > 1 or 0 / 0 == 0 / 0)",
        "(0 / 0 and 1) and (1 if 0 / 0 else 0)",  # NaN is true, as in Python
        "1e308 * 10 > 1e308 and 10 ** 1000 > 1e308",
    ],
)
def test_arithmetic_is_pythons(text: str) -> None:
    assert held(text) == 0


@pytest.mark.parametrize("text", ["False", "0", "0 / 0", "k", "-0.0", "not 3", "1 < 0 / 0"])
def test_what_does_not_hold(text: str) -> None:
    assert held(text) == -1


def test_every_kind_and_side_by_its_words() -> None:
    for kind, name in KIND_NAMES.items():
        for side, word in ((1, "long"), (-1, "shrt")):
            row = {"kind": kind, "position_side": side}
            for other in KIND_NAMES.values():
                assert (held(f"trades[-1]['type'] == '{other}'", row) == 0) is (other == name)
                assert (held(f"'{other}' != trades[-1]['type']", row) == 0) is (other != name)
            assert held(f"trades[-1]['type'].startswith('{name[:2]}')", row) == 0
            assert held(f"trades[-1]['side'] == '{word}'", row) == 0
            stop = name.startswith("stop_loss")
            assert (held("trades[-1]['type'] == 'stop_loss'", row) == 0) is stop
            assert (held("trades[-1]['type'].startswith('stop_loss')", row) == 0) is stop
            assert (held("trades[-1]['side'] == 'short'", row) == 0) is (side < 0)
            assert (held("trades[-1]['side'].startswith('sh')", row) == 0) is (side < 0)


def test_two_records_compare_their_types() -> None:
    rows = ({"kind": Kind.ENTRY}, {"kind": Kind.REENTRY}, {"kind": Kind.REENTRY})
    assert held("trades[-1]['type'] != trades[-2]['type']", *rows) == 1
    assert held("trades[-1]['type'] == trades[-2]['type']", *rows) == 2


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_record_that_is_not_there_compares_false(name: str) -> None:
    word = {"type": "'entry'", "side": "'long'"}.get(name)
    if word is None:
        assert held(f"trades[-2]['{name}'] < 0 or trades[-2]['{name}'] >= 0") == -1
        assert held(f"trades[-2]['{name}'] != trades[-2]['{name}']", {}, {}) == 0
        assert held(f"trades[-2]['{name}'] == trades[-2]['{name}']", {}, {}) == 1
    else:
        assert held(f"trades[-2]['{name}'] == {word}", {}, {}) == 1
        assert held(f"trades[-2]['{name}'] != {word}") == -1
        assert held(f"trades[-2]['{name}'].startswith({word})") == -1


def test_running_facts_by_hand() -> None:
    start = RUN["start_ms"]
    rows = (
        {"pnl": 0.0, "fee": -1.0, "equity": 99.0, "tick": 10, "ts_ms": start},
        {"pnl": 22.0, "fee": -1.0, "equity": 120.0, "tick": 250, "ts_ms": start + 2 * DAY,
         "kind": Kind.CLOSE},
        {"pnl": -30.0, "fee": -1.0, "equity": 90.0, "tick": 999, "ts_ms": start + 4 * DAY,
         "kind": Kind.STOP_LOSS_LIQ_DIFF},
        {"pnl": -5.0, "fee": 0.5, "equity": 95.0, "tick": 999, "ts_ms": start + 4 * DAY,
         "kind": Kind.FUNDING},
        {"pnl": -200.0, "fee": 0.0, "equity": 0.0, "tick": 999, "ts_ms": start + 5 * DAY,
         "kind": Kind.LIQUIDATION},
    )  # fmt: skip
    want = {
        "pnl_plus_fee": [-1.0, 21.0, -31.0, -4.5, -200.0],
        "pnl_sum": [0.0, 22.0, -8.0, -13.0, -213.0],
        "profit_sum": [0.0, 22.0, 22.0, 17.0, 17.0],
        "loss_sum": [0.0, 0.0, -30.0, -30.0, -230.0],
        "fee_sum": [-1.0, -2.0, -3.0, -2.5, -2.5],
        "net_pnl_plus_fees": [-1.0, 20.0, -11.0, -15.5, -215.5],
        "max_drawdown": [0.01, 0.01, 0.25, 0.25, 1.0],
        "daily_gain_ratio": [0.0, 1.2**0.5, 0.89**0.25, 0.845**0.25, 0.0],
        "progress": [0.01, 0.25, 0.999, 0.999, 0.999],
        "millis_since_prev_trade": [0, 2 * DAY, 2 * DAY, 0, DAY],
    }
    for name, values in want.items():
        for i, value in enumerate(values):
            near = f"len(trades) == {i + 1} and abs(trades[-1]['{name}'] - {value!r}) < 1e-12"
            assert held(near, *rows) == i, (name, i)


def test_the_first_condition_of_the_first_record_answers() -> None:
    rows = trades({"tick": 1}, {"tick": 5}, {"tick": 9})
    assert evaluate(program("k > 6", "k > 4", "k >= 5"), rows, **RUN) == (1, 1)
    assert evaluate(program("k > 9", "k > 10"), rows, **RUN) == (-1, -1)
    assert evaluate(program(), rows, **RUN) == (-1, -1)
    assert evaluate(program("True"), rows[:0], **RUN) == (-1, -1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([(-1, 0, 0.0)], "no such op"),
        ([(max(Op) + 1, 0, 0.0)], "no such op"),
        ([(Op.FACT, -1, 0.0)], "no such fact"),
        ([(Op.FACT, 2 * N_FACTS, 0.0)], "no such fact"),
        ([(Op.NUMBER, 0, 1.0), (Op.HOLDS, -1, 0.0)], "index must be >= 0"),
        ([(Op.NOT, 0, 0.0)], "the stack is empty"),
        ([(Op.NUMBER, 0, 1.0), (Op.ADD, 0, 0.0)], "the stack is empty"),
        ([(Op.NUMBER, 0, 1.0)] * 2 + [(Op.SELECT, 0, 0.0)], "the stack is empty"),
        ([(Op.HOLDS, 0, 0.0)], "the stack is empty"),
        ([(Op.NUMBER, 0, 1.0)] * (STACK_SIZE + 1), "the stack is full"),
        ([(Op.NUMBER, 0, 1.0)], "leaves values behind"),
    ],
)
def test_unsound_programs_are_refused(code: list[Any], message: str) -> None:
    unsound = np.array(code, INSTRUCTION_DTYPE)
    with pytest.raises(ValueError, match=message):
        evaluate(unsound, trades({}), **RUN)
    price, ts_ms, maker = ticks_of((100.0, 1), (99.0, 1))
    with pytest.raises(ValueError, match=message):
        compat.run(price, ts_ms, maker, to_settings(CALM), breaks=unsound)


@pytest.mark.parametrize(
    "level",
    [
        "0 < 0 < ({})",
        "1 if 1 else ({})",
        "0 or ({})",
        "1 + ({})",
        "max(1, 2, {})",
        "calc_diff(k, {})",
        "1 if ({}) else 2",
        "-({})",
    ],
)
def test_the_deepest_texts_that_are_understood_fit_the_stack(level: str) -> None:
    text = "k"
    depth = 0
    while True:
        text = level.format(text)
        try:
            code = program(text)
        except ConfigError:
            break
        depth += 1
        evaluate(code, trades({}), **RUN)
    assert depth >= 35


@pytest.mark.parametrize("change", [{"starting_balance": 0.0}, {"n_ticks": 0}])
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        evaluate(program("k"), trades({}), **RUN | change)


# --- against Python ---------------------------------------------------------------------------

NUMBERS = [name for name in FIELDS if name not in ("type", "side")]
OWN_NAMES = {
    "trade_id": "tick",
    "timestamp": "ts_ms",
    "fee_paid": "fee",
    "actual_balance": "balance",
    "closest_shrt_liq": "closest_short_liq",
}


def expression(rng: random.Random, depth: int) -> str:
    """A number, as a text; the deeper the less likely to end here."""

    def below() -> str:
        return expression(rng, depth - 1)

    if depth <= 0 or rng.random() < 0.1:
        constant = rng.choice(["0", "1", "2", "3", "10", "0.5", "0.25", "1.5e-3", "True", "False"])
        field = f"trades[{rng.choice([-1, -1, -2])}]['{rng.choice(NUMBERS)}']"
        other = rng.choice(
            ["k", "len(trades)", "len(ticks)", "ticks[k]['price']", "ticks[k][0]", "ticks[k][2]",
             "k / len(ticks)", "ticks[k]['timestamp'] - trades[-1]['timestamp']"]
        )  # fmt: skip
        return rng.choice([constant, field, field, field, f"({other})"])
    match rng.randrange(11):
        case 0 | 1:
            return f"({below()} {rng.choice(['+', '-', '*', '/', '//', '%'])} {below()})"
        case 2:
            return f"({rng.choice(['-', '+', 'not '])}{below()})"
        case 3:
            links = [f" {rng.choice(['and', 'or'])} {below()}" for _ in range(rng.randint(1, 2))]
            return f"({below()}{''.join(links)})"
        case 4 | 5:
            signs = ["<", "<=", "==", "!=", ">=", ">"]
            links = [f" {rng.choice(signs)} {below()}" for _ in range(rng.choice([1, 1, 1, 2]))]
            return f"({below()}{''.join(links)})"
        case 6:
            return f"({below()} if {below()} else {below()})"
        case 7:
            return f"{rng.choice(['min', 'max', 'calc_diff'])}({below()}, {below()})"
        case 8:
            return f"abs({below()}) ** {rng.choice(['0', '1', '2', '-1', '0.5', '3'])}"
        case 9:
            record = f"trades[{rng.choice([-1, -2])}]"
            word = rng.choice([*KIND_NAMES.values(), "stop", "c"])
            if word in KIND_NAMES.values() and rng.random() < 0.7:
                return f"({record}['type'] {rng.choice(['==', '!='])} '{word}')"
            return f"{record}['type'].startswith('{word}')"
        case _:
            side = rng.choice(["'shrt'", "'long'", "trades[-2]['side']"])
            return f"(trades[-1]['side'] {rng.choice(['==', '!='])} {side})"


def random_trades(rng: random.Random, n: int) -> npt.NDArray[np.void]:
    """Records of few different numbers, so that they often compare equal; some are NaN."""
    out = np.zeros(n, TRADE_DTYPE)
    for name in TRADE_DTYPE.names or ():
        if TRADE_DTYPE[name].kind == "f":
            out[name] = [
                rng.choice([0.0, 1.0, -1.0, 0.5, 3.0, 100.0, rng.gauss(0, 50), rng.random()])
                for _ in range(n)
            ]
    if rng.random() < 0.1:
        out["liq_price"] = math.nan
    out["tick"] = sorted(rng.sample(range(40), n))
    out["ts_ms"] = RUN["start_ms"] + out["tick"] * rng.choice([0, 1, 1000, DAY])
    out["position_side"] = [rng.choice([1, -1]) for _ in range(n)]
    out["kind"] = [rng.choice(list(KIND_NAMES)) for _ in range(n)]
    return out


def twin_of(given: npt.NDArray[np.void], n_ticks: int) -> tuple[Records, Ticks]:
    rows = []
    for trade in given:
        row = {
            name: trade[OWN_NAMES.get(name, name)].item()
            for name in (*OWN_NAMES, "price", "qty", "pos_size", "pos_price", "liq_price", "pnl",
                         "apparent_balance", "equity", "closest_long_liq")
        }  # fmt: skip
        row["type"] = KIND_NAMES[Kind(trade["kind"])]
        row["side"] = "long" if trade["position_side"] > 0 else "shrt"
        rows.append(row)
    records = complete(rows, **RUN | {"n_ticks": n_ticks})
    price = {row["trade_id"]: float(t["tick_price"]) for row, t in zip(rows, given, strict=True)}
    ts_ms = {row["trade_id"]: row["timestamp"] for row in rows}
    return records, Ticks(price, ts_ms, n_ticks)


def same_value(text: str, value: Any) -> str:
    """A condition that holds when the expression has exactly this value."""
    if value != value:
        return f"({text}) != ({text})"
    if math.isinf(value):
        return f"({text}) {'>' if value > 0 else '<'} {math.copysign(1.79e308, value)!r}"
    return f"({text}) == {value!r}"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_expressions_have_the_value_that_python_gives_them(block: int) -> None:
    compared = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        rng = random.Random(seed)
        n = rng.randint(1, 3)
        given = random_trades(rng, n)
        records, ticks = twin_of(given, 40)
        text = expression(rng, rng.randint(1, 4))
        function = as_python(f"lambda trades, ticks, k: {text}")
        for i in range(n):
            try:
                value = function(Records(records[: i + 1]), ticks, records[i]["trade_id"])
            except (ZeroDivisionError, OverflowError):
                continue  # these are infinite or NaN in the engine, and tested by hand
            compared += 1
            holding = f"len(trades) == {i + 1} and ({text})"
            exact = f"len(trades) == {i + 1} and {same_value(text, value)}"
            where = f"seed {seed}, record {i}: {text}"
            run = RUN | {"n_ticks": 40}
            got = evaluate(program(holding), given, **run)
            assert got == ((i, 0) if holds(value) else (-1, -1)), where
            if len(exact) < 900:
                assert evaluate(program(exact), given, **run) == (i, 0), f"{where} = {value!r}"
    assert compared > 1.3 * BLOCK


# --- the compat engine ------------------------------------------------------------------------


def compat_twin_of(rows: list[dict[str, Any]], seed: int) -> tuple[Records, Ticks]:
    """The original's records of an unbroken compat run."""
    (price, ts_ms, _), settings = draw(seed)
    keep = thin(price)
    price, ts_ms = price[keep], ts_ms[keep]
    given = []
    for row in rows:
        at = float(price[row["trade_id"]])
        gained = open_pnl(row["pos_size"], row["pos_price"], at, settings["inverse"])
        given.append(row | {"equity": row["actual_balance"] + gained})
    records = complete(
        given,
        starting_balance=settings["starting_balance"],
        n_ticks=len(price),
        start_ms=int(ts_ms[0]),
    )
    return records, Ticks(price.tolist(), ts_ms.tolist(), len(price))


def draw_conditions(rng: random.Random, records: Records) -> list[str]:
    """Conditions that hold somewhere in the run, or nearly, and one of any kind."""
    out = ["trades[-1]['type'] == trades[-2]['type'] and k / len(ticks) > 0.5"]
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(NUMBERS)
        place = rng.choice([-1, -1, -2])
        level = rng.choice(records)[name]
        if math.isfinite(level):
            sign = rng.choice(["<", ">", "<=", ">=", "=="])
            out.append(f"trades[{place}]['{name}'] {sign} {level!r}")
    out.append(f"calc_diff(trades[-1]['price'], ticks[k]['price']) > {rng.choice([1e-3, 0.05])}")
    if rng.random() < 0.5:
        out.append(expression(rng, 3))
    rng.shuffle(out)
    return [f"lambda trades, ticks, k: {text}" for text in out]


@pytest.mark.parametrize("block", range(4))
def test_a_broken_compat_run_is_the_unbroken_one_cut_short(block: int) -> None:
    broken = whole = 0
    for seed in range(block * 100, block * 100 + 100):
        rng = random.Random(seed)
        ticks, settings = draw(seed)
        rows, outcome, thinned = run_engine(*ticks, settings)
        if not rows:
            continue
        records, seen = compat_twin_of(rows, seed)
        texts = draw_conditions(rng, records)[: rng.randint(1, 5)]
        try:
            last, which = first_break(texts, records, seen)
        except (ZeroDivisionError, OverflowError):
            continue
        rules = compile_break_on([[f"ON: no {i}", text] for i, text in enumerate(texts)])
        got = run_engine(*ticks, settings, breaks=rules, chunk=1 + seed % 700)
        if last < 0:
            whole += 1
            want: Any = (rows, outcome, thinned)
        else:
            broken += 1
            want = (rows[: last + 1], f"break:no {which}", rows[last]["trade_id"] + 1)
        assert repr(got) == repr(want), f"seed {seed}: {texts}"
    assert broken > 20
    assert whole > 2


def test_no_condition_is_no_break() -> None:
    ticks, settings = draw(7)
    price, ts_ms, maker = ticks
    plain = compat.run(price, ts_ms, maker, to_settings(settings))
    empty = compat.run(price, ts_ms, maker, to_settings(settings), breaks=program())
    assert plain[0].tobytes() == empty[0].tobytes()
    assert plain[1:] == empty[1:]
    assert plain[2] == -1
