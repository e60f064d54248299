"""break_on texts: what is understood, and what is refused in which words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from passivx._core.breaks import INSTRUCTION_DTYPE, Op
from passivx.breaks import FIELDS, compile_break_on
from passivx.documents import read_document
from passivx.errors import ConfigError

HEAD = "lambda trades, ticks, k: "


def entry(text: str, label: str = "ON: it") -> list[str]:
    return [label, HEAD + text]


def problems_of(entries: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compile_break_on(entries)
    return [str(problem) for problem in caught.value.problems]


def test_on_entries_are_compiled_in_order() -> None:
    rules = compile_break_on([entry("k > 3", "ON: a"), entry("k", "OFF: b"), entry("k", "ON:c: d")])
    assert rules.names == ("a", "c: d")
    assert rules.warnings == ()
    assert rules.program.dtype == INSTRUCTION_DTYPE
    assert not rules.program.flags.writeable
    ends = rules.program[rules.program["op"] == Op.HOLDS]
    assert ends["arg"].tolist() == [0, 1]


def test_nothing_is_an_empty_program() -> None:
    rules = compile_break_on([])
    assert (rules.names, len(rules.program), rules.warnings) == ((), 0, ())


@pytest.mark.real_data
def test_published_settings_files_compile(real_data: Path) -> None:
    entries = []
    for path in sorted(real_data.glob("configs/**/*.hjson")):
        break_on = read_document(path).get("break_on", [])
        rules = compile_break_on(break_on)
        assert len(rules.names) == sum(label.startswith("ON") for label, _ in break_on)
        assert all(" old name " in warning for warning in rules.warnings)
        entries += break_on
    assert len(entries) >= 17
    # Every one of them would also compile if it were switched on.
    for i, (_, text) in enumerate(entries):
        assert compile_break_on([[f"ON: {i}", text]]).names == (str(i),)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_known_of_both_records(name: str) -> None:
    word = {"type": " == 'close'", "side": " == 'long'"}.get(name, " > 0")
    for place in (-1, -2):
        assert len(compile_break_on([entry(f"trades[{place}]['{name}']{word}")]).program) > 2


def test_the_old_word_for_a_stop_is_understood_with_a_note() -> None:
    rules = compile_break_on([entry("trades[-1]['type'] == 'stop_loss'")])
    assert rules.warnings == (
        "break_on[0]: 'stop_loss' is an old name and stands for both kinds of stop loss",
    )


REFUSED = [
    ("open('x')", "must call only len, abs, min, max, calc_diff and .startswith"),
    ("__import__('os').system('ls')", "must call only"),
    ("(lambda: 1)()", "must call only"),
    ("sum(trades)", "must call only"),
    ("trades.clear()", "must call only"),
    ("len('abc')", "must take len of trades or ticks only"),
    ("len(ticks, k)", "must take len of trades or ticks only"),
    ("min(k)", "must give min numbers, separated by commas"),
    ("min(*trades)", "must give min numbers"),
    ("max(k, 1, key=abs)", "must call only"),
    ("abs(1, 2)", "must give abs one number"),
    ("calc_diff(k)", "must give calc_diff two numbers"),
    ("k.__class__", "must hold only comparisons"),
    ("[x for x in trades]", "must hold only comparisons"),
    ("any(x > 1 for x in trades)", "must call only"),
    ("(y := 3)", "must hold only comparisons"),
    ("f'{k}'", "must hold only comparisons"),
    ("(1, 2)", "must hold only comparisons"),
    ("{}", "must hold only comparisons"),
    ("lambda: 1", "must hold only comparisons"),
    ("None", "must hold only comparisons"),
    ("...", "must hold only comparisons"),
    ("1j", "must hold only comparisons"),
    ("b'x'", "must hold only comparisons"),
    ("~k", "must hold only comparisons"),
    ("k << 3", "must hold only comparisons"),
    ("k & 1", "must hold only comparisons"),
    ("os", "must name only trades, ticks and k, was 'os'"),
    ("calc_diff", "must name only trades, ticks and k"),
    ("trades", "must be a number, was 'trades'; len(trades), or such as"),
    ("trades[-1]", "must be a number, was 'trades[-1]'; add a field"),
    ("ticks[k] > 1", "must be a number, was 'ticks[k]'; add a field"),
    ("trades[0]['pnl']", "must look at trades[-1] and trades[-2] only"),
    ("trades[-3]['pnl']", "must look at trades[-1] and trades[-2] only"),
    ("trades[k]['pnl']", "must look at trades[-1] and trades[-2] only"),
    ("trades[-1:]['pnl']", "must look at trades[-1] and trades[-2] only"),
    ("trades[-1][x]", "must take a known field of a record"),
    ("trades[-1][0]", "must take a known field of a record"),
    ("trades[-1]['pnl_cum']", "did you mean 'pnl_cumsum'?"),
    ("ticks[0]['price']", "must look at ticks[k] only"),
    ("ticks[k - 1]['price']", "must look at ticks[k] only"),
    ("ticks[k]['qty']", "must take 'price' or 'timestamp' of a tick"),
    ("ticks[k][True]", "must take 'price' or 'timestamp' of a tick"),
    ("k[0]", "must take items of trades and ticks only"),
    ("'abc'", "must compare text with type or side"),
    ("trades[-1]['type']", "must compare type with text"),
    ("trades[-1]['side'] and 1", "such as trades[-1]['side'] == 'long'"),
    ("trades[-1]['type'] == 'entri'", "did you mean 'entry'?"),
    ("trades[-1]['side'] != 'both'", "one of long, shrt, short"),
    ("trades[-1]['type'].startswith('x')", "must use a type that records have"),
    ("trades[-1]['type'].startswith()", "must give .startswith one text"),
    ("trades[-1]['type'].startswith('s', 1)", "must give .startswith one text"),
    ("'stop'.startswith('s')", "must call .startswith on type or side only"),
    ("trades[-1]['pnl'].startswith('s')", "must call .startswith on type or side only"),
    ("trades[-1]['type'] < 'entry'", "must compare type and side with == and != only"),
    ("trades[-1]['type'] == 3", "must compare type and side with text, numbers with numbers"),
    ("trades[-1]['pnl'] == 'entry'", "must compare type and side with text"),
    ("trades[-1]['type'] == trades[-1]['side']", "must compare type and side with text"),
    ("'a' == 'a'", "must compare type and side with text"),
    ("trades[-1]['type'] in ('entry', 'close')", "write a == b or a == c"),
    ("k is None", "must compare with < <= == != >= >"),
    ("9 ** 9 ** 9", "must have plain exponents, from -1000 to 1000, was '9 ** 9'"),
    ("2 ** 100000", "must have plain exponents"),
    ("2 ** 1e6", "must have plain exponents"),
    ("k ** k", "must have plain exponents"),
    ("2 ** -100000", "must have plain exponents"),
    ("1e999", "must hold numbers below 1.8e308 only"),
    ("9" * 400, "must hold numbers below 1.8e308 only"),
    ("k and", "cannot be read (invalid syntax)"),
    ("k; k", "cannot be read"),
    ("", "cannot be read"),
    ("\0", "cannot be read"),
    ("\ud800", "cannot be read"),
    ("(" * 300 + "1" + ")" * 300, "cannot be read (too many nested parentheses)"),
    ("-" * 900 + "1", "must not nest deeper than 40 levels"),
    ("not " * 200 + "1", "must not nest deeper than 40 levels"),
    ("1" + " + 1" * 60, "must not nest deeper than 40 levels"),
    ("abs(" * 60 + "1" + ")" * 60, "must not nest deeper than 40 levels"),
    ("k > 0 " * 400, "must be at most 1000 characters, was 2425"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_refused(text: str, message: str) -> None:
    (problem,) = problems_of([entry("k"), entry(text, "ON: bad")])
    assert problem.startswith("break_on[1]: ")
    assert message in problem
    assert "; " in problem, "no remedy"
    problem.encode()  # whatever the text held, it can be printed
    # Switched off, it is no more than a warning.
    rules = compile_break_on([entry("k"), entry(text, "OFF: bad")])
    assert rules.names == ("it",)
    assert rules.warnings == (f"{problem} (it is OFF)",)


@pytest.mark.parametrize(
    "text",
    [
        "k > 3",
        "lambda: k",
        "lambda trades, ticks: k",
        "lambda ticks, trades, k: k",
        "lambda trades, ticks, k=1: k",
        "lambda trades, ticks, *k: k",
        "lambda trades, ticks, k, **more: k",
        "lambda trades, ticks, k, /: k",
    ],
)
def test_the_three_parameters_are_asked_for(text: str) -> None:
    (problem,) = problems_of([["ON: it", text]])
    assert "must begin with 'lambda trades, ticks, k:'" in problem


def test_long_chains_within_chains_are_refused_at_once() -> None:
    text = "k"
    for _ in range(38):
        text = f"k<({text})<k"
    (problem,) = problems_of([entry(text)])
    assert "must be shorter; make two conditions of it" in problem


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "break_on[0]: must be a pair of texts, was 'null'; such as "),
        ("ON: a", "must be a pair of texts"),
        ({}, "must be a pair of texts"),
        (["ON: a"], "must be a pair of texts"),
        (["ON: a", HEAD + "k", ""], "must be a pair of texts"),
        ([3, HEAD + "k"], "break_on[0]: must be text, was '3'"),
        (["ON: a", 3], "break_on[0]: must be text, was '3'"),
        (["ON: a", None], "break_on[0]: must be text, was 'None'"),
        (["a", HEAD + "k"], "must begin with ON: or OFF:, was 'a'; such as"),
        (["on: a", HEAD + "k"], "must begin with ON: or OFF:"),
        (["ON", HEAD + "k"], "must begin with ON: or OFF:"),
        (["ONLY: a", HEAD + "k"], "must begin with ON: or OFF:"),
        (["ON:", HEAD + "k"], "must name the condition in 1 to 100 printable characters"),
        (["ON: a\x1b[2J", HEAD + "k"], "must name the condition in 1 to 100 printable characters"),
        (["ON: " + "a" * 101, HEAD + "k"], "must name the condition"),
    ],
)
def test_entries_of_the_wrong_shape(bad: Any, message: str) -> None:
    (problem,) = problems_of([bad])
    assert message in problem


@pytest.mark.parametrize("bad", [None, {}, "ON: a", 3])
def test_no_list(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"^jackrabbit.break_on: must be a list, was .*; such as"):
        compile_break_on(bad, path="jackrabbit.break_on")


def test_all_problems_of_a_list_at_once() -> None:
    found = problems_of(
        [
            entry("k > 3", "ON: a"),
            entry("x + y", "ON: a"),
            entry("x", "OFF: a"),
            ["a", 4],
            7,
            entry("trades[0]['pnl'] > open('x') > trades[0]['pnl']"),
        ]
    )
    assert [problem.split(";")[0] for problem in found] == [
        "break_on[1]: must not repeat a name, was 'a'",
        "break_on[1]: must name only trades, ticks and k, was 'x'",
        "break_on[1]: must name only trades, ticks and k, was 'y'",
        "break_on[3]: must begin with ON: or OFF:, was 'a'",
        "break_on[3]: must be text, was '4'",
        "break_on[4]: must be a pair of texts, was 7",
        "break_on[5]: must look at trades[-1] and trades[-2] only, was \"trades[0]['pnl']\"",
        "break_on[5]: must call only len, abs, min, max, calc_diff and .startswith of type or side"
        ", was \"open('x')\"",
    ]


PIECES = [
    "trades[-1]", "trades[-2]", "['pnl']", "['type']", "ticks[k]", "['price']", "k", "len(trades)",
    "(", ")", "[", "]", "<", "==", "!=", "'entry'", "0", "1e9", "-", "**", "/", "and", "or", "not",
    "if", "else", "lambda", ":", ",", ".", "startswith", "min", "calc_diff", "x", "*", "\\", "\n",
    "'", '"', "#", "{", "}", "=", ":=", "await", "yield", "is", "in", "0b", "1_0", "1or",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join)))
@example("'\\d'")
@example("1or 2")
@example("1 is 1")
@example("'a'()")
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        rules = compile_break_on([entry(text)])
    except ConfigError as e:
        str(e).encode()
    else:
        assert rules.program["op"][-1] == Op.HOLDS


def test_bent_texts_are_compiled_or_refused() -> None:
    rng = random.Random(1)
    good = "calc_diff(trades[-1]['price'], ticks[k][0]) > 1.05 and trades[-2]['side'] == 'long'"
    accepted = 0
    for _ in range(3000):
        letters = list(good)
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(letters))
            letters[at : at + rng.randint(0, 4)] = rng.choice([*PIECES, ""])
        text = "".join(letters)
        try:
            rules = compile_break_on([entry(text)])
        except ConfigError as e:
            str(e).encode()
            continue
        accepted += 1
        assert rules.program["op"][-1] == Op.HOLDS
    assert accepted > 20
