"""Numbers and structures as LaTeX or plain text, in the ways that people and models write them."""

import re
from fractions import Fraction
from random import Random

VULGAR = {
    Fraction(1, 2): "½", Fraction(1, 3): "⅓", Fraction(2, 3): "⅔", Fraction(1, 4): "¼",
    Fraction(3, 4): "¾", Fraction(1, 5): "⅕", Fraction(1, 8): "⅛",
}  # fmt: skip


def decimal(number: Fraction) -> str | None:
    """Return the exact decimal, without an exponent, or None where it does not end."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    digits = 0
    while (number * 10**digits).denominator != 1:
        digits += 1
    whole = str(abs(int(number * 10**digits))).rjust(digits + 1, "0")
    sign = "-" if number < 0 else ""
    return sign + (whole[:-digits] + "." + whole[-digits:] if digits else whole)


def repeating(number: Fraction) -> str | None:
    """Return a purely repeating decimal such as `0.\\overline{3}`; None for a period over 3."""
    whole, rest = divmod(abs(number), 1)
    for period in (1, 2, 3):
        block = rest * (10**period - 1)
        if block.denominator == 1 and rest:
            sign = "-" if number < 0 else ""
            return rf"{sign}{whole}.\overline{{{int(block):0{period}d}}}"
    return None


def fraction(number: Fraction, command: str = "frac", times: int = 1) -> str:
    """Return `\\frac{a}{b}` with the sign in front, top and bottom multiplied by `times`."""
    sign = "-" if number < 0 else ""
    top, bottom = abs(number.numerator) * times, number.denominator * times
    return rf"{sign}\{command}{{{top}}}{{{bottom}}}"


def grouped(number: int, separator: str) -> str:
    """Return the digits in groups of three."""
    return f"{number:,}".replace(",", separator)


def scientific(number: Fraction, times: str = r"\times", shift: int = 0) -> str | None:
    """Return `m \\times 10^{n}`, exact, with the mantissa in [1, 10) times 10 to the `shift`."""
    if number == 0:
        return None
    exponent = 0
    while abs(number) / Fraction(10) ** exponent >= 10:
        exponent += 1
    while abs(number) / Fraction(10) ** exponent < 1:
        exponent -= 1
    exponent -= shift
    mantissa = decimal(number / Fraction(10) ** exponent)
    return rf"{mantissa} {times} 10^{{{exponent}}}" if mantissa and len(mantissa) < 12 else None


def e_notation(number: Fraction, letter: str = "e") -> str | None:
    """Return `1.5e-3`."""
    text = scientific(number)
    found = text and re.fullmatch(r"(.+) \\times 10\^\{(.+)\}", text)
    return f"{found[1]}{letter}{found[2]}" if found else None


def mixed(number: Fraction) -> tuple[str, int, int, int] | None:
    """Return sign, whole, top and bottom of a mixed number such as 2 1/3."""
    whole, rest = divmod(abs(number), 1)
    if not whole or not rest:
        return None
    return ("-" if number < 0 else ""), int(whole), rest.numerator, rest.denominator


def polynomial(terms: list[tuple[int, int]], letter: str, *, brace: bool = False) -> str:
    """Return terms `(coefficient, power)` in the order given."""
    text = ""
    for coefficient, power in terms:
        size = abs(coefficient)
        exponent = f"{{{power}}}" if brace or power > 9 else str(power)
        front = "" if size == 1 and power else str(size)
        tail = "" if power == 0 else letter if power == 1 else f"{letter}^{exponent}"
        sign = "-" if coefficient < 0 else "+" if text else ""
        text += sign + front + tail
    return text


def matrix(rows: list[list[str]], kind: str = "pmatrix") -> str:
    """Return a LaTeX matrix."""
    body = r" \\ ".join(" & ".join(row) for row in rows)
    return rf"\begin{{{kind}}} {body} \end{{{kind}}}"


def shuffled(items: list[str], rng: Random) -> list[str] | None:
    """Return the items in another order, or None where there is none."""
    if len(set(items)) < 2:
        return None
    while True:
        others = rng.sample(items, len(items))
        if others != items:
            return others


BOXES = (
    r"\boxed{%s}", r"$\boxed{%s}$", r"So the answer is $\boxed{%s}$.", r"The answer is \boxed{%s}.",
    r"Therefore, the final answer is $\boxed{%s}$. I hope it is correct.", r"\[\boxed{%s}\]",
    "We get\n\\[\n\\boxed{%s}\n\\]", "Adding up, we find the result.\n\n$$\\boxed{%s}$$",
    "**Final Answer**\n\n\\boxed{%s}", r"Hence \(\boxed{%s}\).", r"This gives us \boxed{%s}",
    "Step 1: read the question.\nStep 2: work it out.\n\nThe final answer is: $\\boxed{%s}$",
)  # fmt: skip


def boxed(content: str, rng: Random) -> str:
    """Return a completion whose final answer, in a box, is the content."""
    return rng.choice(BOXES) % content
