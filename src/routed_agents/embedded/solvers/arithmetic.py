"""Arithmetic: sums written in figures or in words are worked out."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

from routed_agents.embedded.solvers.reading import Brief

_WORDS = (
    (r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s+(?:of|from)\s+(\d+(?:\.\d+)?)", r"(\1 / 100 * \2)"),
    (r"\bplus\b|\badded to\b", "+"),
    (r"\bminus\b|\bless\b", "-"),
    (r"\btimes\b|\bmultiplied by\b|×|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\bdivided by\b|\bover\b|÷", "/"),
    (r"\^|\bto the power of\b", "**"),
)
_EXPRESSION = re.compile(r"[\d(][\d\s.()+*/-]*[\d)]")
_LIST = re.compile(
    r"\b(sum|total|average|mean|product|maximum|minimum|largest|smallest)\s+of\s+((?:-?\d+(?:\.\d+)?(?:\s*,\s*(?:and\s+)?|\s+and\s+)?){2,})",
    re.IGNORECASE,
)
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


def _divided(over: float, under: float) -> float:
    return over / under


_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divided,
}


def evaluate(expression: str) -> float | None:
    """The value of an expression of figures and + - * / ( ), or None."""
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _value(left), _value(right)
            if abs(exponent) > 64 or abs(base) > 1e6:
                raise OverflowError
            return float(base**exponent)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left), _value(right))
        case _:
            raise ValueError(ast.dump(node))


def expression_in(text: str) -> str:
    """The longest expression a text contains, in figures and signs; empty if there is none."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", _DATE.sub(" ", text))
    listed = _LIST.search(plain)
    if listed:
        values = re.findall(r"-?\d+(?:\.\d+)?", listed[2])
        match listed[1].lower():
            case "average" | "mean":
                return f"({' + '.join(values)}) / {len(values)}"
            case "product":
                return " * ".join(values)
            case "maximum" | "largest":
                return max(values, key=float)
            case "minimum" | "smallest":
                return min(values, key=float)
            case _:
                return " + ".join(values)
    for pattern, sign in _WORDS:
        plain = re.sub(pattern, sign, plain, flags=re.IGNORECASE)
    found = [candidate.strip() for candidate in _EXPRESSION.findall(plain)]
    usable = [candidate for candidate in found if re.search(r"\d\s*[-+*/]", candidate) and evaluate(candidate) is not None]
    return max(usable, key=len, default="")


def figure(value: float) -> str:
    """A number as a person would write it."""
    return f"{round(value):d}" if abs(value - round(value)) < 1e-9 else f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.4g}"


def answer(brief: Brief) -> str | None:
    """The result of the sum asked for, or None where none is."""
    expression = expression_in(brief.instruction or brief.material)
    value = evaluate(expression) if expression else None
    return None if value is None else f"{expression.strip()} = {figure(value)}"
