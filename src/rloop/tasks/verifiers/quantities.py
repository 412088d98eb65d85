"""Read a number or an expression with its unit, its factor (million) and its percent sign."""

import re
from collections.abc import Collection
from dataclasses import replace

from rloop.tasks.verifiers import latex, numbers
from rloop.tasks.verifiers.formula import Formula, NotReadError, read_formula
from rloop.tasks.verifiers.units import factor_of, read_unit
from rloop.tasks.verifiers.values import Quantity, Value

_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z_{])[A-Za-z]*[a-z]{4,}[A-Za-z]*")
_SHORT_WORDS = frozenset(
    "yes no odd even all any none red day may up on off true false not".split()  # noqa: SIM905
)
_NUMBER_WORDS = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()


def read_quantity(text: str, known: Collection[str]) -> Value | None:
    """Read a number or expression with its unit, factor (million) and percent sign."""
    head, unit = numbers.split_unit(text)
    if unit:
        value = _with_unit(head, unit, known)
        if value is not None or latex.WORDS_OPEN in text:
            return value
    number = numbers.read_number(text)
    if number is not None:
        return Quantity(number.formula, half_step=number.half_step)
    word = latex.words(text)
    if word in _NUMBER_WORDS:
        return Quantity(read_formula(str(_NUMBER_WORDS.index(word))))
    if text.startswith("[") and latex.closes_at_end(text):
        return None  # the integer part, in older books
    if text in _SHORT_WORDS or re.fullmatch("[a-z]{3,}", text):
        return None
    if _PLAIN_WORD.search(numbers.without_functions(text)):
        return None
    try:
        return Quantity(read_formula(text))
    except NotReadError:
        return None


def _with_unit(head: str, unit: str, known: Collection[str]) -> Value | None:
    first, _, rest = unit.strip().partition(" ")
    factor = factor_of(re.sub(r"[\u27e6\u27e7]", "", first), known)
    if factor is not None:
        base = read_quantity(head, known)
        if not isinstance(base, Quantity) or base.unit:
            return None
        tree = ("mul", base.formula.tree, ("num", factor))
        scaled = Formula(f"{base.formula.text} * {factor}", tree)
        step = base.half_step * factor if base.half_step is not None else None
        value: Quantity = Quantity(scaled, half_step=step)
        if not rest.strip():
            return value
        name = read_unit(rest, known)
        return None if name is None else replace(value, unit=name)
    name = "percent" if unit == "%" else read_unit(unit, known)
    if name is None:
        return None
    base = read_quantity(head, known)
    if not isinstance(base, Quantity) or (base.unit and name):
        return None
    return replace(base, unit=name or base.unit)
