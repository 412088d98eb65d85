"""Rules that write a reference in another way: what they give is right by construction."""


# ruff: noqa: E501, RUF001, UP031 (rows of tables)
# fmt: off

import re
from random import Random

import writing
from references import Reference, value
from rules import Rules

RULES = Rules()
content, completion, table = RULES.content, RULES.completion, RULES.table

NUMBERS = ("integer", "decimal", "scientific", "fraction")
TIMES = (r"\cdot", r"\times", "*")


# Numbers ------------------------------------------------------------------------------------------


def _int(ref: Reference) -> int:
    return int(ref.parts)


table("integer", {
    "with .0": lambda r, g: f"{r.answer}.0",
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "in a text command": lambda r, g: rf"\{g.choice(['text', 'textbf', 'mathrm', 'mathbf'])}{{{r.answer}}}",
    "markdown bold in the box": lambda r, g: f"**{r.answer}**",
    "as a fraction that divides": lambda r, g: rf"\frac{{{_int(r) * (k := g.randint(2, 5))}}}{{{k}}}",
    "x = number": lambda r, g: f"{g.choice('xnkab')} = {r.answer}",
    "number = x": lambda r, g: f"{r.answer} = {g.choice('xnkab')}",
    "unit where the reference has none": lambda r, g: r.answer + g.choice([r"\text{ cm}", r"\text{ hours}", r" \text{ dollars}", r"\ \text{meters}", r"\,\mathrm{kg}", r"\text{ apples}", r"\text{ square units}"]),
    "unit without a text command": lambda r, g: r.answer + g.choice([" dollars", " cm", " hours", " people", " km/h", " m/s", " points", " weeks", " grams", " minutes"]),
    "currency": lambda r, g: g.choice([r"\$%s", "€%s", r"\text{\$}%s", "£%s", "%s €"]) % r.answer if _int(r) >= 0 else None,
    "number and unit in one text command": lambda r, g: rf"\text{{{r.answer} {g.choice(['apples', 'dollars', 'people', 'days', 'cm'])}}}",
    "spaces around": lambda r, g: g.choice([r"\,%s", r"%s\;", " %s ", r"\ %s", r"{%s}", r"\displaystyle %s", r"\!%s"]) % r.answer,
    "minus as Unicode": lambda r, g: "−" + r.answer[1:] if r.answer[0] == "-" else None,
    "sentence in the box": lambda r, g: rf"\text{{The answer is }} {r.answer}" if g.random() < 0.5 else rf"\text{{The answer is {r.answer}}}",
    "a sum that is worked out": lambda r, g: f"{_int(r) - (k := g.randint(1, 9))} + {k} = {r.answer}" if _int(r) > 9 else None,
    "dollar signs in the box": lambda r, g: g.choice(["$%s$", r"\(%s\)"]) % r.answer,
})


@content("integer", "thousands separator")
def _thousands(ref: Reference, rng: Random) -> str | None:
    separator = rng.choice([",", "{,}", r"\,", r",\!", " ", r"\;", "{,}"])
    return writing.grouped(_int(ref), separator) if _int(ref) >= 10_000 else None


@content("integer", "scientific notation")
def _integer_scientific(ref: Reference, rng: Random) -> str | None:
    times = rng.choice([r"\times", r"\cdot", "×"])
    if _int(ref) < 100 or _int(ref) % 10:
        return None
    return writing.scientific(ref.parts, times) if rng.random() < 0.6 else writing.e_notation(ref.parts)


@content("integer", "million, thousand or billion in words")
def _integer_words(ref: Reference, rng: Random) -> str | None:
    for power, word in ((9, "billion"), (6, "million"), (3, "thousand")):
        if _int(ref) > 0 and _int(ref) % 10**power == 0:
            return rng.choice([r"%s\text{ %s}", "%s %s", r"%s \text{ %s}"]) % (_int(ref) // 10**power, word)
    return None


table(("decimal", "fraction"), {
    "in a text command": lambda r, g: rf"\{g.choice(['text', 'textbf', 'mathrm', 'mathbf'])}{{{d}}}" if (d := writing.decimal(r.parts)) and len(d) < 9 else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "as an exact fraction": lambda r, g: writing.fraction(r.parts, g.choice(["frac", "dfrac", "tfrac"])) if r.parts.denominator < 10**6 else None,
    "fraction with a slash": lambda r, g: g.choice(["%s/%s", "(%s)/(%s)"]) % (r.parts.numerator, r.parts.denominator) if 1 < r.parts.denominator < 10**4 else None,
    "x = number": lambda r, g: f"{g.choice('xpty')} = {r.answer}",
    "unit where the reference has none": lambda r, g: r.answer + g.choice([r"\text{ cm}", r"\text{ miles}", r"\ \text{m}", r"\,\mathrm{kg}", r"\text{ m}^2"]),
    "fraction not in lowest terms": lambda r, g: writing.fraction(r.parts, times=g.choice([2, 3, 5])) if 1 < r.parts.denominator < 1000 else None,
    "mixed number": lambda r, g: g.choice([r"%s%d\frac{%d}{%d}", r"%s%d \frac{%d}{%d}", r"%s%d\dfrac{%d}{%d}", "%s%d %d/%d"]) % m if (m := writing.mixed(r.parts)) and r.parts.denominator < 100 else None,
})

table("decimal", {
    "trailing zero": lambda r, g: r.answer + g.choice(["0", "00"]),
    "no leading zero": lambda r, g: r.answer.replace("0.", ".", 1) if re.match(r"-?0\.", r.answer) else None,
    "scientific notation": lambda r, g: writing.scientific(r.parts, g.choice([r"\times", r"\cdot"])),
    "e-notation": lambda r, g: writing.e_notation(r.parts, g.choice("eE")),
})

table("fraction", {
    "as an exact decimal": lambda r, g: d if (d := writing.decimal(r.parts)) and len(d) < 9 else None,
    "as a repeating decimal": lambda r, g: writing.repeating(r.parts),
    "braces left out": lambda r, g: rf"{'-' if r.parts < 0 else ''}\{g.choice(['frac', 'dfrac', 'tfrac'])}{abs(r.parts.numerator)}{r.parts.denominator}" if abs(r.parts.numerator) < 10 and r.parts.denominator < 10 else None,
    "over": lambda r, g: rf"{{{r.parts.numerator} \over {r.parts.denominator}}}",
    "Unicode fraction": lambda r, g: ("-" if r.parts < 0 else "") + writing.VULGAR[abs(r.parts)] if abs(r.parts) in writing.VULGAR else None,
    "sign inside the fraction": lambda r, g: g.choice([rf"\frac{{{r.parts.numerator}}}{{{r.parts.denominator}}}", rf"\frac{{{-r.parts.numerator}}}{{-{r.parts.denominator}}}"]) if r.parts < 0 else None,
    "in parentheses": lambda r, g: rf"\left({r.answer}\right)",
    "approximation shown beside": lambda r, g: rf"{r.answer} \approx {float(r.parts):.3f}" if not writing.decimal(r.parts) else None,
    "e-notation": lambda r, g: writing.e_notation(r.parts) if r.parts.denominator in {100, 1000, 50, 200} else None,
})

table("scientific", {
    "times ten to the power": lambda r, g: writing.scientific(r.parts, g.choice([r"\times", r"\cdot", "×", r"\times", r"\;\times\;"])),
    "another mantissa": lambda r, g: writing.scientific(r.parts, shift=g.choice([1, -1, 2])),
    "plain decimal": lambda r, g: writing.decimal(r.parts),
    "plain decimal in groups": lambda r, g: writing.grouped(int(r.parts), g.choice([",", "{,}", r"\,"])) if r.parts.denominator == 1 and r.parts >= 10_000 else None,
    "e-notation": lambda r, g: g.choice([r.answer.replace("e", "E"), r.answer, f"{float(r.parts):.6e}"]),
    "unit where the reference has none": lambda r, g: (writing.scientific(r.parts) or r.answer) + g.choice([r" \text{ erg/s}", r"\text{ g}", r"\,\mathrm{cm}", r" \mathrm{~m}", r"\ \text{J}"]),
    "x = number": lambda r, g: f"{g.choice(['L', 'M', 'T', 'E'])} = {writing.scientific(r.parts)}",
    "full stop in the box": lambda r, g: f"{writing.scientific(r.parts)}.",
})

# Numbers with a mark ------------------------------------------------------------------------------

table("grouped", {
    "plain digits": lambda r, g: str(_int(r)),
    "another separator": lambda r, g: writing.grouped(_int(r), g.choice([",", "{,}", r"\,"])),
    "scientific notation": lambda r, g: writing.scientific(r.parts) if _int(r) % 100 == 0 else None,
    "plain digits with a unit": lambda r, g: f"{_int(r)}" + g.choice([r"\text{ ways}", r"\text{ dollars}", " ways"]),
})


def _bare(ref: Reference) -> str:
    return writing.decimal(ref.parts) or ""


table("percent", {
    "percent sign kept": lambda r, g: _bare(r) + g.choice([r"\%", r" \%", r"\,\%", "%"]),
    "percent in words": lambda r, g: _bare(r) + g.choice([r"\text{ percent}", " percent", r"\text{\%}"]),
    "sign left out": lambda r, g: _bare(r),
})
table("money", {
    "sign left out": lambda r, g: _bare(r),
    "dollar sign kept": lambda r, g: g.choice([r"\$%s", r"\$ %s", r"\text{\$}%s", r"\$%s.", "%s\\$"]) % _bare(r),
    "dollars in words": lambda r, g: _bare(r) + g.choice([r"\text{ dollars}", " dollars", r"\ \text{dollars}"]),
    "with cents": lambda r, g: rf"\${float(r.parts):.2f}" if r.parts.denominator <= 100 else None,
})
table("degrees", {
    "sign left out": lambda r, g: _bare(r),
    "degree sign kept": lambda r, g: _bare(r) + g.choice([r"^\circ", r"^{\circ}", "°", r"^\circ.", r"^{\circ }", r"^\circ\!"]),
    "degrees in words": lambda r, g: _bare(r) + g.choice([r"\text{ degrees}", " degrees", r"\ \text{degrees}"]),
})


def _unit_of(ref: Reference) -> tuple[str, str, str]:
    return ref.extra["number"], ref.extra["unit"], ref.extra["power"]


table("unit", {
    "unit left out": lambda r, g: _unit_of(r)[0],
    "unit kept": lambda r, g: g.choice([r"%s\text{ %s}%s", r"%s \text{ %s}%s", r"%s\ \text{%s}%s", r"%s~\mathrm{%s}%s", r"%s\mbox{ %s}%s"]) % _unit_of(r),
    "unit kept, without a text command": lambda r, g: "%s %s%s" % _unit_of(r),
    "number and unit in one text command": lambda r, g: r"\text{%s %s}" % _unit_of(r)[:2] if not _unit_of(r)[2] else None,
    "scientific notation": lambda r, g: writing.scientific(r.parts) if r.parts >= 1000 and r.parts % 10 == 0 else None,
})

# Symbols ------------------------------------------------------------------------------------------


def _front(ref: Reference) -> tuple[str, int]:
    front, inner = ref.parts
    return {1: "", -1: "-"}.get(front, str(front)), inner


table("root", {
    "Unicode root": lambda r, g: "%s√%d" % _front(r),
    "factor under the root": lambda r, g: rf"{'-' if r.parts[0] < 0 else ''}\sqrt{{{r.parts[0] ** 2 * r.parts[1]}}}" if abs(r.parts[0]) > 1 else None,
    "half power": lambda r, g: rf"{r.parts[0]} \cdot {r.parts[1]}^{{1/2}}" if abs(r.parts[0]) > 1 else None,
    "factors swapped": lambda r, g: rf"\sqrt{{{r.parts[1]}}} \cdot {r.parts[0]}" if r.parts[0] > 1 else None,
    "dot between the factors": lambda r, g: rf"{r.parts[0]} {g.choice(TIMES)} \sqrt{{{r.parts[1]}}}" if abs(r.parts[0]) > 1 else None,
    "braces left out": lambda r, g: rf"{_front(r)[0]}\sqrt{r.parts[1]}" if r.parts[1] < 10 else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "rationalised": lambda r, g: rf"\frac{{{r.parts[0] * r.parts[1]}}}{{\sqrt{{{r.parts[1]}}}}}",
    "x = number": lambda r, g: f"{g.choice('xdhr')} = {r.answer}",
    "unit where the reference has none": lambda r, g: r.answer + g.choice([r"\text{ cm}", r"\text{ units}", r"\ \text{m}"]),
    "sqrt()": lambda r, g: (f"{r.parts[0]}*" if r.parts[0] != 1 else "") + f"sqrt({r.parts[1]})",
})
table("pi", {
    "factors swapped": lambda r, g: rf"\pi \cdot {r.answer.replace('pi', '').rstrip(' ').rstrip(chr(92))}" if r.parts > 0 else None,
    "Unicode pi": lambda r, g: f"{r.parts}π" if r.parts.denominator == 1 else None,
    "dot between the factors": lambda r, g: rf"{r.parts} {g.choice(TIMES)} \pi" if r.parts.denominator == 1 else None,
    "over one denominator": lambda r, g: rf"\frac{{{r.parts.numerator}\pi}}{{{r.parts.denominator}}}" if r.parts.denominator > 1 else None,
    "unit where the reference has none": lambda r, g: r.answer + g.choice([r"\text{ cm}^2", r"\text{ square units}", r"\ \text{cm}^3"]),
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "pi in words": lambda r, g: f"{r.parts} pi" if r.parts.denominator == 1 else None,
})
table("complex", {
    "parts swapped": lambda r, g: writing.polynomial([(r.parts[1], 1), (r.parts[0], 0)], "i") if r.parts[0] else None,
    "other spaces": lambda r, g: r.answer.replace(" ", "") if " " in r.answer else re.sub(r"(?<=.)([-+])", r" \1 ", r.answer),
    "z = number": lambda r, g: f"z = {r.answer}",
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "i before its factor": lambda r, g: f"{r.parts[0]}{'+' if r.parts[1] > 0 else '-'}i \\cdot {abs(r.parts[1])}" if abs(r.parts[1]) > 1 else None,
})


@content("polynomial", "terms in another order")
def _terms(ref: Reference, rng: Random) -> str | None:
    order = rng.sample(ref.parts, len(ref.parts))
    return writing.polynomial(order, ref.extra["letter"]) if order != ref.parts else None


@content("polynomial", "a minus sign taken out")
def _factored(ref: Reference, rng: Random) -> str | None:
    inner = writing.polynomial([(-c, p) for c, p in ref.parts], ref.extra["letter"])
    return f"-({inner})"


@content("polynomial", "a term split in two")
def _split(ref: Reference, rng: Random) -> str | None:
    (coefficient, power), *rest = ref.parts
    if abs(coefficient) < 3:
        return None
    sign = 1 if coefficient > 0 else -1
    return writing.polynomial([(coefficient - sign, power), *rest, (sign, power)], ref.extra["letter"])


table("polynomial", {
    "braces and spaces": lambda r, g: writing.polynomial(r.parts, r.extra["letter"], brace=True).replace("+", " + ").replace("-", " - ").strip(),
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "dots between the factors": lambda r, g: re.sub(r"(\d)([a-z])", r"\1 \\cdot \2", writing.polynomial(r.parts, r.extra["letter"])),
    "star between the factors": lambda r, g: re.sub(r"(\d)([a-z])", r"\1*\2", writing.polynomial(r.parts, r.extra["letter"])),
})

# Structures ---------------------------------------------------------------------------------------


def _other_entry(entry: str, rng: Random) -> str:
    number = value(entry)
    if number is None:
        return entry
    forms = [writing.fraction(number), f"{number}"] if number.denominator > 1 else [f"{number}.0", str(number)]
    if number.denominator > 1 and (exact := writing.decimal(number)):
        forms.append(exact)
    return rng.choice(forms)


@content("tuple", "entries in another form")
def _tuple_forms(ref: Reference, rng: Random) -> str:
    return "(" + ", ".join(_other_entry(e, rng) for e in ref.parts) + ")"


table("tuple", {
    "left and right, other spaces": lambda r, g: g.choice([r"\left(%s\right)", r"\left( %s \right)", "( %s )", r"\bigl(%s\bigr)"]) % g.choice([",", ", ", r",\,", r", \;"]).join(r.parts),
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "(x,y) = tuple": lambda r, g: {2: "(x, y) = ", 3: "(a, b, c) = "}[len(r.parts)] + r.answer if len(r.parts) in {2, 3} else None,
})


def _inequality(ref: Reference, letter: str, *, swap: bool) -> str | None:
    (low, high), opening, closing = ref.parts, ref.extra["opening"], ref.extra["closing"]
    left, right = (r" \le " if opening == "[" else " < "), (r" \le " if closing == "]" else " < ")
    if low == r"-\infty" and high == r"\infty":
        return None
    if low == r"-\infty":
        return f"{high}{right.replace('<', '>').replace('le', 'ge')}{letter}" if swap else f"{letter}{right}{high}"
    if high == r"\infty":
        return f"{low}{left}{letter}" if swap else f"{letter}{left.replace('<', '>').replace('le', 'ge')}{low}"
    return f"{low}{left}{letter}{right}{high}"


table("interval", {
    "as an inequality": lambda r, g: _inequality(r, g.choice("xta"), swap=False),
    "as an inequality read from the right": lambda r, g: _inequality(r, g.choice("xt"), swap=True) if "infty" in "".join(r.parts) else None,
    "x in the interval": lambda r, g: rf"x \in {r.answer}",
    "left and right, other spaces": lambda r, g: rf"\left{r.extra['opening']} {r.parts[0]}, {r.parts[1]} \right{r.extra['closing']}",
    "ends in another form": lambda r, g: r.extra["opening"] + ",".join(_other_entry(e, g) for e in r.parts) + r.extra["closing"],
    "infinity as Unicode": lambda r, g: r.answer.replace(r"\infty", "∞") if "infty" in r.answer else None,
    "infinity with a plus": lambda r, g: re.sub(r"(?<!-)\\infty", r"+\\infty", r.answer) if re.search(r"(?<!-)\\infty", r.answer) else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
})
table("open interval", {
    "as an inequality": lambda r, g: f"{r.parts[0]} < x < {r.parts[1]}",
    "x in the interval": lambda r, g: rf"x \in {r.answer}",
})
table("union", {
    "parts in another order": lambda r, g: r" \cup ".join(s) if (s := writing.shuffled(r.parts, g)) else None,
    "union sign as Unicode": lambda r, g: " ∪ ".join(r.parts),
    "x in the union": lambda r, g: rf"x \in {r.answer}",
    "full stop in the box": lambda r, g: f"{r.answer}.",
})
table("list", {
    "entries in another order": lambda r, g: ", ".join(s) if (s := writing.shuffled(r.parts, g)) else None,
    "other spaces": lambda r, g: g.choice([",", ", ", r",\,", r",\; ", " , "]).join(r.parts),
    "and between the entries": lambda r, g: g.choice([r"%s \text{ and } %s", "%s and %s"]) % tuple(r.parts) if len(r.parts) == 2 else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "entries in another form": lambda r, g: ", ".join(_other_entry(e, g) for e in r.parts),
})
table("matrix", {
    "square brackets": lambda r, g: writing.matrix(r.parts, "bmatrix"),
    "array in parentheses": lambda r, g: rf"\left( \begin{{array}}{{{'c' * len(r.parts[0])}}} " + r" \\ ".join(" & ".join(row) for row in r.parts) + r" \end{array} \right)",
    "entries in another form": lambda r, g: writing.matrix([[_other_entry(e, g) for e in row] for row in r.parts]),
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "no spaces": lambda r, g: writing.matrix(r.parts).replace(" ", ""),
    "letter = matrix": lambda r, g: rf"\mathbf{{{g.choice('AMv')}}} = {r.answer}",
})
table("assignment", {
    "number alone": lambda r, g: r.parts,
    "sides swapped": lambda r, g: f"{r.parts} = {r.extra['letter']}",
    "number in another form": lambda r, g: f"{r.extra['letter']}={_other_entry(r.parts, g)}",
})
table("equation", {
    "sides swapped": lambda r, g: f"{r.parts[1]} = {r.parts[0]}",
    "other spaces": lambda r, g: r.answer.replace(" = ", "=") if " = " in r.answer else r.answer.replace("=", " = "),
    "full stop in the box": lambda r, g: f"{r.answer}.",
})
table("word", {
    "plain word": lambda r, g: r.parts,
    "another text command": lambda r, g: rf"\{g.choice(['textbf', 'mathrm', 'textit', 'mbox', 'text'])}{{{r.parts}}}",
    "full stop in the box": lambda r, g: g.choice([r"\text{%s.}", r"\text{%s}.", "%s."]) % r.parts,
    "spaces inside": lambda r, g: rf"\text{{ {r.parts} }}",
})
table("letter", {
    "another way to write the letter": lambda r, g: g.choice(["%s", "(%s)", r"\text{%s}", r"\text{(%s)}", r"\textbf{(%s)}", r"\mathrm{%s}", r"\mathbf{%s}", r"(\text{%s})", r"\textbf{%s}", "%s."]) % r.parts,
})
table("base", {
    "braces around the base": lambda r, g: f"{r.parts[0]}_{{{r.parts[1]}}}",
    "base without braces": lambda r, g: f"{r.parts[0]}_{r.parts[1]}" if len(r.parts[1]) == 1 else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "base in text": lambda r, g: rf"{r.parts[0]}_{{\text{{{r.parts[1]}}}}}",
    "digits in parentheses": lambda r, g: f"({r.parts[0]})_{{{r.parts[1]}}}",
})
table("power", {
    "one factor apart": lambda r, g: rf"{r.parts[0]} \cdot {r.parts[0]}^{{{r.parts[1] - 1}}}",
    "square of the base": lambda r, g: rf"{r.parts[0] ** 2}^{{{r.parts[1] // 2}}}" if r.parts[1] % 2 == 0 and r.parts[0] < 10 else None,
    "full stop in the box": lambda r, g: f"{r.answer}.",
})
table("expression", {
    "as the reference": lambda r, g: r.answer,
    "full stop in the box": lambda r, g: f"{r.answer}.",
    "dfrac for frac": lambda r, g: r.answer.replace(r"\frac", r"\dfrac") if r"\frac{" in r.answer else None,
    "tfrac for frac": lambda r, g: r.answer.replace(r"\frac", r"\tfrac") if r"\frac{" in r.answer else None,
    "displaystyle": lambda r, g: rf"\displaystyle {r.answer}",
    "spaces around": lambda r, g: g.choice([r"\,%s", " %s ", r"%s\;", "{%s}"]) % r.answer,
    "left and right": lambda r, g: r.answer.replace("(", r"\left(").replace(")", r"\right)") if "(" in r.answer and "left" not in r.answer and "big" not in r.answer.lower() else None,
})
table(tuple(k for k in ("integer", "decimal", "scientific", "fraction", "grouped", "percent", "money", "degrees", "unit", "root", "pi", "complex", "polynomial", "tuple", "open interval", "interval", "union", "list", "matrix", "assignment", "equation", "word", "letter", "base", "power")), {
    "as the reference": lambda r, g: r.answer,
})

# Whole completions --------------------------------------------------------------------------------

SENTENCES = (
    "The answer is %s.", "The answer is: %s", "Final answer: %s", "**Final answer:** %s", "**Answer:** %s",
    "So the final answer is %s.", "Therefore, the answer is %s.", "The final answer is **%s**.", "#### %s",
    "Let me think.\n\nAnswer: %s", "We add the parts.\n#### %s", "<answer>%s</answer>", "Done.\n<answer> %s </answer>",
    "the answer is:\n%s", "Thus the correct answer is %s.", "The answer is %s",
)


@completion(NUMBERS[:2], "sentence that names the answer")
def _sentence(ref: Reference, rng: Random) -> str:
    form = rng.choice([ref.answer, ref.answer, f"${ref.answer}$", rf"\({ref.answer}\)"])
    return rng.choice(SENTENCES) % form


@completion(("fraction", "root", "pi", "tuple", "complex", "interval", "polynomial", "matrix", "scientific"), "sentence that names the answer, in math marks")
def _math_sentence(ref: Reference, rng: Random) -> str:
    form = rng.choice(["$%s$", r"\(%s\)", "$$%s$$", "\n\\[\n%s\n\\]"]) % ref.answer
    return rng.choice(["The answer is %s", "The answer is: %s", "Final answer: %s", "**Answer:** %s", "<answer>%s</answer>", "So the final answer is %s"]) % form


@completion(("root", "tuple", "fraction", "pi"), "sentence that names the answer, no math marks")
def _bare_sentence(ref: Reference, rng: Random) -> str:
    return rng.choice(["The answer is %s.", "Answer: %s", "<answer>%s</answer>", "The final answer is %s", "#### %s"]) % ref.answer


@completion("letter", "sentence that names the letter")
def _letter_sentence(ref: Reference, rng: Random) -> str:
    return rng.choice(["The answer is %s.", "The answer is (%s).", "Answer: %s", "The correct answer is **(%s)**.", "<answer>%s</answer>", "Final answer: (%s)", "The correct option is (%s), so the answer is (%s).", "#### %s"]).replace("%s", ref.parts)


@completion("word", "sentence that names the word")
def _word_sentence(ref: Reference, rng: Random) -> str:
    return rng.choice(["The answer is %s.", "Answer: %s", "**Answer:** %s", "<answer>%s</answer>", "The final answer is **%s**."]) % str(ref.parts)


def _near(ref: Reference, rng: Random) -> str:
    """Return a wrong number near the reference."""
    number = ref.parts + rng.choice([1, 2, -1, 10])
    return writing.decimal(number) or writing.fraction(number)


@completion(NUMBERS[:1], "wrong thoughts, right answer")
def _thoughts(ref: Reference, rng: Random) -> str:
    near = _near(ref, rng)
    return rng.choice([
        rf"<think>Maybe \boxed{{{near}}}? No, I forgot a term.</think>" "\n" rf"The answer is \boxed{{{ref.answer}}}.",
        f"<think>\nIt could be {near}. Let me check again.\n</think>\n\nThe answer is {ref.answer}.",
        f"so it is {near}, or not.\n</think>\n" rf"$\boxed{{{ref.answer}}}$",
        f"<thinking>The answer is {near}? No.</thinking>\n" rf"\boxed{{{ref.answer}}}",
    ])


@completion(NUMBERS[:1], "corrected box")
def _corrected(ref: Reference, rng: Random) -> str:
    near = _near(ref, rng)
    return rng.choice([
        rf"\boxed{{{near}}}. Wait, that is wrong: I forgot a term. The final answer is \boxed{{{ref.answer}}}.",
        rf"At first I get \boxed{{{near}}}. That is a mistake. Corrected: \boxed{{{ref.answer}}}",
        rf"The first part gives $\boxed{{{near}}}$. Using it in the second part, the final answer is $\boxed{{{ref.answer}}}$.",
    ])


@completion((*NUMBERS, "tuple"), "text after the box")
def _text_after(ref: Reference, rng: Random) -> str:
    return rf"\boxed{{{ref.answer}}}" + rng.choice([
        "\n\nNote: 1 hour = 60 minutes.", " This completes the solution.", "\n\nLet me know if you have any questions!",
        "\n\nCheck: the sum of the parts is as it should be, so step 2 is done.", "<|im_end|>", "\n</answer>", "\n\n$\\blacksquare$",
    ])


@completion(NUMBERS[:1], "text after the sentence")
def _note_after(ref: Reference, rng: Random) -> str:
    return rng.choice(["The answer is %s.", "Final answer: %s", "<answer>%s</answer>", "**Answer:** %s"]) % ref.answer + rng.choice([
        "\n\nNote: 1 hour = 60 minutes.", "\n\nThis took 3 steps.", "\nStep 2 is done.", "\n\n(We used that 1 km = 1000 m.)",
    ])


@completion((*NUMBERS, "root", "tuple"), "other kinds of box")
def _boxes(ref: Reference, rng: Random) -> str:
    forms = [rf"The answer is $\fbox{{{ref.answer}}}$", rf"\boxed{{\boxed{{{ref.answer}}}}}", rf"$$\n\boxed{{ {ref.answer} }}\n$$".replace(r"\n", "\n"), rf"\boxed {{{ref.answer}}}", rf"\boxed{{\displaystyle {ref.answer}}}", rf"**$\boxed{{{ref.answer}}}$**"]
    if re.fullmatch(r"\d", ref.answer):
        forms += [rf"$\boxed {ref.answer}$", rf"So $\boxed{ref.answer}$."] * 2
    return rng.choice(forms)


@completion(NUMBERS, "the same box twice")
def _twice(ref: Reference, rng: Random) -> str:
    other = f"{ref.answer}.0" if ref.kind == "integer" else ref.answer
    return rf"We find $\boxed{{{ref.answer}}}$." + "\n\n**Final Answer**\n" + rf"$\boxed{{{other}}}$"


@completion("list", "one box for each part")
def _box_each(ref: Reference, rng: Random) -> str:
    joiner = rng.choice([" and ", ", ", " and "]) if len(ref.parts) == 2 else ", "
    return "The answers are " + joiner.join(rf"$\boxed{{{part}}}$" for part in ref.parts) + "."


@completion(NUMBERS[:1], "another language around the box")
def _language(ref: Reference, rng: Random) -> str:
    return rng.choice(["答案是 $\\boxed{%s}$。", "所以,最终答案是 \\boxed{%s}。", "Die Antwort ist $\\boxed{%s}$.", "La respuesta es $\\boxed{%s}$.", "La réponse est \\boxed{%s}.", "Ответ: $\\boxed{%s}$."]) % ref.answer


REMARKS = (
    "We rewrite the expression.", "Let $x = 3$ for a moment.", "The sum of the first two terms is $3 + 10 = 13$.",
    r"Hence $\frac{a}{b} = \frac{c}{d}$.", "This does not depend on the order.",
)


@completion("integer", "a worked solution of GSM8K")
def _worked(ref: Reference, rng: Random) -> str | None:
    if not ref.solution or len(ref.solution) > 400:
        return None
    ending = rng.choice(["\n#### %s", "\n\nThe answer is %s.", "\nSo the answer is $\\boxed{%s}$.", "\n\n**Final Answer:** %s", "\n\n\\boxed{%s}"])
    return ref.solution + ending % ref.answer


@completion(("fraction", "root", "tuple", "interval", "matrix"), "long text before the box")
def _long(ref: Reference, rng: Random) -> str:
    steps = [f"Step {n}. {rng.choice(REMARKS)}" for n in range(1, rng.randint(3, 6))]
    return "\n".join(steps) + f"\n\nPutting it together, we obtain\n\\[\n\\boxed{{{ref.answer}}}\n\\]"
