r"""`numeric`: the last number of the completion against the reference.

The last number is looked for in the last \boxed{}, else on the line after the last "####", else in
the whole text. Integers must be equal; other numbers may differ by 1e-6 of the reference, at least
1e-6. A percent sign may be read either way: 50% equals 50 and 0.5.
"""

from decimal import Decimal

from rloop.tasks.verifiers.answers import last_box
from rloop.tasks.verifiers.numbers import Number, last_number, whole_number_text
from rloop.types import Problem, Verdict

TOLERANCE = Decimal("1e-6")


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the completion's last number with the reference."""
    reference = whole_number_text(problem.answer) or last_number(problem.answer)
    if reference is None or reference.value is None:
        return Verdict(kind="error", reason=f"reference {problem.answer!r} is not a number")
    found = final_number(text)
    if found is None:
        return Verdict(kind="wrong", reason="no number in the completion")
    if found.value is None:
        return Verdict(kind="wrong", reason="a division by zero", answer=found.text[:200])
    if any(_is_equal(a, b) for a, b in _readings(found, reference)):
        return Verdict(kind="correct", answer=found.text[:200])
    return Verdict(kind="wrong", reason="another number", answer=found.text[:200])


def final_number(text: str) -> Number | None:
    """Return the number a completion ends on: in its last box, after "####", or its last one."""
    box, _ = last_box(text)
    _, marker, tail = text.rpartition("####")
    line = tail.strip().partition("\n")[0] if marker else ""
    for part in (box or "", line, text):
        number = last_number(part)
        if number is not None:
            return number
    return None


def _readings(found: Number, reference: Number) -> list[tuple[Decimal, Decimal]]:
    """Return the pairs to compare: 50% is 50 or 0.5, but never both at once."""
    if found.value is None or reference.value is None:
        return []
    pairs = [(found.value, reference.value)]
    if found.percent != reference.percent:
        part = Decimal(100)
        pairs.append(
            (found.value / part, reference.value)
            if found.percent
            else (found.value, reference.value / part)
        )
    return pairs


def _is_equal(value: Decimal, reference: Decimal) -> bool:
    if value == reference:
        return True
    if _is_integer(value) and _is_integer(reference):
        return False
    return abs(value - reference) <= TOLERANCE * max(Decimal(1), abs(reference))


def _is_integer(value: Decimal) -> bool:
    return value == value.to_integral_value()
