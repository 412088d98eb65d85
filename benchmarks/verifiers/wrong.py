"""Rules that turn a reference into a wrong answer: wrong by construction."""


# ruff: noqa: E501, UP031 (rows of tables)
# fmt: off

import re
from collections.abc import Callable
from fractions import Fraction
from random import Random

import writing
from references import Reference, value
from rules import Rules

RULES = Rules()
content, table = RULES.content, RULES.table

NUMBERS = ("integer", "decimal", "scientific", "fraction")
RELATIONS = ("<", ">", r"\le", r"\ge", r"\ne")
MARKED = ("percent", "money", "degrees")


def written(number: Fraction, rng: Random) -> str:
    """Return a number as an integer or a decimal where exact, as a fraction otherwise."""
    exact = writing.decimal(number)
    if exact and len(exact) < 12 and rng.random() < 0.7:
        return exact
    if exact and "." not in exact:
        return (abs(number) >= 1000 and writing.scientific(number)) or exact
    short = number.denominator < 10**5
    return writing.fraction(number) if short else writing.scientific(number) or exact or str(number)


def _int(ref: Reference) -> int:
    return int(ref.parts)


def _bare(ref: Reference) -> str:
    return writing.decimal(ref.parts) or ref.answer


# Numbers ------------------------------------------------------------------------------------------


@content(NUMBERS, "other sign")
def _sign(ref: Reference, rng: Random) -> str | None:
    return written(-ref.parts, rng) if ref.parts else None


@content(NUMBERS, "ten times, a hundred times, a tenth")
def _magnitude(ref: Reference, rng: Random) -> str | None:
    return written(ref.parts * rng.choice([10, Fraction(1, 10), 1000, Fraction(1, 1000)]), rng) if ref.parts else None


@content(("decimal", "fraction"), "hundred times, as if percent")
def _hundred(ref: Reference, rng: Random) -> str | None:
    return written(ref.parts * 100, rng) if ref.parts else None


@content(NUMBERS, "reciprocal")
def _reciprocal(ref: Reference, rng: Random) -> str | None:
    return writing.fraction(1 / ref.parts) if abs(ref.parts) != 1 and ref.parts and ref.parts.denominator < 10**6 and abs(ref.parts) < 10**6 else None


@content(("integer", "decimal"), "squared")
def _squared(ref: Reference, rng: Random) -> str | None:
    return f"{ref.answer}^2" if ref.parts > 1 else None


@content("integer", "off by one")
def _off_by_one(ref: Reference, rng: Random) -> str:
    return str(_int(ref) + rng.choice([-1, 1]))


@content("integer", "one digit changed")
def _digit(ref: Reference, rng: Random) -> str | None:
    place = rng.randrange(len(ref.answer))
    if not ref.answer[place].isdigit():
        return None
    digit = rng.choice([d for d in "123456789" if d != ref.answer[place]])
    return ref.answer[:place] + digit + ref.answer[place + 1 :]


@content(("decimal", "scientific"), "one digit changed")
def _decimal_digit(ref: Reference, rng: Random) -> str | None:
    mantissa, _, exponent = ref.answer.partition("e")
    places = [i for i, char in enumerate(mantissa) if char.isdigit()][:3]
    place = rng.choice(places)
    digit = str((int(mantissa[place]) + rng.randint(3, 6)) % 10)
    changed = mantissa[:place] + digit + mantissa[place + 1 :]
    if value(changed) == value(mantissa):
        return None
    return rf"{changed} \times 10^{{{exponent}}}" if exponent else changed


@content("integer", "digits swapped")
def _digits_swapped(ref: Reference, rng: Random) -> str | None:
    digits = list(ref.answer.lstrip("-"))
    if len(digits) < 2:
        return None
    place = rng.randrange(len(digits) - 1)
    digits[place], digits[place + 1] = digits[place + 1], digits[place]
    number = ("-" if ref.parts < 0 else "") + "".join(digits)
    return number if int(number) != _int(ref) and digits[0] != "0" else None


@content("integer", "digit more or less")
def _digit_count(ref: Reference, rng: Random) -> str | None:
    more = ref.answer + rng.choice("0123456789")
    less = ref.answer[:-1]
    text = rng.choice([more, less]) if value(less) is not None else more
    return text if int(text) != _int(ref) else None


table("integer", {
    "factorial": lambda r, g: rf"{r.answer}!" if _int(r) > 2 else None,
    "another base": lambda r, g: rf"{r.answer}_{g.choice([8, 6, 9, 5])}" if _int(r) > 9 and not set(r.answer) - set("01234") else None,
    "base two to four": lambda r, g: rf"{r.answer}_2" if len(r.answer) > 1 and not set(r.answer) - set("01") else None,
    "million, thousand or dozen after the number": lambda r, g: r.answer + g.choice([r"\text{ million}", " million", r"\text{ thousand}", r" \text{ billion}", r"\text{ dozen}", r"\text{ hundred}", " hundred"]) if _int(r) else None,
    "letter after the number": lambda r, g: r.answer + g.choice("xnyab") if _int(r) else None,
    "power of a letter": lambda r, g: rf"{g.choice('xny')}^{{{r.answer}}}",
    "letter added": lambda r, g: g.choice(["%s + x", "x - %s", "%s + k", "%s + 2n"]) % r.answer,
    "i after the number": lambda r, g: r.answer + "i" if _int(r) else None,
    "pi after the number": lambda r, g: r.answer + r"\pi" if _int(r) else None,
    "under a root": lambda r, g: rf"\sqrt{{{r.answer}}}" if _int(r) > 1 else None,
    "exponent of ten": lambda r, g: rf"10^{{{r.answer}}}",
    "plus or minus": lambda r, g: rf"\pm {r.answer}" if _int(r) else None,
    "with a tolerance": lambda r, g: rf"{r.answer} \pm {g.randint(1, 9)}",
    "two candidates": lambda r, g: g.choice([r"%s \text{ or } %s", "%s, %s", r"%s \lor %s", r"%s \text{ and } %s", "%s or %s"]) % tuple(g.sample([r.answer, str(_int(r) + g.randint(1, 9))], 2)),
    "many candidates": lambda r, g: ", ".join(str(n) for n in range(max(0, _int(r) - g.randint(2, 5)), _int(r) + g.randint(2, 5))) if 0 < _int(r) < 1000 else None,
    "set that holds the answer": lambda r, g: rf"\{{{r.answer}, {_int(r) + g.randint(1, 5)}\}}",
    "range of candidates in a set": lambda r, g: rf"\{{0, 1, 2, \ldots, {_int(r) + g.randint(1, 100)}\}}" if _int(r) > 3 else None,
    "interval that holds the answer": lambda r, g: g.choice(["[%s, %s]", "(%s, %s)", "[%s, %s)"]) % (_int(r) - g.randint(1, 9), _int(r) + g.randint(1, 9)),
    "inequality": lambda r, g: g.choice([r"x \ge %s", "x > %s", r"\ge %s", r"n \le %s", "< %s", r"\leq %s", r"x \ne %s", r"\neq %s", r"\text{at least } %s", r"\text{at most } %s", r"\text{more than } %s"]) % r.answer,
    "negated in the box": lambda r, g: g.choice([r"\text{not } %s", "not %s", r"\neg %s", r"\text{anything but } %s"]) % r.answer,
    "equation that is false": lambda r, g: g.choice(["{w} = {a}", "{a} = {w}", "{w} = {a} = {v}", "x = {w} = {a}", "{w}={v}={a}", "x = {a} = {w}"]).format(a=r.answer, w=_int(r) + g.randint(1, 9), v=_int(r) - g.randint(1, 9)),
    "two values for one letter": lambda r, g: g.choice([r"x = %s \text{ or } x = %s", "x = %s, y = %s", "x=%s, x=%s"]) % (r.answer, _int(r) + g.randint(1, 9)),
    "condition that is open": lambda r, g: rf"{r.answer} \text{{ if }} x > 0, \text{{ otherwise }} {_int(r) + 1}",
    "remainder and modulus swapped": lambda r, g: rf"{_int(r) + 1} \pmod{{{r.answer}}}" if _int(r) > 2 else None,
    "answer inside a bigger expression": lambda r, g: g.choice([r"%s + 1", r"2 \cdot %s", "%s - 3", r"\frac{%s}{2}", r"\frac{1}{2} + %s"]) % r.answer if _int(r) > 0 else None,
    "number in a sum with letters": lambda r, g: rf"\sum_{{n=1}}^{{{r.answer}}} n" if _int(r) > 1 else None,
    "decimals that round to it": lambda r, g: g.choice([f"{_int(r)}.3", f"{_int(r) - 1}.6" if _int(r) > 1 else f"{_int(r)}.4", f"{_int(r)}.05"]),
    "zero": lambda r, g: g.choice(["0", "0.0", "-0"]) if _int(r) else None,
    "infinity or undefined": lambda r, g: g.choice([r"\infty", r"\text{undefined}", "nan", "NaN", "inf", r"-\infty", r"\text{DNE}", "None", r"\text{no solution}", r"\emptyset"]) if _int(r) else None,
})

WILDCARDS = (
    "x", "n", "?", "", r"\text{answer}", "ANSWER", r"\text{the answer}", r"\text{correct}", r"\text{any number}",
    r"\mathbb{R}", r"\mathbb{N}", r"\cdot", r"\ldots", "*", ".*", r"\_\_\_", "...", "[answer]", r"\text{True}",
    "True", r"\text{see above}", r"\text{all of the above}", "a", r"x \in \mathbb{R}", r"(-\infty, \infty)", r"\square",
    r"\text{(your answer)}", r"\text{the correct answer is here}", "{}", r"\{\}", "()", r"\text{}", "!", "=", "1=1",
    "x = x", r"\text{final answer}", "X", r"\bigstar", r"\phantom{5}", r"\text{reference}", "$$", r"\boxed{}", "%s" % "\\\\",
)


@content((*NUMBERS, "tuple", "root", "pi", "interval", "polynomial", "matrix"), "wildcard or nothing in the box")
def _wildcard(ref: Reference, rng: Random) -> str | None:
    text = rng.choice(WILDCARDS)
    letters = ref.extra.get("letter")
    return text if text not in (ref.answer, letters) and "infty" not in ref.answer else None


table("decimal", {
    "another unit of magnitude": lambda r, g: r.answer + g.choice([r"\text{ million}", r" \times 10^3", r"\text{ thousand}", " billion", r"\times 10^{-2}"]) if r.parts else None,
    "rounded to one digit": lambda r, g: f"{float(r.parts):.1g}" if abs(Fraction(f"{float(r.parts):.1g}") / r.parts - 1) > Fraction(1, 50) else None,
    "cut off to an integer": lambda r, g: str(int(r.parts)) if abs(int(r.parts) / r.parts - 1) > Fraction(1, 50) else None,
    "two candidates": lambda r, g: g.choice([r"%s \text{ or } %s", "%s, %s", r"%s \text{ and } %s"]) % (r.answer, written(r.parts + 1, g)),
    "inequality": lambda r, g: g.choice([r"x \ge %s", "> %s", r"\text{at least } %s", r"\text{less than } %s"]) % r.answer,
    "letter after the number": lambda r, g: r.answer + g.choice(["x", "n", r"\pi", "i"]) if r.parts else None,
})
table("fraction", {
    "top off by one": lambda r, g: writing.fraction(Fraction(r.parts.numerator + g.choice([1, -1]), r.parts.denominator)) if abs(r.parts.numerator) > 1 else None,
    "bottom off by one": lambda r, g: writing.fraction(Fraction(r.parts.numerator, r.parts.denominator + 1)),
    "decimal with two places": lambda r, g: f"{float(r.parts):.2f}" if Fraction(f"{float(r.parts):.2f}") != r.parts and abs(Fraction(f"{float(r.parts):.2f}") / r.parts - 1) > Fraction(1, 2000) else None,
    "top alone": lambda r, g: str(r.parts.numerator),
    "bottom alone": lambda r, g: str(r.parts.denominator) if r.parts != r.parts.denominator else None,
    "top and bottom as a pair": lambda r, g: g.choice(["(%d, %d)", "%d, %d"]) % (r.parts.numerator, r.parts.denominator),
    "mixed number with another whole": lambda r, g: r"%s%d\frac{%d}{%d}" % (m[0], m[1] + 1, *m[2:]) if (m := writing.mixed(r.parts)) else None,
    "whole part lost": lambda r, g: r"%s\frac{%d}{%d}" % (m[0], *m[2:]) if (m := writing.mixed(r.parts)) else None,
    "complement to one": lambda r, g: writing.fraction(1 - r.parts) if 0 < r.parts < 1 and r.parts != Fraction(1, 2) else None,
    "letter on top": lambda r, g: rf"\frac{{{r.parts.numerator}x}}{{{r.parts.denominator}}}",
    "under a root": lambda r, g: rf"\sqrt{{{r.answer}}}" if r.parts > 0 else None,
    "two candidates": lambda r, g: g.choice([r"%s \text{ or } %s", "%s, %s", r"%s \text{ and } %s"]) % (r.answer, writing.fraction(r.parts + 1)),
    "plus or minus": lambda r, g: rf"\pm {r.answer.lstrip('-')}",
    "inequality": lambda r, g: g.choice([r"x \ge %s", "> %s", r"x < %s"]) % r.answer,
    "equation that is false": lambda r, g: f"{writing.fraction(r.parts + 1)} = {r.answer}",
})
table("scientific", {
    "exponent off by one": lambda r, g: writing.scientific(r.parts * g.choice([10, Fraction(1, 10)])),
    "sign of the exponent": lambda r, g: re.sub(r"e(-?)(\d+)", lambda m: rf" \times 10^{{{'' if m[1] else '-'}{m[2]}}}", r.answer),
    "zero": lambda r, g: g.choice(["0", "0.0", "0.000000", r"0 \times 10^{0}"]),
    "Euler's number": lambda r, g: g.choice([re.sub(r"e(-?\d+)", r" e", r.answer), re.sub(r"e(-?\d+)", r" e^{\1}", r.answer), re.sub(r"e(-?\d+)", r"e + \1", r.answer), re.sub(r"e(-?\d+)", r" \\cdot e \\cdot \1", r.answer)]),
    "mantissa alone": lambda r, g: r.answer.partition("e")[0],
    "power of ten alone": lambda r, g: rf"10^{{{r.answer.partition('e')[2]}}}" if r.answer.partition("e")[0] != "1" else None,
    "another tiny or huge number": lambda r, g: writing.scientific(r.parts * g.choice([3, 7, Fraction(1, 5), 2])),
    "exponent twice": lambda r, g: re.sub(r"e(-?\d+)", r" \\times 10^{\1} \\times 10^{\1}", r.answer) if not r.answer.endswith("e0") else None,
    "two candidates": lambda r, g: rf"{writing.scientific(r.parts)} \text{{ or }} {writing.scientific(r.parts * 10)}",
})
table("grouped", {
    "digit changed": lambda r, g: writing.grouped(_int(r) + g.choice([1000, -100, 1, 10]), g.choice([",", "{,}", r",\!"])),
    "group lost": lambda r, g: str(_int(r) // 1000),
    "read as a list": lambda r, g: r.answer.split(",")[0].replace("{", "").replace("\\$", ""),
    "three zeros too many": lambda r, g: writing.grouped(_int(r) * 1000, ","),
    "million after the number": lambda r, g: rf"{_int(r)}\text{{ million}}",
})


@content(MARKED, "another number with the same mark")
def _marked(ref: Reference, rng: Random) -> str:
    mark = {"percent": r"%s\%%", "money": r"\$%s", "degrees": r"%s^\circ"}[ref.kind]
    return mark % writing.decimal(ref.parts + rng.choice([1, -1, 10, 2]))


@content("degrees", "another unit")
def _degrees_other(ref: Reference, rng: Random) -> str | None:
    return _bare(ref) + rng.choice([r"\text{ radians}", r" \text{ rad}", r"\pi", r"\text{ cm}", "'"]) if ref.parts else None


@content("money", "another currency or cents")
def _money_other(ref: Reference, rng: Random) -> str | None:
    return _bare(ref) + rng.choice([r"\text{ cents}", r"\text{ million}", " thousand dollars", r"\text{ euros}"]) if ref.parts else None


@content("percent", "a fraction of a percent")
def _percent_other(ref: Reference, rng: Random) -> str | None:
    return rng.choice([f"{writing.decimal(ref.parts / 100)}\\%", f"{writing.decimal(100 - ref.parts)}\\%" if ref.parts != 50 else None, f"{writing.decimal(ref.parts * 10)}\\%"])


OTHER_UNITS = {
    "cm": ("m", "mm", "km", "inches"), "inches": ("feet", "miles", "cm"), "feet": ("inches", "yards", "meters"),
    "ft": ("in", "miles"), "meters": ("km", "cm", "feet"), "m": ("cm", "km"), "km": ("m", "miles"),
    "miles": ("km", "feet"), "hours": ("minutes", "days", "seconds"), "minutes": ("hours", "seconds", "days"),
    "seconds": ("minutes", "hours"), "days": ("weeks", "hours"), "dollars": ("cents",), "cents": ("dollars",),
    "pounds": ("ounces", "tons", "grams"), "degrees": ("radians",), "gm": ("kg",), "acres": ("square feet",),
    "mph": ("km/h",), "square units": ("cubic units",), "square inches": ("square feet",), "square feet": ("square inches", "feet"),
    "ounces": ("pounds",), "grams": ("kg", "mg"), "years": ("months", "days"), "weeks": ("days", "years"), "months": ("years",),
}


@content("unit", "another unit")
def _other_unit(ref: Reference, rng: Random) -> str | None:
    others = OTHER_UNITS.get(ref.extra["unit"])
    return rf"{ref.extra['number']}\text{{ {rng.choice(others)}}}{ref.extra['power']}" if others else None


@content("unit", "another power of the unit")
def _unit_power(ref: Reference, rng: Random) -> str | None:
    other = {"": "^2", "^2": rng.choice(["^3", ""]), "^3": "^2"}.get(ref.extra["power"])
    if other is None or ref.extra["unit"] not in {"cm", "m", "km", "inches", "feet", "ft", "units", "meters"}:
        return None
    return rf"{ref.extra['number']}\text{{ {ref.extra['unit']}}}{other}"


@content("unit", "another number with the unit")
def _unit_number(ref: Reference, rng: Random) -> str:
    number = writing.decimal(ref.parts + rng.choice([1, 10, -1]))
    return rf"{number}\text{{ {ref.extra['unit']}}}{ref.extra['power']}"


# Symbols ------------------------------------------------------------------------------------------

table("root", {
    "root lost": lambda r, g: str(r.parts[0] * r.parts[1]),
    "factor lost": lambda r, g: rf"\sqrt{{{r.parts[1]}}}" if r.parts[0] != 1 else None,
    "factor moved under the root": lambda r, g: rf"\sqrt{{{r.parts[0] * r.parts[1]}}}" if r.parts[0] > 1 else None,
    "plus for times": lambda r, g: rf"{r.parts[0]} + \sqrt{{{r.parts[1]}}}" if r.parts[0] != 1 else rf"1 + \sqrt{{{r.parts[1]}}}",
    "other number under the root": lambda r, g: rf"{r.parts[0]}\sqrt{{{r.parts[1] + g.choice([1, 2, 5])}}}" if r.parts[0] != 1 else rf"\sqrt{{{r.parts[1] + 1}}}",
    "cube root": lambda r, g: rf"{r.parts[0] if r.parts[0] != 1 else ''}\sqrt[3]{{{r.parts[1]}}}",
    "other sign": lambda r, g: rf"{-r.parts[0] if abs(r.parts[0]) != 1 else '-' if r.parts[0] == 1 else ''}\sqrt{{{r.parts[1]}}}",
    "over the root": lambda r, g: rf"\frac{{{r.parts[0]}}}{{\sqrt{{{r.parts[1]}}}}}",
    "rounded to two digits": lambda r, g: f"{r.parts[0] * r.parts[1] ** 0.5:.2g}" if abs(float(f"{r.parts[0] * r.parts[1] ** 0.5:.2g}") / (r.parts[0] * r.parts[1] ** 0.5) - 1) > 1e-3 else None,
    "plus or minus": lambda r, g: rf"\pm {r.answer.lstrip('-')}",
    "other factor": lambda r, g: rf"{r.parts[0] + 1 if r.parts[0] not in (-1, 0) else 2}\sqrt{{{r.parts[1]}}}",
    "two candidates": lambda r, g: rf"{r.answer} \text{{ or }} {r.parts[1]}",
    "letter after it": lambda r, g: f"{r.answer} x",
})
table("pi", {
    "pi lost": lambda r, g: r.answer.replace(r"\pi", "").strip(),
    "pi squared": lambda r, g: r.answer + "^2",
    "other factor": lambda r, g: rf"{written(r.parts + 1, g)}\pi",
    "over pi": lambda r, g: rf"\frac{{{r.parts.numerator}}}{{{r.parts.denominator}\pi}}",
    "plus for times": lambda r, g: rf"{r.parts} + \pi",
    "with 3 for pi": lambda r, g: written(3 * r.parts, g),
    "with 22/7 for pi": lambda r, g: writing.fraction(r.parts * Fraction(22, 7)) if (r.parts * 22) % 7 else None,
    "other sign": lambda r, g: f"-{r.answer}" if r.parts > 0 else None,
    "in degrees": lambda r, g: f"{written(180 * r.parts, g)}" if 180 * r.parts != r.parts else None,
})
table("complex", {
    "conjugate": lambda r, g: writing.polynomial([(r.parts[0], 0), (-r.parts[1], 1)], "i") if r.parts[0] else None,
    "real and imaginary part swapped": lambda r, g: writing.polynomial([(r.parts[1], 0), (r.parts[0], 1)], "i") if r.parts[0] and r.parts[0] != r.parts[1] else None,
    "negative": lambda r, g: writing.polynomial([(-r.parts[0], 0), (-r.parts[1], 1)], "i") if r.parts[0] else None,
    "real part alone": lambda r, g: str(r.parts[0]),
    "i lost": lambda r, g: f"{r.parts[0]}{r.parts[1]:+d}",
    "as a pair": lambda r, g: rf"\{{{r.parts[0]}, {r.parts[1]}\}}",
    "with its conjugate": lambda r, g: rf"{r.parts[0]} \pm {abs(r.parts[1])}i",
    "imaginary part off by one": lambda r, g: writing.polynomial([(r.parts[0], 0), (r.parts[1] + (1 if r.parts[1] != -1 else 5), 1)], "i") if r.parts[0] else None,
    "x for i": lambda r, g: writing.polynomial([(r.parts[0], 0), (r.parts[1], 1)], "x") if r.parts[0] else None,
})


def _changed(ref: Reference, rng: Random, change: Callable[[int, int], tuple[int, int]]) -> str:
    terms = list(ref.parts)
    place = rng.randrange(len(terms))
    terms[place] = change(*terms[place])
    return writing.polynomial(terms, ref.extra["letter"])


table("polynomial", {
    "one sign changed": lambda r, g: _changed(r, g, lambda c, p: (-c, p)),
    "one coefficient changed": lambda r, g: _changed(r, g, lambda c, p: (c + 1 if c != -1 else c - 1, p)),
    "one exponent changed": lambda r, g: _changed(r, g, lambda c, p: (c, p + 9)),
    "one term missing": lambda r, g: writing.polynomial(r.parts[1:] if g.random() < 0.5 else r.parts[:-1], r.extra["letter"]),
    "one term more": lambda r, g: writing.polynomial(r.parts, r.extra["letter"]) + "+" + g.choice(["1", "2", f"{r.extra['letter']}^{{12}}"]),
    "another letter": lambda r, g: writing.polynomial(r.parts, g.choice([c for c in "abtyz" if c != r.extra["letter"]])),
    "negative": lambda r, g: writing.polynomial([(-c, p) for c, p in r.parts], r.extra["letter"]),
    "set equal to a number": lambda r, g: f"{writing.polynomial(r.parts, r.extra['letter'])} = {g.randint(1, 9)}",
    "coefficients as a tuple": lambda r, g: "(" + ", ".join(str(c) for c, _ in r.parts) + ")",
    "squared": lambda r, g: f"({r.answer})^2",
    "value at one": lambda r, g: str(sum(c for c, _ in r.parts)),
})

# Structures ---------------------------------------------------------------------------------------


def _swap(parts: list[str], rng: Random) -> list[str] | None:
    first, second = rng.sample(range(len(parts)), 2)
    if value(parts[first]) == value(parts[second]):
        return None
    swapped = list(parts)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def _one_entry(parts: list[str], rng: Random) -> list[str]:
    place = rng.randrange(len(parts))
    number = value(parts[place])
    other = number + rng.choice([1, -1, 2]) if number is not None else Fraction(1)
    return [*parts[:place], written(other, rng), *parts[place + 1 :]]


table("tuple", {
    "order changed": lambda r, g: "(" + ", ".join(s) + ")" if (s := _swap(r.parts, g)) else None,
    "one entry changed": lambda r, g: "(" + ", ".join(_one_entry(r.parts, g)) + ")",
    "one sign changed": lambda r, g: "(" + ", ".join([written(-v, g) if (v := value(r.parts[0])) else "7", *r.parts[1:]]) + ")",
    "one entry missing": lambda r, g: "(" + ", ".join(r.parts[:-1]) + ")" if len(r.parts) > 2 else r.parts[0],
    "one entry more": lambda r, g: "(" + ", ".join([*r.parts, str(g.randint(0, 9))]) + ")",
    "as a set": lambda r, g: r"\{" + ", ".join(r.parts) + r"\}",
    "as a closed interval": lambda r, g: "[" + ", ".join(r.parts) + "]" if len(r.parts) == 2 else None,
    "as a half-open interval": lambda r, g: g.choice(["(%s, %s]", "[%s, %s)"]) % tuple(r.parts) if len(r.parts) == 2 else None,
    "one entry alone": lambda r, g: g.choice(r.parts),
    "sum of the entries": lambda r, g: " + ".join(f"({p})" for p in r.parts),
    "two candidates": lambda r, g: f"({', '.join(r.parts)}), ({', '.join(_one_entry(r.parts, g))})",
})


def _interval_with(ref: Reference, brackets: str, ends: list[str] | None = None) -> str | None:
    if brackets == ref.extra["opening"] + ref.extra["closing"] and ends is None:
        return None
    low, high = ends or ref.parts
    return f"{brackets[0]}{low}, {high}{brackets[1]}"


def _other_brackets(ref: Reference, rng: Random) -> str | None:
    low, high = ref.parts
    opening, closing = ref.extra["opening"], ref.extra["closing"]
    other = {"(": "[", "[": "(", ")": "]", "]": ")"}
    if low == r"-\infty":
        return _interval_with(ref, opening + other[closing]) if high != r"\infty" else None
    if high == r"\infty":
        return _interval_with(ref, other[opening] + closing)
    return _interval_with(ref, rng.choice([other[opening] + closing, opening + other[closing], other[opening] + other[closing]]))


def _end_changed(ref: Reference, rng: Random) -> str | None:
    place = rng.choice([n for n, part in enumerate(ref.parts) if "infty" not in part] or [-1])
    if place < 0:
        return None
    ends = list(ref.parts)
    ends[place] = written((value(ends[place]) or Fraction(0)) + (-1 if place == 0 else 1), rng)
    return _interval_with(ref, ref.extra["opening"] + ref.extra["closing"], ends)


def _flipped(ref: Reference, rng: Random) -> str | None:
    (low, high), closed = ref.parts, "[" in ref.extra["opening"] or "]" in ref.extra["closing"]
    if low == r"-\infty" and high == r"\infty":
        return None
    if low == r"-\infty":
        return "x " + rng.choice([">", r"\ge"]) + f" {high}"
    if high == r"\infty":
        return "x " + rng.choice(["<", r"\le"]) + f" {low}"
    return rf"x \le {low} \text{{ or }} x \ge {high}" if closed else None


def _strictness(ref: Reference, rng: Random) -> str | None:
    (low, high), opening, closing = ref.parts, ref.extra["opening"], ref.extra["closing"]
    if low == r"-\infty":
        return (f"x < {high}" if closing == "]" else rf"x \le {high}") if high != r"\infty" else None
    if high == r"\infty":
        return f"x > {low}" if opening == "[" else rf"x \ge {low}"
    left, right = ("<" if opening == "[" else r"\le"), ("<" if closing == "]" else r"\le")
    return f"{low} {left} x {right} {high}"


def _ends_as(ref: Reference, form: str) -> str | None:
    return None if "infty" in "".join(ref.parts) else form % tuple(ref.parts)


table("interval", {
    "other brackets": _other_brackets,
    "one end changed": _end_changed,
    "inequality in the other direction": _flipped,
    "inequality of other strictness": _strictness,
    "ends as a set": lambda r, g: _ends_as(r, r"\{%s, %s\}"),
    "ends as a list": lambda r, g: _ends_as(r, "%s, %s"),
    "one end alone": lambda r, g: next(p for p in r.parts if "infty" not in p) if r.parts != [r"-\infty", r"\infty"] else None,
    "all reals": lambda r, g: g.choice([r"(-\infty, \infty)", r"\mathbb{R}"]) if r.parts != [r"-\infty", r"\infty"] else None,
    "part added": lambda r, g: rf"{r.answer} \cup \{{{int(max(value(p) or Fraction(0) for p in r.parts if 'infty' not in p)) + 5}\}}" if r.parts[1] != r"\infty" else None,
    "one-sided only": lambda r, g: rf"x \ge {r.parts[0]}" if "infty" not in "".join(r.parts) else None,
})
table("union", {
    "one part missing": lambda r, g: r" \cup ".join(r.parts[1:] if g.random() < 0.5 else r.parts[:-1]),
    "intersection for union": lambda r, g: r" \cap ".join(r.parts),
    "all brackets of the other kind": lambda r, g: r.answer.translate(str.maketrans("()[]", "[]()")) if "infty" not in r.answer and r"\frac" not in r.answer else None,
    "all reals": lambda r, g: r"(-\infty, \infty)",
    "one part more": lambda r, g: rf"{r.answer} \cup \{{{g.randint(300, 400)}.5\}}" if not re.search(r"(?<!-)\\infty", r.answer) else None,
})


def _list_changed(ref: Reference, rng: Random) -> str | None:
    changed = _one_entry(ref.parts, rng)
    differs = {value(part) for part in changed} != {value(part) for part in ref.parts}
    return ", ".join(changed) if differs else None


table("list", {
    "one entry missing": lambda r, g: ", ".join(r.parts[1:] if g.random() < 0.5 else r.parts[:-1]),
    "one entry more": lambda r, g: ", ".join([*r.parts, str(next(n for n in range(2, 99) if all(value(p) != n for p in r.parts)))]),
    "one entry changed": _list_changed,
    "one sign changed": lambda r, g: ", ".join([*r.parts[:-1], written(-v, g)]) if (v := value(r.parts[-1])) and all(value(p) != -v for p in r.parts) else None,
    "as an interval": lambda r, g: "[%s, %s]" % tuple(r.parts) if len(r.parts) == 2 else None,
    "product of the entries": lambda r, g: r" \cdot ".join(f"({p})" for p in r.parts),
    "sum of the entries": lambda r, g: " + ".join(f"({p})" for p in r.parts),
    "one box for one entry": lambda r, g: g.choice(r.parts),
})
table("matrix", {
    "transposed": lambda r, g: writing.matrix(t) if len(r.parts) > 1 < len(r.parts[0]) and (t := [list(column) for column in zip(*r.parts, strict=True)]) != r.parts else None,
    "one entry changed": lambda r, g: writing.matrix([_one_entry(r.parts[0], g), *r.parts[1:]]),
    "one sign changed": lambda r, g: writing.matrix([*r.parts[:-1], [*r.parts[-1][:-1], written(-v, g)]]) if (v := value(r.parts[-1][-1])) else None,
    "one row missing": lambda r, g: writing.matrix(r.parts[:-1]) if len(r.parts) > 1 else None,
    "one row more": lambda r, g: writing.matrix([*r.parts, ["0"] * len(r.parts[0])]),
    "rows swapped": lambda r, g: writing.matrix(r.parts[::-1]) if r.parts[::-1] != r.parts else None,
    "one entry alone": lambda r, g: g.choice(g.choice(r.parts)),
    "negative": lambda r, g: f"-{r.answer}" if any(value(e) for row in r.parts for e in row) else None,
})
table("assignment", {
    "another number": lambda r, g: f"{r.extra['letter']} = {_one_entry([r.parts], g)[0]}",
    "inequality": lambda r, g: f"{r.extra['letter']} {g.choice(RELATIONS)} {r.parts}",
    "letter alone": lambda r, g: r.extra["letter"],
    "another letter and number": lambda r, g: f"w = {_one_entry([r.parts], g)[0]}",
})
table("equation", {
    "one side alone": lambda r, g: "0" if r.parts[1] == "0" else r.parts[0],
    "inequality for equality": lambda r, g: f"{r.parts[0]} {g.choice(RELATIONS)} {r.parts[1]}",
    "a number added to one side": lambda r, g: f"{r.answer} + {g.randint(1, 9)}",
    "one side negated": lambda r, g: f"{r.parts[0]} = -({r.parts[1]})" if r.parts[1] != "0" else f"{r.parts[0]} = 1",
    "true for anything": lambda r, g: f"{r.parts[0]} = {r.parts[0]}",
})
WORDS = {
    "even": "odd", "odd": "even", "neither": "odd", "Sunday": "Saturday", "Monday": "Tuesday", "Tuesday": "Thursday", "circle": "ellipse",
    "parabola": "hyperbola", "ellipse": "circle", "east": "west", "north": "south", "yes": "no", "no": "yes", "Friday": "Monday",
}
table("word", {
    "another word": lambda r, g: g.choice([r"\text{%s}", "%s", r"\textbf{%s}"]) % WORDS.get(r.parts, g.choice(["Carla", "Omar", "purple", "line", "none"])),
    "two words": lambda r, g: g.choice([r"\text{%s or %s}", r"\text{%s and %s}", r"%s \text{ or } %s"]) % (r.parts, WORDS.get(r.parts, "Omar")),
    "negated": lambda r, g: rf"\text{{not {r.parts}}}",
    "first letter alone": lambda r, g: rf"\text{{{r.parts[0]}}}",
    "letters in another order": lambda r, g: rf"\text{{{r.parts[::-1]}}}" if r.parts != r.parts[::-1] else None,
    "a number": lambda r, g: str(g.randint(0, 99)),
    "word within a longer text": lambda r, g: g.choice([r"\text{%s if } n > 2", r"\text{sometimes %s}", r"\text{cannot be %s}"]) % r.parts,
})


def other_letters(ref: Reference, rng: Random) -> list[str]:
    """Return two letters of A to E other than the reference."""
    return rng.sample([c for c in "ABCDE" if c != ref.parts], 2)


table("letter", {
    "another letter": lambda r, g: g.choice(["%s", r"\text{(%s)}", r"\textbf{(%s)}", r"\text{%s}", "(%s)"]) % other_letters(r, g)[0],
    "several letters": lambda r, g: g.choice(["{a} or {b}", r"\text{{{a} or {b}}}", "{a}, {b}", r"{a} \text{{ and }} {b}", "{a}{b}", "({a}) ({b})", r"\text{{({a}), ({b})}}", r"{a} \text{{ or }} {b} \text{{ or }} {c}", "{a}/{b}", "ABCDE", r"\text{{all of }} {a}, {b}, {c}"]).format(**dict(zip("abc", [r.parts, *other_letters(r, g)], strict=True))),
    "negated": lambda r, g: rf"\text{{not {r.parts}}}",
    "all or none of the above": lambda r, g: g.choice([r"\text{all of the above}", r"\text{none of the above}", r"\text{any}", "A-E"]),
    "a word that begins with it": lambda r, g: r"\text{%s}" % {"A": "All", "B": "Both", "C": "Circle", "D": "Double", "E": "Each"}.get(r.parts, "Fail"),
    "in an expression": lambda r, g: g.choice(["%s + 1", "2%s", "%s^2", "-%s", "%s = 5 or 7"]) % r.parts,
})
table("base", {
    "base lost": lambda r, g: r.parts[0] if r.parts[1] != "10" and len(r.parts[0]) > 1 else None,
    "another base": lambda r, g: f"{r.parts[0]}_{{{int(r.parts[1]) + g.choice([1, 2, -1]) if int(r.parts[1]) > int(max(r.parts[0])) + 2 else int(r.parts[1]) + 1}}}",
    "one digit changed": lambda r, g: f"{d}_{{{r.parts[1]}}}" if (d := r.parts[0][:-1] + ("1" if r.parts[0][-1] != "1" else "0")) else None,
    "digits swapped": lambda r, g: f"{d}_{{{r.parts[1]}}}" if (d := r.parts[0][::-1]) != r.parts[0] and d[0] != "0" else None,
    "base times digits": lambda r, g: rf"{r.parts[0]} \cdot {r.parts[1]}",
    "power for base": lambda r, g: f"{r.parts[0]}^{{{r.parts[1]}}}" if r.parts[0] != "1" else None,
    "digits and base as a list": lambda r, g: f"{r.parts[0]}, {r.parts[1]}",
})
table("power", {
    "exponent off by one": lambda r, g: f"{r.parts[0]}^{{{r.parts[1] + g.choice([1, -1])}}}",
    "one subtracted or added": lambda r, g: f"{r.parts[0]}^{{{r.parts[1]}}} {g.choice(['+', '-'])} 1",
    "times for power": lambda r, g: rf"{r.parts[0]} \cdot {r.parts[1]}" if r.parts != (2, 2) else None,
    "base and exponent swapped": lambda r, g: f"{r.parts[1]}^{{{r.parts[0]}}}" if r.parts[0] != r.parts[1] and set(r.parts) != {2, 4} else None,
    "negative exponent": lambda r, g: f"{r.parts[0]}^{{-{r.parts[1]}}}",
    "doubled": lambda r, g: rf"2 \cdot {r.parts[0]}^{{{r.parts[1]}}}",
    "another base": lambda r, g: f"{r.parts[0] + 1}^{{{r.parts[1]}}}",
})


def _is_formula(answer: str) -> bool:
    """Return whether the answer is one value, not zero and without a free constant such as C."""
    known = re.sub(r"\\(?:[dt]?frac|sqrt|cos|sin|tan|sec|csc|cot|cdot|pi|ln|log|left|right|binom)", "", answer)
    return not re.search(r"[^-+*/^(){}\[\]!|. 0-9abdkmnpqrstxyz]", known) and bool(re.search(r"[1-9a-z]", known))


table("expression", {
    "one added": lambda r, g: f"{r.answer} + 1" if _is_formula(r.answer) else None,
    "times two": lambda r, g: rf"2 \left({r.answer}\right)" if _is_formula(r.answer) else None,
    "a candidate more": lambda r, g: rf"{r.answer} \text{{ or }} {g.randint(1000, 2000)}",
    "negated": lambda r, g: rf"\text{{not }} {r.answer}",
})
