"""Arithmetic read from model text by a whitelist; nothing is ever evaluated.

The text is parsed to a syntax tree, of which only integers and + - * / are understood. Anything
else is a ValueError.
"""

import ast
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction

MAX_CHARS = 1000
MAX_BITS = 4096
_SPELLINGS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u00b7": "*"})
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def read_arithmetic(text: str) -> tuple[Fraction, Counter[int]]:
    """Return the value of an expression of integers and + - * /, and the integers it uses.

    Example: "(8 - 2) * 4" -> (24, Counter({8: 1, 2: 1, 4: 1}))
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"an expression longer than {MAX_CHARS} characters")
    try:
        tree = ast.parse(text.strip().translate(_SPELLINGS), mode="eval").body
        value = _value(tree)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not an expression") from error
    except ZeroDivisionError as error:
        raise ValueError("a division by zero") from error
    integers = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return value, Counter(number for number in integers if isinstance(number, int))


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=value) if type(value) is int:
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return -_value(operand) if isinstance(sign, ast.USub) else _value(operand)
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            result = _OPERATORS[type(op)](_value(node.left), _value(node.right))
            if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
                raise ValueError(f"a number of more than {MAX_BITS} bits")
            return result
    raise ValueError("only integers and + - * / are allowed")
