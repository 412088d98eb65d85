"""Read a number or an expression with its unit, factor (million) and percent sign, and names: what
may stand on the left of an equation as the name of its value (x, f(x), P(A), |z|).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from rloop.tasks.verifiers import latex, numbers
from rloop.tasks.verifiers.formula import Formula, NotReadError, read_formula
from rloop.tasks.verifiers.units import CHANGES, factor_of, read_unit
from rloop.tasks.verifiers.values import Quantity, Value

NAME = r"(?:\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?'*(?:\((?:[A-Za-z]|-?\d+)(?:,\s*[A-Za-z])*\))?)"
IS_NAME = re.compile(NAME)
_QUANTITY_NAME = re.compile(
    r"\\angle\s*[A-Z]+|\[[A-Z]{3,}\]|\|[A-Za-z]\||[A-Z]{2,}|\\(?:sin|cos|tan)\s*(?:\\[a-z]+"
    r"|[A-Za-z])"
    r"|[A-Za-z]\^\{-1\}\([a-z]\)|[A-Za-z]\((?:[^()]|\([^()]*\))*\)|\\frac\{[a-z]\}\{[a-z]\}"
    r"|\\overline\{[A-Z]+\}|[A-Za-z](?:\s*\+\s*[A-Za-z])+"
)
"""What an equation may have on its left as the name of a value: P(A), |z|, angle ABC, m + n."""
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


def is_free_name(side: str, others: Sequence[str]) -> bool:
    """Whether a side is a variable (or words) that the other sides do not hold."""
    bare = side.strip()
    if bare.startswith(latex.WORDS_OPEN) and bare.count(latex.WORDS_OPEN) == 1:
        names = bare[1:-1].casefold().split()
        return bare.endswith(latex.WORDS_CLOSE) and not CHANGES.intersection(names)
    if _QUANTITY_NAME.fullmatch(bare):
        return True
    if not IS_NAME.fullmatch(bare) or bare in ("e", "i", r"\pi", r"\infty", r"\emptyset"):
        return False
    letter = re.escape(bare.partition("(")[0])
    return not any(re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", other) for other in others)


def spelled(name: str) -> str:
    """Return a name in one spelling, to compare it with another."""
    if name.startswith(latex.WORDS_OPEN):
        return latex.words(name)
    return re.sub(r"[{}\s]", "", name)
