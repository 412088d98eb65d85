"""Whether two answers are equal: structure first, then values, units and names."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rloop.tasks.verifiers.evaluate import (
    MP,
    RELATIVE,
    TooLargeError,
    UndefinedError,
    inexact,
    value_of,
)
from rloop.tasks.verifiers.formula import NotReadError, read_formula
from rloop.tasks.verifiers.formula_equality import constant_ratio, is_equal
from rloop.tasks.verifiers.values import (
    Based,
    Contradiction,
    Infinity,
    Matrix,
    Named,
    Quantity,
    Region,
    Relation,
    Several,
    Value,
    Words,
    as_region,
    describe,
)

EXACT = Fraction(1, 10**14)
"""How far, relative to the reference, a computer's rounding may be from a number that is exact."""
APPROXIMATE = Fraction(1_000_010, 10**12)
"""The same for one that they cannot (1/3, a root): a millionth, with 0.333333 for 1/3 within."""


MANY_DIGITS = 6
"""From so many significant digits on, a decimal reference is taken as rounded."""
NOISE_DIGITS = 14
"""From so many on, the last digits of an answer are a computer's rounding: 0.30000000000000004."""


def why_different(reference: Value, answer: Value) -> str:
    """Return why an answer is not equal to the reference, "" where it is.

    Which of the two is the reference matters for what may be left out (a unit, the name of a
    variable) and for how close a decimal number must come; never for structure.
    """
    reference, answer = _bare(reference, answer)
    if isinstance(answer, Contradiction):
        return "a contradiction"
    region = as_region(reference), as_region(answer)
    if region[0] and region[1] and (isinstance(reference, Region) or isinstance(answer, Region)):
        return _why_regions(region[0], region[1])
    return _why_other(reference, answer)


def _why_other(reference: Value, answer: Value) -> str:
    match reference, answer:
        case Quantity(), Quantity():
            return _why_quantities(reference, answer)
        case Several(), Several():
            return _why_several(reference, answer)
        case Named(), Named():
            return _why_named(reference, answer)
        case Relation(), Relation():
            return _why_relations(reference, answer)
        case Matrix(), Matrix():
            return _why_matrices(reference, answer)
        case (Infinity(), Infinity()) | (Based(), Based()):
            return "" if reference == answer else "another value"
        case Words(), Words():
            return "" if reference.text == answer.text else "other words"
    if type(reference) is type(answer):
        return "another value"
    return f"{describe(answer)} where the reference is {describe(reference)}"[:200]


def _bare(reference: Value, answer: Value) -> tuple[Value, Value]:
    """Take a name away that only one side has; a set and a list of one are their element."""
    if isinstance(reference, Named) and not isinstance(answer, Named | Relation):
        reference = reference.value
    elif isinstance(answer, Named) and not isinstance(reference, Named | Relation):
        answer = answer.value
    if isinstance(reference, Relation) and isinstance(answer, Named):
        answer = _as_relation(answer)
    elif isinstance(answer, Relation) and isinstance(reference, Named):
        reference = _as_relation(reference)
    return reference, answer


def _as_relation(value: Named) -> Value:
    """Return y = 3x - 2 as an equation, to compare it with y + 2 = 3x."""
    if not isinstance(value.value, Quantity):
        return value
    try:
        return Relation("=", read_formula(f"({value.name})-({value.value.formula.text})"))
    except NotReadError:
        return value


def _why_named(reference: Named, answer: Named) -> str:
    if reference == Named(_word(answer.value), Words(answer.name)):
        return ""
    left, right = _as_relation(reference), _as_relation(answer)
    are_relations = isinstance(left, Relation) and isinstance(right, Relation)
    if are_relations and not _why_other(left, right):
        return ""
    if reference.name != answer.name:
        return f"{answer.name} where the reference has {reference.name}"
    return why_different(reference.value, answer.value)


def _word(value: Value) -> str:
    return value.text if isinstance(value, Words) else ""


def _why_quantities(reference: Quantity, answer: Quantity) -> str:
    if answer.unit and reference.unit and answer.unit != reference.unit:
        return f"the unit {answer.unit} where the reference has {reference.unit}"
    try:
        return _why_values(reference, answer)
    except TooLargeError as error:
        return str(error)
    except UndefinedError:
        return "it has no value"


def _why_values(reference: Quantity, answer: Quantity) -> str:
    if reference.formula.symbols or answer.formula.symbols:
        if "percent" in (reference.unit, answer.unit) and reference.unit != answer.unit:
            return "percent"
        return "" if is_equal(reference.formula, answer.formula) else "not equal to the reference"
    is_literal = reference.half_step is not None or answer.half_step is not None
    if not is_literal and "percent" not in (reference.unit, answer.unit):
        same = is_equal(reference.formula, answer.formula)
        return "" if same else "not equal to the reference"
    wanted, found = value_of(reference.formula), value_of(answer.formula)
    for scale in _percent_scales(reference, answer, wanted):
        if _is_near(reference, answer, wanted, _product(found, scale)):
            return ""
    return "not equal to the reference"


def _percent_scales(reference: Quantity, answer: Quantity, wanted: Any) -> tuple[Fraction, ...]:  # noqa: ANN401
    """Return what the answer may be multiplied by: 50% is 0.5, and 50 where percent was asked."""
    one, hundred = Fraction(1), Fraction(100)
    if (reference.unit == "percent") == (answer.unit == "percent"):
        return (one,)
    if reference.unit == "percent":
        return (one, hundred)
    is_integer = isinstance(wanted, Fraction) and wanted.denominator == 1
    if not _is_real_number(wanted) or reference.unit:
        return ()
    if is_integer:
        return (one,)
    return (1 / hundred, one) if abs(wanted) > 1 else (1 / hundred,)


def _is_real_number(value: Any) -> bool:  # noqa: ANN401
    return not isinstance(value, MP.mpc)


def _product(value: Any, factor: Fraction) -> Any:  # noqa: ANN401
    if isinstance(value, Fraction):
        return value * factor
    return value * factor.numerator / factor.denominator


def _is_near(reference: Quantity, answer: Quantity, wanted: Any, found: Any) -> bool:  # noqa: ANN401
    """Whether two numbers are equal, as closely as the decimals among them let one tell."""
    if isinstance(wanted, Fraction) and isinstance(found, Fraction):
        gap, size = abs(wanted - found), abs(wanted)
        if gap == 0:
            return True
    else:
        exact = inexact(wanted)
        gap, size = abs(exact - inexact(found)), abs(exact)
        if gap <= size * RELATIVE:
            return True
    if reference.half_step is None and answer.half_step is None:
        return False
    if _is_exact(reference, wanted) and _num_digits(answer) < NOISE_DIGITS:
        return False
    is_integer = isinstance(wanted, Fraction) and wanted.denominator == 1
    if is_integer and gap * 1000 > 1:
        return False
    limit = _tolerance(reference, wanted)
    return bool(gap <= size * limit.numerator / limit.denominator) and _within_step(reference, gap)


def _tolerance(reference: Quantity, wanted: Any) -> Fraction:  # noqa: ANN401
    return EXACT if _is_exact(reference, wanted) else APPROXIMATE


def _is_exact(reference: Quantity, wanted: Any) -> bool:  # noqa: ANN401
    """Whether a decimal can say exactly what the reference is: 5, 1/4, 0.1; not 1/3 nor a root."""
    if not isinstance(wanted, Fraction):
        return False
    if _has_decimals(reference):
        return _num_digits(reference) < MANY_DIGITS
    rest = wanted.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _num_digits(value: Quantity) -> int:
    """Return how many significant digits a decimal gives; 0 for anything but one number."""
    if value.half_step is None or not isinstance(value.formula.tree[1], Fraction):
        return 0
    steps = abs(value.formula.tree[1]) / (2 * value.half_step)
    return len(str(int(steps)))


def _within_step(reference: Quantity, gap: Any) -> bool:  # noqa: ANN401
    """Whether the gap is within the last digit that a decimal reference gives."""
    step = reference.half_step
    return step is None or bool(inexact(gap) <= inexact(step))


def _has_decimals(value: Quantity) -> bool:
    return _holds_decimal(value.formula.tree)


def _holds_decimal(tree: tuple[Any, ...]) -> bool:
    return tree[0] == "dec" or any(_holds_decimal(p) for p in tree[1:] if isinstance(p, tuple))


def _why_several(reference: Several, answer: Several) -> str:
    kinds = {reference.kind, answer.kind}
    if len(kinds) > 1 and kinds != {"set", "list"}:
        return f"a {answer.kind} where the reference is a {reference.kind}"
    in_order = not kinds <= {"set", "list"}
    wanted, found = list(reference.parts), list(answer.parts)
    if "set" in kinds:
        wanted, found = _distinct(wanted), _distinct(found)
    if len(wanted) != len(found):
        return f"{len(found)} values where the reference has {len(wanted)}"
    if in_order or _have_names(wanted, found):
        pairs = zip(wanted, found, strict=True)
        return next((why for pair in pairs if (why := why_different(*pair))), "")
    return _why_unordered(wanted, found)


def _have_names(wanted: Sequence[Value], found: Sequence[Value]) -> bool:
    """Whether only one side says which value belongs to which of several names: x=1, y=2."""
    names = [{part.name for part in side if isinstance(part, Named)} for side in (wanted, found)]
    return any(len(n) > 1 for n in names) and not all(names)


def _distinct(values: Sequence[Value]) -> list[Value]:
    kept: list[Value] = []
    for value in values:
        if not any(
            type(value) is type(other) and why_different(other, value) == "" for other in kept
        ):
            kept.append(value)
    return kept


def _why_unordered(wanted: Sequence[Value], found: Sequence[Value]) -> str:
    left = list(found)
    for value in wanted:
        match = next((other for other in left if why_different(value, other) == ""), None)
        if match is None:
            return "one of the values is missing"
        left.remove(match)
    return ""


def _why_regions(reference: Region, answer: Region) -> str:
    if reference.name and answer.name and reference.name != answer.name:
        return f"{answer.name} where the reference has {reference.name}"
    if len(reference.pieces) != len(answer.pieces):
        return f"{len(answer.pieces)} intervals where the reference has {len(reference.pieces)}"
    left = list(answer.pieces)
    for piece in reference.pieces:
        match = next((other for other in left if _same_piece(piece, other)), None)
        if match is None:
            return "another interval"
        left.remove(match)
    return ""


def _same_piece(
    piece: tuple[Value, Value, bool, bool], other: tuple[Value, Value, bool, bool]
) -> bool:
    return (
        piece[2:] == other[2:]
        and why_different(piece[0], other[0]) == ""
        and why_different(piece[1], other[1]) == ""
    )


def _why_relations(reference: Relation, answer: Relation) -> str:
    if reference.sign != answer.sign:
        return "another sign of relation"
    try:
        ratio = constant_ratio(reference.difference, answer.difference)
    except TooLargeError as error:
        return str(error)
    if ratio is None or ratio == 0:
        return "another equation"
    if reference.sign in ("<", "<=") and not (_is_real_number(ratio) and ratio > 0):
        return "the inequality turned around"
    return ""


def _why_matrices(reference: Matrix, answer: Matrix) -> str:
    shapes = [(len(m.rows), len(m.rows[0])) for m in (reference, answer)]
    if shapes[0] != shapes[1]:
        return f"a matrix of {shapes[1]} where the reference has {shapes[0]}"
    pairs = [
        pair
        for rows in zip(reference.rows, answer.rows, strict=True)
        for pair in zip(*rows, strict=True)
    ]
    return next((why for pair in pairs if (why := why_different(*pair))), "")
