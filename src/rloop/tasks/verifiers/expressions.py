"""Arithmetic and polynomials read from model text by a whitelist; nothing is ever evaluated.

The text is parsed to a syntax tree, of which only numbers, names, + - * / and small integer powers
are understood. Anything else is a ValueError.
"""

import ast
from collections import Counter
from fractions import Fraction

MAX_CHARS = 1000
MAX_DEGREE = 100
MAX_TERMS = 1000
MAX_BITS = 4096

Monomial = tuple[tuple[str, int], ...]
Polynomial = dict[Monomial, Fraction]
"""Coefficients by monomial; x**2*y is (("x", 2), ("y", 1)); no coefficient is zero."""

_SPELLINGS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u00b7": "*"})


def read_arithmetic(text: str) -> tuple[Fraction, Counter[int]]:
    """Return the value of an expression of integers and + - * /, and the integers it uses.

    Example: "(8 - 2) * 4" -> (24, Counter({8: 1, 2: 1, 4: 1}))
    """
    tree = syntax_tree(text)
    numbers = Counter(_integer(node) for node in ast.walk(tree) if isinstance(node, ast.Constant))
    if any(isinstance(node, ast.Pow | ast.Name) for node in ast.walk(tree)):
        raise ValueError("only integers and + - * / are allowed")
    return _read(tree).get((), Fraction(0)), numbers


def read_polynomial(text: str) -> Polynomial:
    """Return the polynomial that a text such as "3*x**2 - x/2 + C" stands for.

    Powers may be negative (1/x is x**-1); `^` is read as `**`.
    """
    return _read(syntax_tree(text))


def derivative(polynomial: Polynomial, variable: str) -> Polynomial:
    """Return the derivative with respect to one variable; other names are constants."""
    result: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        powers = dict(monomial)
        power = powers.get(variable, 0)
        if power:
            powers[variable] = power - 1
            result[_monomial(powers)] = coefficient * power
    return result


def syntax_tree(text: str) -> ast.expr:
    """Return the syntax tree of an expression, `^` read as `**`; ValueError if it is none."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"an expression longer than {MAX_CHARS} characters")
    try:
        return ast.parse(text.strip().replace("^", "**").translate(_SPELLINGS), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not an expression") from error


def _read(tree: ast.expr) -> Polynomial:
    try:
        return _polynomial(tree)
    except RecursionError as error:
        raise ValueError("an expression nested too deeply") from error


def _integer(node: ast.Constant) -> int:
    if type(node.value) is not int:
        raise ValueError(f"{node.value!r} is not an integer")
    return node.value


def _polynomial(node: ast.expr) -> Polynomial:
    match node:
        case ast.Constant():
            value = Fraction(_integer(node))
            return {(): value} if value else {}
        case ast.Name():
            return {((node.id, 1),): Fraction(1)}
        case ast.UnaryOp(op=ast.USub()):
            return _scaled(_polynomial(node.operand), Fraction(-1))
        case ast.UnaryOp(op=ast.UAdd()):
            return _polynomial(node.operand)
        case ast.BinOp(op=ast.Pow()):
            return _power(_polynomial(node.left), _polynomial(node.right))
        case ast.BinOp():
            return _combined(node.op, _polynomial(node.left), _polynomial(node.right))
    raise ValueError(f"{type(node).__name__} is not allowed in an expression")


def _combined(op: ast.operator, left: Polynomial, right: Polynomial) -> Polynomial:
    match op:
        case ast.Add():
            return _sum(left, right)
        case ast.Sub():
            return _sum(left, _scaled(right, Fraction(-1)))
        case ast.Mult():
            return _product(left, right)
        case ast.Div():
            return _product(left, _inverse(right))
    raise ValueError(f"{type(op).__name__} is not allowed in an expression")


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    result = dict(left)
    for monomial, coefficient in right.items():
        result[monomial] = result.get(monomial, Fraction(0)) + coefficient
    return _bounded(result)


def _scaled(polynomial: Polynomial, factor: Fraction) -> Polynomial:
    return {monomial: coefficient * factor for monomial, coefficient in polynomial.items()}


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) * len(right) > MAX_TERMS:
        raise ValueError(f"a product of more than {MAX_TERMS} terms")
    result: Polynomial = {}
    for monomial, coefficient in left.items():
        for other, factor in right.items():
            powers = Counter(dict(monomial))
            powers.update(dict(other))
            key = _monomial(powers)
            result[key] = result.get(key, Fraction(0)) + coefficient * factor
    return _bounded(result)


def _inverse(polynomial: Polynomial) -> Polynomial:
    if len(polynomial) != 1:
        raise ValueError("a division by zero or by a sum")
    ((monomial, coefficient),) = polynomial.items()
    return {_monomial({name: -power for name, power in monomial}): 1 / coefficient}


def _power(base: Polynomial, exponent: Polynomial) -> Polynomial:
    value = exponent.get((), Fraction(0))
    if (exponent and exponent.keys() != {()}) or value.denominator != 1 or abs(value) > MAX_DEGREE:
        raise ValueError(f"a power that is not an integer up to {MAX_DEGREE}")
    if value < 0:
        base, value = _inverse(base), -value
    result: Polynomial = {(): Fraction(1)}
    for _ in range(int(value)):
        result = _product(result, base)
    return result


def _monomial(powers: dict[str, int]) -> Monomial:
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _bounded(polynomial: Polynomial) -> Polynomial:
    for coefficient in polynomial.values():
        if max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length()) > MAX_BITS:
            raise ValueError(f"a coefficient of more than {MAX_BITS} bits")
    return {monomial: value for monomial, value in polynomial.items() if value}
