"""Numbers as people write them: signs, thousands separators, e-notation, mixed numbers, units.

`read_number` reads a cleaned text that is a number and nothing else; `last_number_span` finds the
last one of a free text.
"""

import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from rloop.tasks.verifiers.formula import MAX_CHARS, Formula
from rloop.tasks.verifiers.latex import WORDS_CLOSE, WORDS_OPEN

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_SPAN = re.compile(
    rf"\\[dtc]?frac\s*\{{[^{{}}]*\}}\s*\{{[^{{}}]*\}}"
    rf"|(?:\d+[ ](?=\d+/\d))?(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{{1,4}})?"
    rf"(?:[ ]?/[ ]?{_DIGITS}(?:\.\d+)?)?(?:\s?\\?%|\s?percent\b)?"
)
_SIGN = re.compile(r"(?P<before>.?)(?P<space>\s*)-\s?(?:\\?[$\u20ac\u00a3]\s?)?$", re.DOTALL)


def last_number_span(text: str) -> tuple[int, int] | None:
    """Return where the last number of a text begins, its sign included, and where it ends.

    Examples: "costs $1,250.50." -> 1,250.50; "1 1/2"; "x = -5" -> -5; "10 - 5" -> 5; "50%".
    """
    found = deque(_SPAN.finditer(text), maxlen=1)
    if not found:
        return None
    start = found[0].start()
    before = text[max(0, start - 12) : start]
    sign = _SIGN.search(before)
    if sign is not None and _is_negative(before):
        start -= len(before) - sign.end("space")
    return start, found[0].end()


def first_number_span(text: str) -> tuple[int, int] | None:
    """Return where the first number of a text begins and ends."""
    found = _SPAN.search(text)
    return None if found is None else found.span()


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


_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_PLAIN = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_TIMES_TEN = r"(?:\\times|\\cdot|\*|x|X)\s*10\s*\^\s*(?:\{\s*([-+]?\d+)\s*\}|([-+]?\d+))"
_DECIMAL = re.compile(rf"([-+]?)\s*({_PLAIN})(?:[eE]([-+]?\d{{1,4}})|\s*{_TIMES_TEN})?")
_OVER = re.compile(
    rf"([-+]?)\s*(?:({_INTEGER})\s*)?"
    rf"(?:\\frac\s*\{{\s*(-?{_PLAIN})\s*\}}\s*\{{\s*(-?{_PLAIN})\s*\}}"
    rf"|(?<![\d.])(-?{_PLAIN})\s*/\s*(-?{_PLAIN}))"
)
_REPEATING = re.compile(
    r"([-+]?)\s*(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?|\(\s*(\d+)\s*\))"
)
_ELLIPSIS = re.compile(
    r"^(-?\d*\.\d*?)(\d{1,6}?)\2{2,}\s*\.\.\.$|^(-?\d*\.\d*?)(\d{2,6})\4+\s*\.\.\.$"
)
MAX_EXPONENT = 5000
_FUNCTION_WORDS = re.compile(
    r"\\[A-Za-z]+|_\{[^{}]*\}|_\w|\{[A-Za-z]+\}"
    r"|(?<![A-Za-z])(?:arcsin|arccos|arctan|sinh|cosh|tanh)(?![A-Za-z])"
)
_TRIGONOMETRY = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|(?<![A-Za-z\\])(?:sin|cos|tan)\b"
)
_PERCENT = re.compile(
    rf"(.*\S)\s*(?:%|{WORDS_OPEN}\s*(?:percent|%)\s*{WORDS_CLOSE}|\bpercent)", re.DOTALL
)
_DEGREES = re.compile(
    rf"(.*\S)\s*\^\s*\{{?\s*\\circ\s*\}}?\s*({WORDS_OPEN}?\s*[CF]?\s*{WORDS_CLOSE}?)", re.DOTALL
)
_MONEY = re.compile(rf"(-?)\s*{WORDS_OPEN}(usd|eur|gbp|jpy|inr){WORDS_CLOSE}\s*(.*\S)", re.DOTALL)
_PLAIN_UNIT = re.compile(
    r"(.*[\d})])(\s*)([A-Za-z]{2,}[A-Za-z /^{}\d.-]*|[A-Z]?[a-zA-Z]/[A-Za-z][\w^{}]*)"
)
_GLUED_UNITS = ("cm", "mm", "km", "kg", "mg", "ml", "mL", "ft", "lb", "lbs", "oz", "mph", "min")
_COMPOUNDS = ("m/s", "m/s^2", "m/s^{2}", "N/m", "J/K", "g/L", "W/m^2", "V/m", "g/mol", "km/h")


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRead:
    """A text that is a number. Example: "0.50" is Fraction(1, 2) with a half step of 0.005."""

    formula: Formula
    half_step: Fraction | None = None
    """Half of the last digit's place of a decimal number, None of any other."""


def read_number(text: str) -> NumberRead | None:
    r"""Return the number that a whole cleaned text is, None for anything more or less.

    Examples: "1,234"; "1.5 \times 10^{3}" and "1.5e3"; "1 1/2" and "2\frac{1}{3}" (mixed numbers);
    "0.1\overline{6}" is 1/6.
    """
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    found = _DECIMAL.fullmatch(text)
    if found:
        return _decimal_read(text, found)
    found = _OVER.fullmatch(text)
    if found:
        return _fraction_read(text, found)
    found = _REPEATING.fullmatch(_ELLIPSIS.sub(r"\1(\2)", text))
    if found is None:
        return None
    head, once, again = found[2] or "0", found[3], found[4] or found[5]
    value = Fraction(
        int(head + once + again) - int(head + once), (10 ** len(again) - 1) * 10 ** len(once)
    )
    return NumberRead(formula=_constant(text, "num", -value if found[1] == "-" else value))


def _decimal_read(text: str, found: re.Match[str]) -> NumberRead | None:
    digits = found[2].replace(",", "")
    exponent = int(found[3] or found[4] or found[5] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    scale = Fraction(10) ** exponent
    value = Fraction(digits if digits[-1] != "." else digits[:-1]) * scale
    value = -value if found[1] == "-" else value
    places = len(digits.partition(".")[2])
    if not places and found[3] is None:
        return NumberRead(formula=_constant(text, "num", value))
    half_step = scale / (2 * 10**places)
    return NumberRead(formula=_constant(text, "dec", value), half_step=half_step)


def _fraction_read(text: str, found: re.Match[str]) -> NumberRead | None:
    whole = Fraction((found[2] or "0").replace(",", ""))
    over = Fraction((found[3] or found[5]).replace(",", "").rstrip("."))
    under = Fraction((found[4] or found[6]).replace(",", "").rstrip("."))
    if under == 0 or (found[2] and not 0 < over < under):
        return None
    value = whole + over / under
    return NumberRead(formula=_constant(text, "num", -value if found[1] == "-" else value))


def _constant(text: str, kind: str, value: Fraction) -> Formula:
    return Formula(text, (kind, value))


def is_simple(formula: Formula) -> bool:
    """Whether a formula is a number with a factor (5 million) or a power of ten of one."""
    tree = formula.tree
    parts = [part[0] for part in tree[1:] if isinstance(part, tuple)]
    is_power = tree[0] == "pow" and parts == ["num", "num"]
    return is_power or (
        tree[0] in ("mul", "div", "neg") and set(parts) <= {"num", "dec"} and tree[0] != "div"
    )


def without_functions(text: str) -> str:
    """Blank commands, subscripts and names of functions, so that only words of text are left."""
    return _FUNCTION_WORDS.sub(" ", text)


def split_unit(text: str) -> tuple[str, str]:
    r"""Part a quantity into number and unit; ("", "") where no unit is written.

    Examples: "5 <cm>" with word brackets -> ("5", "<cm>"); "60^{\circ}" -> ("60", "degrees");
    "50%" -> ("50", "%"); "12 people" -> ("12", "people"); "5x" -> ("", "").
    """
    found = _PERCENT.fullmatch(text)
    if found:
        return found[1], "%"
    found = _DEGREES.fullmatch(text)
    if found and not _TRIGONOMETRY.search(found[1]):
        scale = re.sub(r"\W", "", found[2])
        return found[1], {"C": "celsius", "F": "fahrenheit"}.get(scale, "degrees")
    found = _MONEY.fullmatch(text)
    if found:
        return _money(found)
    place = text.find(WORDS_OPEN)
    if place > 0 and text[:place].strip():
        return text[:place].strip(), text[place:]
    found = _PLAIN_UNIT.fullmatch(text)
    if found and _may_be_unit(found[2], found[3]):
        return found[1], found[3]
    return "", ""


def _money(found: re.Match[str]) -> tuple[str, str]:
    head, unit = split_unit(found[3])
    if not head:
        head, unit = found[3], ""
    is_factor = re.match(r"\W*(?:hundred|thousand|million|billion|trillion|dozen)", unit)
    unit = f"{unit} {found[2]}" if is_factor else f"{found[2]} {unit}"
    return found[1] + head, unit.strip()


def _may_be_unit(space: str, unit: str) -> bool:
    """Whether letters right behind a number can be a unit, not variables."""
    if unit in _COMPOUNDS:
        return True
    first = re.match("[A-Za-z]+", unit)
    return (
        first is not None
        and len(first[0]) > 1
        and (bool(space) or len(first[0]) > 3 or first[0] in _GLUED_UNITS)
    )
