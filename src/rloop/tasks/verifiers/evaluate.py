r"""The value of a formula: a fraction where it is one, else a real or complex number to 50 digits.

Nothing is ever run as code, and what would take long to work out (a tower of powers) is refused.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath

from rloop.tasks.verifiers.commands import MANY
from rloop.tasks.verifiers.formula import Formula, Tree

MP = mpmath.MPContext()
"""A context of our own: the precision of others is left alone."""
MP.dps = 50
RELATIVE = MP.mpf(10) ** -40
MAX_BITS = 200_000
"""Size of an exact number; what is larger is not worked out."""

MAX_FACTORIAL = 5000
MAX_CHOSEN = 1000
"""The bottom of a binomial up to which it is multiplied out."""
Value = Any
"""A Fraction, or mpmath's real or complex number."""

_FUNCTIONS = {
    "sin": MP.sin, "cos": MP.cos, "tan": MP.tan, "cot": MP.cot, "sec": MP.sec,
    "csc": MP.csc, "arcsin": MP.asin, "arccos": MP.acos, "arctan": MP.atan,
    "arccot": MP.acot, "arcsec": MP.asec, "arccsc": MP.acsc,
    "sinh": MP.sinh, "cosh": MP.cosh, "tanh": MP.tanh, "ln": MP.ln,
    "exp": MP.exp,
}  # fmt: skip


class UndefinedError(ArithmeticError):
    """The expression has no value here: a division by zero, a root of a negative number."""


class TooLargeError(ArithmeticError):
    """Working the expression out exactly would take too long."""


def value_of(formula: Formula) -> Value:
    """Return the value of a formula without variables; UndefinedError, TooLargeError, else."""
    if formula.symbols:
        raise UndefinedError("it has variables")
    return evaluate(formula.tree, {})


def evaluate(tree: Tree, point: Mapping[str, Fraction]) -> Value:
    """Return the value of a tree where the variables have the point's values."""
    kind = tree[0]
    if kind in ("num", "dec"):
        return tree[1]
    if kind == "sym":
        return point[tree[1]]
    if kind == "const":
        return {"pi": MP.pi, "e": MP.e, "i": MP.mpc(0, 1)}[tree[1]] * 1
    arguments = [evaluate(part, point) for part in tree[1:] if isinstance(part, tuple)]
    if kind in ("pow", "root") and not point and _is_real(arguments[-1 if kind == "root" else 0]):
        arguments = _perhaps_complex(kind, arguments)
    try:
        return _checked(_apply(tree, arguments))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UndefinedError(str(error)) from error


def _perhaps_complex(kind: str, a: list[Value]) -> list[Value]:
    r"""Let a negative number without variables have a square root: \sqrt{-4} is 2i."""
    position = 1 if kind == "root" else 0
    other = a[1 - position]
    is_even = (
        isinstance(other, Fraction) and (other if kind == "root" else other.denominator) % 2 == 0
    )
    if is_even and a[position] < 0:
        a[position] = MP.mpc(inexact(a[position]), 0)
    return a


def _apply(tree: Tree, a: list[Value]) -> Value:
    kind = tree[0]
    if kind == "neg":
        return -a[0]
    if kind == "add":
        return _fold(a, lambda x, y: x + y)
    if kind == "mul":
        return _fold(a, lambda x, y: x * y)
    if kind == "div":
        if a[1] == 0:
            raise UndefinedError("a division by zero")
        return pair_of(a[0], a[1], lambda x, y: x / y)
    if kind == "pow":
        return _power(a[0], a[1])
    if kind == "fact":
        return _factorial(a[0], tree[-1])
    if kind == "root":
        return _root(a[0], a[1])
    if kind == "binom":
        return _binomial(a[0], a[1])
    return _function(kind, a)


def _fold(values: list[Value], operation: Any) -> Value:  # noqa: ANN401
    result = values[0]
    for value in values[1:]:
        result = pair_of(result, value, operation)
    return result


def pair_of(left: Value, right: Value, operation: Any) -> Value:  # noqa: ANN401
    """Apply an operation to two numbers, both inexact where one is."""
    if isinstance(left, Fraction) != isinstance(right, Fraction):
        left, right = inexact(left), inexact(right)
    return operation(left, right)


def inexact(value: Value) -> Value:
    """Return a fraction as mpmath's real number; other numbers as they are."""
    if isinstance(value, Fraction):
        return MP.mpf(value.numerator) / MP.mpf(value.denominator)
    return value


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise TooLargeError("a number too large to work out")
    elif MP.isnan(value):
        raise UndefinedError("no number")
    elif isinstance(value, MP.mpc) and abs(value.imag) <= abs(value.real) * RELATIVE:
        return value.real
    return value


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = exponent.numerator
        if base == 0 and power <= 0:
            raise UndefinedError("zero to the power of zero or less")
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(power) > MAX_BITS and abs(base) not in (0, 1):
                raise TooLargeError("a power too large to work out")
            return base**power
        _check_exponent(base, exponent)
        return base**power
    if base == 0:
        return Fraction(0)
    if not isinstance(base, MP.mpc) and base < 0:
        root = _odd_root(base, exponent)
        if root is None:
            raise UndefinedError("a root of a negative number")
        return root
    _check_exponent(base, exponent)
    exact = _exact_root(base, exponent)
    return exact if exact is not None else inexact(base) ** inexact(exponent)


def _check_exponent(base: Value, exponent: Value) -> None:
    size = abs(inexact(exponent)) * abs(MP.log(abs(inexact(base)) or 1))
    if size > 1e12:
        raise TooLargeError("a power too large to work out")


def _odd_root(base: Value, exponent: Value) -> Value | None:
    if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
        return None
    sign = -1 if exponent.numerator % 2 else 1
    return sign * _power(-base, exponent)


def _exact_root(base: Value, exponent: Value) -> Fraction | None:
    """Return base^exponent where both are rational and so is the result: 4^(1/2) = 2."""
    if not (isinstance(base, Fraction) and isinstance(exponent, Fraction)):
        return None
    degree, roots = exponent.denominator, []
    if degree > 64 or abs(exponent.numerator) > 1000:
        return None
    for part in (base.numerator, base.denominator):
        root = int(MP.nint(MP.mpf(part) ** (MP.mpf(1) / degree)))
        if root**degree != part:
            return None
        roots.append(root)
    return Fraction(*roots) ** exponent.numerator


def _root(degree: Value, base: Value) -> Value:
    if degree == 0:
        raise UndefinedError("a root of degree zero")
    return _power(base, 1 / degree)


def _factorial(value: Value, step: int) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise UndefinedError("a factorial of a negative number")
        if value > MAX_FACTORIAL:
            raise TooLargeError("a factorial too large to work out")
        result = 1
        for factor in range(int(value), 0, -step):
            result *= factor
        return Fraction(result)
    if step != 1:
        raise UndefinedError("a double factorial of a fraction")
    return MP.gamma(inexact(value) + 1)


def _binomial(over: Value, under: Value) -> Value:
    if isinstance(under, Fraction) and under.denominator == 1 and 0 <= under <= MAX_CHOSEN:
        result = Fraction(1)
        for index in range(int(under)):
            result = _checked(
                pair_of(
                    result,
                    pair_of(over - index, Fraction(index + 1), lambda x, y: x / y),
                    lambda x, y: x * y,
                )
            )
        return result
    if abs(inexact(under)) > MAX_CHOSEN:
        raise TooLargeError("a binomial too large to work out")
    return MP.binomial(inexact(over), inexact(under))


def _function(kind: str, a: list[Value]) -> Value:
    if kind in MANY:
        return _of_many(kind, a)
    if kind == "abs":
        return abs(a[0])
    if kind in ("floor", "ceil"):
        return _rounded(kind, a[0])
    if kind == "mod":
        if a[1] == 0 or not (isinstance(a[0], Fraction) and isinstance(a[1], Fraction)):
            raise UndefinedError("a remainder of this kind")
        return a[0] % a[1]
    if kind in ("ln", "log"):
        return _logarithm(a)
    return _of_one(kind, inexact(a[0]))


def _rounded(kind: str, value: Value) -> Fraction:
    """Return floor or ceiling; of a fraction exactly."""
    if isinstance(value, Fraction):
        return Fraction(math.floor(value) if kind == "floor" else math.ceil(value))
    if not _is_real(value):
        raise UndefinedError("rounding a complex number")
    if not MP.isfinite(value) or MP.mag(value) > MAX_BITS:
        raise TooLargeError("a number too large to work out")
    return Fraction(int(MP.floor(value) if kind == "floor" else MP.ceil(value)))


def _of_one(kind: str, value: Value) -> Value:
    if kind == "exp":
        _check_exponent(MP.e, value)
    if kind in ("arcsin", "arccos") and _is_real(value) and abs(value) > 1:
        raise UndefinedError("an inverse of a sine beyond 1")
    if abs(value) > 10**15:
        raise TooLargeError("a function of a large number")
    try:
        found = _FUNCTIONS[kind](value)
    except (ValueError, ZeroDivisionError) as error:
        raise UndefinedError(str(error)) from error
    return found


def _logarithm(a: list[Value]) -> Value:
    if any(value == 0 or (not isinstance(value, MP.mpc) and value < 0) for value in a):
        raise UndefinedError("a logarithm of zero or less")
    result = MP.ln(inexact(a[0]))
    if len(a) == 1:
        return result
    under = MP.ln(inexact(a[1]))
    if under == 0:
        raise UndefinedError("a logarithm to base 1")
    return result / under


def _of_many(kind: str, a: list[Value]) -> Value:
    if kind in ("max", "min"):
        return (max if kind == "max" else min)(a, key=inexact)
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in a):
        raise UndefinedError(f"{kind} of numbers that are not integers")
    numbers = [value.numerator for value in a]
    return Fraction(math.gcd(*numbers) if kind == "gcd" else math.lcm(*numbers))


def _is_real(value: Value) -> bool:
    return not isinstance(value, MP.mpc)
