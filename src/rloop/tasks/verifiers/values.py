r"""What an answer is: a quantity, a tuple, an interval, an equation, a word."""

from dataclasses import dataclass
from fractions import Fraction

from rloop.tasks.verifiers.formula import Formula


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or an expression, perhaps with a unit. Example: 5 cm is ("5", unit "cm")."""

    formula: Formula
    unit: str = ""
    half_step: Fraction | None = None
    """Half of the last digit's place where it is one decimal number, None elsewhere."""


@dataclass(frozen=True, slots=True)
class Infinity:
    """Plus or minus infinity."""

    is_negative: bool


@dataclass(frozen=True, slots=True)
class Several:
    """Values side by side: a list or a set in any order, a tuple or a bracketed list in its own."""

    kind: str
    """`list` (no brackets), `set`, `tuple` (parentheses), `brackets`, `angles`, `ratio`."""
    parts: tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A union of intervals. Example: [0,1) is one piece (0, 1, False, True): ends, then open?"""

    pieces: tuple[tuple["Value", "Value", bool, bool], ...]
    name: str = ""
    """The variable where it was written as an inequality."""


@dataclass(frozen=True, slots=True)
class Named:
    """A value with the name of what it is the value of. Example: x = 5."""

    name: str
    value: "Value"


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality between expressions: left - right, and `=`, `<`, `<=` or `!=`."""

    sign: str
    difference: Formula


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a stated base. Example: 2516_8."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is compared whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that has no value: 3 = 5."""

    text: str


Value = (
    Quantity
    | Infinity
    | Several
    | Region
    | Named
    | Relation
    | Matrix
    | Based
    | Words
    | Contradiction
)

_NOUNS: dict[type, str] = {
    Quantity: "an expression", Infinity: "infinity", Region: "an interval", Named: "an equation",
    Relation: "an equation or inequality", Matrix: "a matrix", Based: "a number in a stated base",
    Words: "words", Contradiction: "a contradiction",
}  # fmt: skip


def describe(value: Value) -> str:
    """Return a value as a page shows it. Example: "a tuple of 2"."""
    if isinstance(value, Several):
        return f"a {value.kind} of {len(value.parts)}: {'; '.join(map(describe, value.parts))}"
    if isinstance(value, Quantity):
        unit = f" with the unit {value.unit}" if value.unit else ""
        noun = "a number" if value.formula.is_number else "an expression"
        return f"{noun} {value.formula.text}{unit}"
    if isinstance(value, Named):
        return f"{value.name} = {describe(value.value)}"
    if isinstance(value, Words):
        return f"words {value.text!r}"
    if isinstance(value, Region):
        return "an interval" if len(value.pieces) == 1 else f"{len(value.pieces)} intervals"
    return _NOUNS[type(value)]


def is_end(value: Value) -> bool:
    """Whether a value may be the end of an interval."""
    return isinstance(value, Quantity | Infinity)


def as_region(value: Value | None) -> Region | None:
    """Return an interval as it is, a pair as an open one, a set of points as closed pieces."""
    if isinstance(value, Region):
        return value
    if isinstance(value, Several) and value.kind == "tuple" and len(value.parts) == 2:
        left, right = value.parts
        if is_end(left) and is_end(right):
            return Region(((left, right, True, True),))
    if isinstance(value, Several) and value.kind == "set" and all(map(is_end, value.parts)):
        return Region(tuple((part, part, False, False) for part in value.parts))
    return None
