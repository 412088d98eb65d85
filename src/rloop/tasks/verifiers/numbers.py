"""Numbers as people write them: signs, thousands separators, currency, fractions, percent."""

import re
from collections import deque
from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext

from rloop.tasks.verifiers.answers import with_ascii_numbers

_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*\{\s*(-?)\s*([\d,.]+)\s*\}\s*\{\s*([\d,.]+)\s*\}")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"(?:(?P<whole>\d+)[ ](?=\d+/\d))?"
    rf"(?P<value>(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{{1,4}})?)"
    rf"(?:[ ]?/[ ]?(?P<over>{_DIGITS}(?:\.\d+)?))?"
    r"(?P<percent>\s?\\?%|\s?percent\b)?"
)
_SIGN = re.compile(r"(?P<before>.?)(?P<space>\s*)-\s?(?:\\?[$\u20ac\u00a3]\s?)?$", re.DOTALL)
PRECISION_DIGITS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number found in a text. Example: Number(text="1,250", value=Decimal(1250), percent=False).

    A fraction over zero has the value None.
    """

    text: str
    value: Decimal | None
    percent: bool


def last_number(text: str) -> Number | None:
    """Return the last number of a text, None where it has none.

    Examples: "costs $1,250.50." -> 1250.50; "3/4" -> 0.75; "1 1/2" -> 1.5; "x = -5" -> -5;
    "10 - 5" -> 5; "50%" -> 50 with the percent sign kept.
    """
    text = _LATEX_FRACTION.sub(r"\1 \2/\3", with_ascii_numbers(text))
    found = deque(_NUMBER.finditer(text), maxlen=1)
    return _number(found[0], text) if found else None


def whole_number_text(text: str) -> Number | None:
    """Return the number that the whole text is, None for anything more or less."""
    text = with_ascii_numbers(text).strip()
    match = _NUMBER.fullmatch(text.removeprefix("-").strip())
    return None if match is None else last_number(text)


def _number(match: re.Match[str], text: str) -> Number:
    negative = _is_negative(text[max(0, match.start() - 12) : match.start()])
    with localcontext() as context:
        context.prec = PRECISION_DIGITS
        try:
            value = _decimal(match["value"])
            if match["over"]:
                value /= _decimal(match["over"])
            if match["whole"]:
                value += _decimal(match["whole"])
        except (InvalidOperation, DivisionByZero):
            return Number(text=match.group(), value=None, percent=False)
    sign = "-" if negative else ""
    return Number(
        text=sign + match.group().strip(),
        value=-value if negative else value,
        percent=match["percent"] is not None,
    )


def _decimal(digits: str) -> Decimal:
    return Decimal(digits.replace(",", ""))


def _is_negative(before: str) -> bool:
    """Whether a minus sign before a number is its sign: not in "10 - 5", "10 -5" nor "n-5"."""
    sign = _SIGN.search(before)
    if sign is None:
        return False
    head = before[: sign.start("space")]
    if not head:
        return True
    last = head[-1]
    if last.isdigit() or last in ")]}":
        return False
    return bool(sign["space"]) or not last.isalnum()
