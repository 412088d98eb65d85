r"""Whether two formulas are equal: everywhere, as far as points of every size and sign can tell.

Two formulas are equal when they have the same value: exactly, in fractions, where only rational
numbers are involved, so that 1 - 2^2012 differs from -2^2012; else to 50 digits, and where they
look equal again to 2,500. With variables they must agree at many points; a point at which one side
is undefined in the real numbers says nothing.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from hashlib import blake2b
from itertools import chain

from rloop.tasks.verifiers.evaluate import (
    MP,
    RELATIVE,
    TooLargeError,
    Value,
    evaluate,
    inexact,
    pair_of,
)
from rloop.tasks.verifiers.formula import Formula, Tree

_KINKED = ("abs", "floor", "ceil", "max", "min", "mod", "root")
_RANGES = tuple(
    (Fraction(low), Fraction(high))
    for low, high in (
        ("0.3", "0.95"), ("0.2", "0.9"), ("1.05", "2.5"), ("2", "9"), ("-1.9", "-0.2"),
        ("-9", "-2"), ("20", "90"), ("-90", "-20"), ("2000", "90000"), ("-90000", "-2000"),
    )
)  # fmt: skip
"""Where variables are tried."""
MIN_AGREED = 3
MANY_DIGITS = 2500
"""Digits to which two numbers that look equal are worked out again."""


def is_equal(left: Formula, right: Formula) -> bool:
    """Whether two formulas have the same value wherever both have one.

    TooLargeError where that cannot be worked out, UndefinedError where one has no value at all.
    """
    if left.tree == right.tree:
        return True
    symbols = sorted(left.symbols | right.symbols)
    if not symbols:
        return _are_equal_constants(left.tree, right.tree)
    agreed = 0
    trees = (left.tree, right.tree)
    has_sides = any(_holds(tree, "abs") for tree in trees)
    kinks = any(_holds(tree, kind) for tree in trees for kind in _KINKED)
    for point in chain(_points(symbols), _near(trees, symbols) if kinks else ()):
        values = [_value_at(tree, point) for tree in trees]
        if None in values:
            # sqrt(xy) and sqrt(x) sqrt(y) are taken for one; |x| and sqrt(x)^2 are not.
            if has_sides and values != [None, None]:
                return False
            continue
        if not _close(*values):
            return False
        agreed += 1
    return agreed >= MIN_AGREED


def _near(trees: tuple[Tree, Tree], symbols: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield points around the numbers of the trees, where |x - c| turns, and powers of ten."""
    numbers = {abs(n) for tree in trees for n in _numbers(tree)} | {
        Fraction(10**k) for k in (3, 6, 9)
    }
    for number in sorted(numbers)[:12]:
        for value in (number - 1, number + 1, -number - 1, 1 - number, number + Fraction(1, 3)):
            yield {name: value + index * Fraction(1, 7) for index, name in enumerate(symbols)}


def _numbers(tree: Tree) -> Iterator[Fraction]:
    if tree[0] in ("num", "dec"):
        yield tree[1]
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from _numbers(part)


def _value_at(tree: Tree, point: Mapping[str, Fraction]) -> Value | None:
    try:
        return evaluate(tree, point)
    except ArithmeticError:
        return None


def _holds(tree: Tree, kind: str) -> bool:
    return tree[0] == kind or any(
        _holds(part, kind) for part in tree[1:] if isinstance(part, tuple)
    )


def _are_equal_constants(left: Tree, right: Tree) -> bool:
    values = evaluate(left, {}), evaluate(right, {})
    if not _close(*values):
        return False
    if all(isinstance(value, Fraction) for value in values):
        return True
    # 10^100 + sqrt(2) and 10^100 + sqrt(3) agree to 100 digits, and sums may cancel.
    with MP.workdps(MANY_DIGITS):
        exact = [inexact(evaluate(tree, {})) for tree in (left, right)]
        size = max(abs(value) for value in exact)
        if not MP.isfinite(size) or size > MP.mpf(10) ** (MANY_DIGITS // 2):
            raise TooLargeError("a number too large to work out")
        return bool(abs(exact[0] - exact[1]) <= MP.mpf(10) ** -1600 * size)


def constant_ratio(left: Formula, right: Formula) -> Value | None:
    """Return c where left = c * right at every point, None where there is no such number."""
    ratio, agreed = None, 0
    for point in _points(sorted(left.symbols | right.symbols)):
        try:
            over, under = evaluate(left.tree, point), evaluate(right.tree, point)
        except ArithmeticError:
            continue
        if under == 0 or over == 0:
            if over != under:
                return None
            continue
        found = pair_of(over, under, lambda x, y: x / y)
        if ratio is not None and not _close(ratio, found):
            return None
        ratio, agreed = found, agreed + 1
    return ratio if agreed >= MIN_AGREED else None


def _close(left: Value, right: Value) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    if isinstance(left, Fraction) or isinstance(right, Fraction):
        left, right = inexact(left), inexact(right)
    scale = max(abs(left), abs(right))
    if not MP.isfinite(scale):
        return bool(left == right)
    return bool(abs(left - right) <= RELATIVE * scale)


def _points(symbols: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield values for every variable: integers, small and large ones, of both signs."""
    for index, (low, high) in enumerate(_RANGES):
        point = {}
        for name in symbols:
            digest = blake2b(f"{index}/{name}".encode(), digest_size=4).digest()
            share = Fraction(int.from_bytes(digest, "big") % 9973, 9973)
            value = low + share * (high - low)
            is_mixed = index % 2 == 1 and index > 4 and digest[0] % 2
            point[name] = -value if is_mixed else value
        yield point
    for square in (4, 9, 16):  # where the root of an integer is one
        yield dict.fromkeys(symbols, Fraction(square))
    for shift in (0, 1, 7):
        yield {name: Fraction(2 + shift + sum(name.encode()) % 7) for name in symbols}
