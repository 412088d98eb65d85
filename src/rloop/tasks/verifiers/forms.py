r"""A reference in other forms, as a policy may write it: what a verifier must accept as well.

That a reference equals itself proves nothing: a number misread on both sides does too.
"""

import re
from fractions import Fraction

from rloop.tasks.verifiers.echo import is_unworked
from rloop.tasks.verifiers.latex import clean
from rloop.tasks.verifiers.numbers import read_number, split_unit
from rloop.tasks.verifiers.units import CHANGES, FACTORS

_WORD = r"(?:-?\d+(?:\.\d+)?|[A-Z]|[A-Za-z]{2,}(?:-[A-Za-z]{2,})*)"
_NUMBERS_AND_WORDS = re.compile(rf"{_WORD}(?: {_WORD})*")
"""What \\text{} may hold: 2k and x - 3 are formulas."""
MAX_DIGITS = 15
"""Longer decimals are not written out."""


def other_forms(verifier: str, reference: str, question: str = "") -> tuple[str, ...]:
    r"""Return completions that give the reference in other words; none for verifiers of others.

    A form that the question asks to work out is left out: 3/20 for 0.15 in "Write 3/20 as decimal".

    Example: ("math", "0.5") -> "\boxed{0.5.}", "The answer is $0.5$.", "\boxed{\frac{1}{2}}", ...
    """
    if verifier == "choice":
        letters = reference.strip(" ().")
        return (
            f"The answer is {letters}.",
            rf"\boxed{{\text{{{letters}}}}}",
            f"<answer>{letters}</answer>",
        )
    if verifier == "exact":
        return (
            (rf"\boxed{{{reference}}}", f"<answer>{reference}</answer>")
            if "{" not in reference
            else ()
        )
    if verifier not in ("math", "numeric") or r"\boxed" in reference:
        return ()
    forms = [rf"\boxed{{{reference}.}}", f"<answer>{reference}</answer>"]
    if not re.search(r"[$\n?!]|\\[\[(]", reference):
        forms.append(f"The answer is ${reference}$.")
    if _NUMBERS_AND_WORDS.fullmatch(reference):
        forms.append(rf"\boxed{{\text{{{reference}}}}}")
    numbers = [n for n in _number_forms(reference) if not is_unworked(reference, n, question)]
    return (*forms, *(rf"\boxed{{{number}}}" for number in numbers))


def _number_forms(reference: str) -> list[str]:
    """Return a number as a fraction, as a decimal and in scientific notation, where it has them."""
    text = clean(reference)
    head, unit = split_unit(text)
    changes = {*CHANGES, *FACTORS, "times"}.intersection(re.findall("[a-z]+", unit.casefold()))
    is_unit = re.fullmatch(r"[^\d(:]+(?:\^\{?-?\d\}?[^\d(:]*)*", unit) and not changes
    number = read_number(head if is_unit else text)
    if number is None or not isinstance(number.formula.tree[1], Fraction):
        return []
    value: Fraction = number.formula.tree[1]
    forms = []
    if value.denominator != 1 and max(abs(value.numerator), value.denominator) < 10**MAX_DIGITS:
        forms.append(rf"\frac{{{value.numerator}}}{{{value.denominator}}}")
    digits, exponent = _scientific(value)
    if digits is not None and value and number.half_step is not None:
        forms.append(rf"{digits} \times 10^{{{exponent}}}")
    if digits is not None and abs(exponent) < MAX_DIGITS and value:
        forms.append(_decimal(value))
    return forms


def _scientific(value: Fraction) -> tuple[str | None, int]:
    """Return mantissa and exponent where the mantissa has few digits, (None, 0) elsewhere."""
    if value == 0:
        return None, 0
    exponent = 0
    size = abs(value)
    while size >= 10:
        size, exponent = size / 10, exponent + 1
    while size < 1:
        size, exponent = size * 10, exponent - 1
    scaled = size * 10**MAX_DIGITS
    if scaled.denominator != 1:
        return None, 0
    whole, rest = divmod(int(scaled), 10**MAX_DIGITS)
    part = str(rest).zfill(MAX_DIGITS).rstrip("0")
    return ("-" if value < 0 else "") + str(whole) + (f".{part}" if part else ""), exponent


def _decimal(value: Fraction) -> str:
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(value * 10**places))).zfill(places + 1)
    text = f"{digits[:-places]}.{digits[-places:]}" if places else f"{digits}.0"
    return "-" + text if value < 0 else text
