"""break_on conditions: texts of settings files, compiled for the engines and never run as Python.

What a condition may hold (docs/break_on.md); everything else is refused by name:

- numbers, True and False, ``+ - * / // % **`` (exponents are plain numbers), comparisons,
  ``and``, ``or``, ``not``, ``a if c else b``, ``abs``, ``min``, ``max`` and ``calc_diff(x, y)``,
  which is |x - y| / |y|;
- ``k``, ``len(trades)``, ``len(ticks)``, ``ticks[k]['price']`` or ``ticks[k][0]``,
  ``ticks[k]['timestamp']`` or ``ticks[k][2]``;
- every field of `FIELDS` of the last record ``trades[-1]`` and of the one before, ``trades[-2]``;
- their ``type`` and ``side`` with ``==``, ``!=`` and ``.startswith``.

Numbers are doubles and mean what they mean in Python, but a division by zero gives infinity or NaN.
While there is one record only, every number of ``trades[-2]`` is NaN and no comparison of its
``type`` or ``side`` holds. A condition holds when its value is true; NaN does not.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from passivx._core.breaks import INSTRUCTION_DTYPE, N_FACTS, STACK_SIZE, Fact, Op
from passivx._core.types import KIND_NAMES, Kind
from passivx.errors import ConfigError, Problem, nearest

__all__ = ["FIELDS", "BreakRules", "compile_break_on"]

# Old names of record fields, in files that are still around.
_OLD_NAMES: Final = {
    "net_pnl_plus_fees": Fact.PNL_PLUS_FEES_CUMSUM,
    "daily_gain_ratio": Fact.AVERAGE_DAILY_GAIN,
    "loss_sum": Fact.LOSS_CUMSUM,
    "profit_sum": Fact.PROFIT_CUMSUM,
    "pnl_sum": Fact.PNL_CUMSUM,
    "fee_sum": Fact.FEE_PAID_CUMSUM,
}
# The original's names of what a record holds; `type` and `side` are text.
FIELDS: Final[dict[str, Fact]] = {
    fact.name.lower(): fact for fact in Fact if fact < Fact.N_TRADES
} | _OLD_NAMES

_PRESENT_NAMES: Final = [name for name in FIELDS if name not in _OLD_NAMES]

_STOPS: Final = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)
# The one old word with a meaning of its own: there was one kind of stop loss once.
_OLD_STOP: Final = "stop_loss"
# What a text field can say: word -> the numbers it stands for in the core.
_WORDS: Final[dict[Fact, dict[str, tuple[int, ...]]]] = {
    Fact.TYPE: {name: (int(kind),) for kind, name in KIND_NAMES.items()} | {_OLD_STOP: _STOPS},
    Fact.SIDE: {"long": (1,), "shrt": (0,), "short": (0,)},
}

_ARITHMETIC: Final[dict[type[ast.operator], Op]] = {
    ast.Add: Op.ADD,
    ast.Sub: Op.SUBTRACT,
    ast.Mult: Op.MULTIPLY,
    ast.Div: Op.DIVIDE,
    ast.FloorDiv: Op.FLOOR_DIVIDE,
    ast.Mod: Op.MODULO,
    ast.Pow: Op.POWER,
}
_COMPARISONS: Final[dict[type[ast.cmpop], Op]] = {
    ast.Lt: Op.LESS,
    ast.LtE: Op.LESS_EQUAL,
    ast.Eq: Op.EQUAL,
    ast.NotEq: Op.NOT_EQUAL,
    ast.GtE: Op.GREATER_EQUAL,
    ast.Gt: Op.GREATER,
}
_FUNCTIONS: Final = {"calc_diff": Op.CALC_DIFF, "min": Op.MIN, "max": Op.MAX}
_LENGTHS: Final = {"trades": Fact.N_TRADES, "ticks": Fact.N_TICKS}
_TICK_FIELDS: Final[dict[object, Fact]] = {
    "price": Fact.TICK_PRICE,
    0: Fact.TICK_PRICE,
    "timestamp": Fact.TIMESTAMP,
    2: Fact.TIMESTAMP,
}

_MAX_LENGTH: Final = 1000
_MAX_NESTING: Final = 40
_MAX_INSTRUCTIONS: Final = 1000
_MAX_EXPONENT: Final = 1000
_MAX_NAME: Final = 100
# Each level of an expression keeps at most two values while it computes a third.
assert 2 * _MAX_NESTING + 3 <= STACK_SIZE

_EXAMPLE: Final = """["ON: name", "lambda trades, ticks, k: trades[-1]['closest_liq'] < 0.1"]"""
_REMEDY: Final = "docs/break_on.md says what a condition can use"
_SIGNATURE: Final = ["trades", "ticks", "k"]

_Code = list[tuple[int, int, float]]


@dataclass(frozen=True, eq=False)
class BreakRules:
    """Conditions ready for an engine.

    ``names`` are those of the entries that are ON, in order: an engine answers with an index into
    them, and ``texts`` their conditions. ``program`` is an ndarray of INSTRUCTION_DTYPE, empty when
    there are none. ``warnings`` says what is wrong with entries that are OFF, and which old words
    were understood.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    program: npt.NDArray[np.void] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def entries(self) -> list[list[str]]:
        """Return the conditions as a settings file has them."""
        return [[f"ON: {name}", text] for name, text in zip(self.names, self.texts, strict=True)]


def compile_break_on(entries: object, *, path: str = "break_on") -> BreakRules:
    """Compile the list a settings file gives as ``break_on``.

    Parameters
    ----------
    entries : list of [str, str]
        ``["ON: name", "lambda trades, ticks, k: ..."]``; an entry that begins with ``OFF:`` is
        looked at but not used.
    path : str
        Where the list stands in its file, for messages.

    Raises
    ------
    ConfigError
        Naming everything wrong with the entries that are ON, and every entry that is none.
    """
    if not isinstance(entries, list | tuple):
        shown = "null" if entries is None else entries
        raise ConfigError([Problem(path, shown, "must be a list", f"such as [{_EXAMPLE}]")])
    problems: list[Problem] = []
    notes: list[str] = []
    code: _Code = []
    names: list[str] = []
    texts: list[str] = []
    for index, entry in enumerate(entries):
        where = f"{path}[{index}]"
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            shown = "null" if entry is None else entry
            problems.append(Problem(where, shown, "must be a pair of texts", f"such as {_EXAMPLE}"))
            continue
        label, text = entry
        switch, name, wrong = _switch_and_name(label, where)
        condition = _Condition(where)
        compiled = condition.compile(text)
        if switch == "OFF":
            notes += [f"{problem} (it is OFF)" for problem in [*wrong, *condition.problems]]
            continue
        if name and name in names:
            remedy = "give each condition a name of its own"
            wrong.append(Problem(where, name, "must not repeat a name", remedy))
        problems += [*wrong, *condition.problems]
        notes += condition.notes
        code += [*compiled, (Op.HOLDS, len(names), 0.0)]
        names.append(name)
        texts.append(text)
    if problems:
        raise ConfigError(problems)
    program = np.array(code, INSTRUCTION_DTYPE)
    program.flags.writeable = False
    return BreakRules(tuple(names), tuple(texts), program, tuple(notes))


def _switch_and_name(label: object, where: str) -> tuple[str, str, list[Problem]]:
    remedy = 'such as "ON: liquidation too close"'
    if not isinstance(label, str):
        return "ON", "", [Problem(where, repr(label), "must be text", remedy)]
    switch, colon, name = (part.strip() for part in label.partition(":"))
    if switch not in ("ON", "OFF") or not colon:
        return "ON", "", [Problem(where, label, "must begin with ON: or OFF:", remedy)]
    if not (name.isprintable() and 1 <= len(name) <= _MAX_NAME):
        wanted = f"must name the condition in 1 to {_MAX_NAME} printable characters"
        return switch, "", [Problem(where, label, wanted, remedy)]
    return switch, name, []


class _Condition:
    """One text on its way to code; ``problems`` and ``notes`` are what was met."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.text = ""
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._done: dict[ast.expr, _Code] = {}

    def compile(self, text: object) -> _Code:
        body = self._body(text)
        if body is None:
            return []
        code = self._number(body)
        if len(code) > _MAX_INSTRUCTIONS:
            self._refuse(None, "must be shorter", "make two conditions of it")
        return code

    def _refuse(self, node: ast.AST | None, wanted: str, remedy: str = _REMEDY) -> _Code:
        piece = None if node is None else ast.get_source_segment(self.text, node)
        problem = Problem(self.where, piece, wanted, remedy)
        if problem not in self.problems:
            self.problems.append(problem)
        return []

    def _body(self, text: object) -> ast.expr | None:
        """Return the expression after ``lambda trades, ticks, k:``, of bounded size."""
        if not isinstance(text, str):
            shown = Problem(self.where, repr(text), "must be text", f"such as {_EXAMPLE}")
            self.problems.append(shown)
            return None
        if len(text) > _MAX_LENGTH:
            self._refuse(None, f"must be at most {_MAX_LENGTH} characters, was {len(text)}")
            return None
        # Positions of pieces are counted in the stripped text; Python indents by leading blanks.
        self.text = text.strip()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.text, mode="eval")
        except (RecursionError, MemoryError):
            self._refuse(None, f"must not nest deeper than {_MAX_NESTING} levels")
            return None
        except (SyntaxError, ValueError) as e:
            reason = e.msg if isinstance(e, SyntaxError) else str(e)
            problem = Problem(self.where, text, f"cannot be read ({reason})", "check its brackets")
            self.problems.append(problem)
            return None
        # Lambda, its body and the body's operators come on top of what is counted.
        if _levels(tree) > _MAX_NESTING + 3:
            self._refuse(None, f"must not nest deeper than {_MAX_NESTING} levels")
            return None
        match tree.body:
            case ast.Lambda(args=arguments, body=body) if ast.unparse(arguments) == ", ".join(
                _SIGNATURE
            ):
                return body
        self._refuse(tree.body, "must begin with 'lambda trades, ticks, k:'")
        return None

    # --- numbers ------------------------------------------------------------------------------

    def _number(self, node: ast.expr) -> _Code:
        """Return code that leaves the value of ``node``.

        Made once a node: a chain of comparisons asks twice for what stands in its middle.
        """
        if node not in self._done:
            self._done[node] = self._new_number(node)
        return self._done[node]

    def _new_number(self, node: ast.expr) -> _Code:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return self._constant(node, value)
            case ast.Name(id="k"):
                return _fact(Fact.TRADE_ID)
            case ast.Name(id="trades" | "ticks" as name):
                last = "trades[-1]['price']" if name == "trades" else "ticks[k]['price']"
                return self._refuse(node, "must be a number", f"len({name}), or such as {last}")
            case ast.Name():
                return self._refuse(node, "must name only trades, ticks and k")
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._number(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return [*self._number(operand), (Op.NEGATIVE, 0, 0.0)]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return [*self._number(operand), (Op.NOT, 0, 0.0)]
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                if isinstance(operator, ast.Pow):
                    self._check_exponent(right)
                return self._fold(_ARITHMETIC[type(operator)], [left, right])
            case ast.BoolOp(op=connective, values=values):
                return self._fold(Op.AND if isinstance(connective, ast.And) else Op.OR, values)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                operands = [self._number(part) for part in (test, body, orelse)]
                return [*operands[0], *operands[1], *operands[2], (Op.SELECT, 0, 0.0)]
            case ast.Compare(left=left, ops=operators, comparators=rest):
                return self._comparison(node, [left, *rest], operators)
            case ast.Call():
                return self._call(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Constant(value=str()):
                return self._refuse(node, "must compare text with type or side")
        return self._refuse(
            node, "must hold only comparisons, arithmetic, and/or/not and 'a if c else b'"
        )

    def _constant(self, node: ast.expr, value: float) -> _Code:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            return self._refuse(node, "must hold numbers below 1.8e308 only")
        return [(Op.NUMBER, 0, number)]

    def _check_exponent(self, node: ast.expr) -> None:
        plain = node.operand if isinstance(node, ast.UnaryOp) else node
        match plain:
            case ast.Constant(value=int() | float() as value) if value <= _MAX_EXPONENT:
                return
        self._refuse(node, f"must have plain exponents, from -{_MAX_EXPONENT} to {_MAX_EXPONENT}")

    def _fold(self, op: Op, operands: Iterable[ast.expr]) -> _Code:
        code: _Code = []
        for index, operand in enumerate(operands):
            code += self._number(operand)
            if index:
                code.append((op, 0, 0.0))
        return code

    def _call(self, node: ast.Call) -> _Code:
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr="startswith")):
                return self._startswith(node, value)
            case ast.Call(keywords=[_, *_]):
                pass
            case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id="trades" | "ticks" as name)]):
                return _fact(_LENGTHS[name])
            case ast.Call(func=ast.Name(id="len")):
                return self._refuse(node, "must take len of trades or ticks only")
            case ast.Call(func=ast.Name(id="abs"), args=[operand]):
                return [*self._number(operand), (Op.ABS, 0, 0.0)]
            case ast.Call(func=ast.Name(id="calc_diff"), args=[_, _] as operands):
                return self._fold(Op.CALC_DIFF, operands)
            case ast.Call(func=ast.Name(id="min" | "max" as name), args=[_, _, *_] as operands):
                return self._fold(_FUNCTIONS[name], operands)
            case ast.Call(func=ast.Name(id="abs" | "calc_diff" | "min" | "max" as name)):
                many = {"abs": "one number", "calc_diff": "two numbers"}.get(name, "numbers")
                return self._refuse(node, f"must give {name} {many}, separated by commas")
        return self._refuse(
            node, "must call only len, abs, min, max, calc_diff and .startswith of type or side"
        )

    def _subscript(self, node: ast.Subscript) -> _Code:
        found = self._record_field(node)
        if found is not None:
            fact, offset = found
            if fact in _WORDS:
                name = fact.name.lower()
                remedy = f"such as trades[-1]['{name}'] == '{next(iter(_WORDS[fact]))}'"
                return self._refuse(node, f"must compare {name} with text", remedy)
            return _fact(fact, offset)
        match node:
            case ast.Subscript(value=ast.Name(id="trades" | "ticks" as name)):
                return self._refuse(node, "must be a number", f"add a field: {name}[...]['price']")
            case ast.Subscript(
                value=ast.Subscript(value=ast.Name(id="ticks"), slice=ast.Name(id="k"))
            ):
                key = _key(node.slice)
                if key in _TICK_FIELDS:
                    return _fact(_TICK_FIELDS[key])
                return self._refuse(node, "must take 'price' or 'timestamp' of a tick")
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id="ticks"))):
                return self._refuse(node, "must look at ticks[k] only")
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id="trades"), slice=place)):
                if _key(place) not in (-1, -2):
                    return self._refuse(node, "must look at trades[-1] and trades[-2] only")
                remedy = nearest(str(_key(node.slice)), _PRESENT_NAMES)
                return self._refuse(node, "must take a known field of a record", remedy)
        return self._refuse(node, "must take items of trades and ticks only")

    # --- text ---------------------------------------------------------------------------------

    def _comparison(
        self, node: ast.Compare, operands: list[ast.expr], operators: list[ast.cmpop]
    ) -> _Code:
        code: _Code = []
        for index, operator in enumerate(operators):
            code += self._pair(node, operands[index], operator, operands[index + 1])
            if index:
                code.append((Op.AND, 0, 0.0))
            if len(code) > _MAX_INSTRUCTIONS:  # a < b < c holds b twice, and b may be such a chain
                return self._refuse(None, "must be shorter", "make two conditions of it")
        return code

    def _pair(
        self, node: ast.Compare, left: ast.expr, operator: ast.cmpop, right: ast.expr
    ) -> _Code:
        if type(operator) not in _COMPARISONS:
            return self._refuse(node, "must compare with < <= == != >= >", "write a == b or a == c")
        texts = [
            one for one in (left, right) if self._text_field(one) or isinstance(_key(one), str)
        ]
        if not texts:
            return [
                *self._number(left),
                *self._number(right),
                (_COMPARISONS[type(operator)], 0, 0.0),
            ]
        if not isinstance(operator, ast.Eq | ast.NotEq):
            return self._refuse(node, "must compare type and side with == and != only")
        equal = isinstance(operator, ast.Eq)
        ours, theirs = self._text_field(left), self._text_field(right)
        if ours and theirs and ours[0] == theirs[0]:
            op = Op.EQUAL if equal else Op.DIFFERENT
            return [*_fact(*ours), *_fact(*theirs), (op, 0, 0.0)]
        found, word = ours or theirs, _key(right if ours else left)
        if found is None or not isinstance(word, str):
            return self._refuse(node, "must compare type and side with text, numbers with numbers")
        words = _WORDS[found[0]]
        if word not in words:
            return self._unknown_word(node, found[0], word)
        if word == _OLD_STOP:
            self.notes.append(
                f"{self.where}: 'stop_loss' is an old name and stands for both kinds of stop loss"
            )
        everything = {value for values in words.values() for value in values}
        wanted = set(words[word]) if equal else everything - set(words[word])
        return [*_fact(*found), (Op.ONE_OF, _mask(wanted), 0.0)]

    def _startswith(self, node: ast.Call, value: ast.expr) -> _Code:
        found = self._text_field(value)
        if found is None:
            return self._refuse(node, "must call .startswith on type or side only")
        match node:
            case ast.Call(args=[ast.Constant(value=str() as prefix)], keywords=[]):
                pass
            case _:
                return self._refuse(node, "must give .startswith one text")
        words = _WORDS[found[0]]
        wanted = {value for word in words if word.startswith(prefix) for value in words[word]}
        if not wanted:
            return self._unknown_word(node, found[0], prefix)
        return [*_fact(*found), (Op.ONE_OF, _mask(wanted), 0.0)]

    def _unknown_word(self, node: ast.expr, fact: Fact, word: str) -> _Code:
        remedy = nearest(word, _WORDS[fact])
        return self._refuse(node, f"must use a {fact.name.lower()} that records have", remedy)

    def _text_field(self, node: ast.expr) -> tuple[Fact, int] | None:
        found = self._record_field(node)
        return found if found and found[0] in _WORDS else None

    def _record_field(self, node: ast.expr) -> tuple[Fact, int] | None:
        """Return which field of a record ``node`` is, and 1 when it is the record before."""
        match node:
            case ast.Subscript(
                value=ast.Subscript(value=ast.Name(id="trades"), slice=place),
                slice=ast.Constant(value=str() as name),
            ) if name in FIELDS and _key(place) in (-1, -2):
                return FIELDS[name], int(_key(place) == -2)
        return None


def _key(node: ast.expr) -> object:
    """Return the text or whole number that ``node`` is, else None."""
    match node:
        case ast.Constant(value=str() | int() as key) if not isinstance(key, bool):
            return key
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as key)):
            return -key
    return None


def _fact(fact: Fact, offset: int = 0) -> _Code:
    return [(Op.FACT, fact + offset * N_FACTS, 0.0)]


def _mask(values: Iterable[int]) -> int:
    return sum(1 << value for value in values)


def _levels(tree: ast.AST) -> int:
    levels, nodes = 0, [tree]
    while nodes:
        nodes = [child for node in nodes for child in ast.iter_child_nodes(node)]
        levels += 1
    return levels
