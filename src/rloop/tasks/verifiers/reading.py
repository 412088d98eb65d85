r"""Parse a cleaned answer into the noun that it is: quantity, tuple, interval, equation, words."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from rloop.tasks.verifiers import latex
from rloop.tasks.verifiers.evaluate import inexact, value_of
from rloop.tasks.verifiers.formula import NotReadError, read_formula
from rloop.tasks.verifiers.formula_equality import is_equal
from rloop.tasks.verifiers.quantities import IS_NAME, NAME, is_free_name, read_quantity, spelled
from rloop.tasks.verifiers.values import (
    Based,
    Contradiction,
    Infinity,
    Matrix,
    Named,
    Quantity,
    Region,
    Relation,
    Several,
    Value,
    Words,
    as_region,
    is_end,
)

_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_OR = re.compile(
    rf"\s*(?:[,;]\s*)?{latex.WORDS_OPEN}\s*,?\s*(?:and|or|AND|OR)\s*{latex.WORDS_CLOSE}\s*"
    rf"|\s*(?:[,;]\s*)?\b(?:and|or|AND|OR)\b\s*|\s*\\(?:lor|vee|land|wedge)(?![A-Za-z])\s*"
)
_BASED = re.compile(
    r"\(?\s*(-?[0-9A-Fa-f][0-9A-Fa-f ]*(?:\.[0-9A-Fa-f]+)?)\s*\)?\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))"
)
_SIGNS = re.compile(r"(<=|>=|!=|<|>|=|\\in(?![A-Za-z]))")
_INFINITY = re.compile(r"([-+]?)\s*\\infty")
_EMPTY_SET = re.compile(r"\\(?:emptyset|varnothing)|\\\{\s*\\\}|empty set|\u27e6empty set\u27e7")
_REALS = re.compile(r"\\mathbb\{R\}(?:\s*\\(?:setminus|backslash)\s*\\\{(.+)\\\})?")


@lru_cache(maxsize=8192)
def read_value(text: str, known: frozenset[str] = frozenset()) -> Value:
    """Parse a cleaned answer; what is nothing else is words. `known` are words of the question."""
    value = _read(text.strip(), known)
    return Words(latex.words(text)) if value is None else value


def _read(text: str, known: Collection[str]) -> Value | None:
    """Return the value of a text, None where only words are left."""
    exact, about, rest = text.partition(r"\approx")
    if about:
        return _approximated(exact.strip(), rest.strip(), known)
    readers: tuple[Callable[[str, Collection[str]], Value | None], ...] = (
        _empty_set, _reals, _based, _matrix, _plus_minus, _bracketed, _union, _relation, _separated,
        _infinity, read_quantity,
    )  # fmt: skip
    for reader in readers:
        value = reader(text, known)
        if value is not None:
            return value
    return None


def _approximated(exact: str, about: str, known: Collection[str]) -> Value | None:
    """Read "7/3 \\approx 2.33" as 7/3, where that is about right, and "x \\approx 2.33" as 2.33."""
    rounded = _read(about, known)
    if not exact:
        return rounded
    if IS_NAME.fullmatch(exact):
        return None if rounded is None else Named(spelled(exact), rounded)
    value = _read(exact, known)
    if not isinstance(value, Quantity) or not isinstance(rounded, Quantity):
        return None
    try:
        found = [inexact(value_of(quantity.formula)) for quantity in (value, rounded)]
    except ArithmeticError:
        return None
    is_near = abs(found[0] - found[1]) <= abs(found[0]) / 20
    return value if is_near else Contradiction(f"{exact} is not about {about}")


def _empty_set(text: str, known: Collection[str]) -> Value | None:
    return Several("set", ()) if _EMPTY_SET.fullmatch(text.strip().casefold()) else None


def _reals(text: str, known: Collection[str]) -> Value | None:
    r"""Read \mathbb{R}, perhaps without some points, as intervals."""
    found = _REALS.fullmatch(text.strip())
    if found is None:
        return None
    low: Value = Infinity(is_negative=True)
    pieces = []
    points = [_read(part.strip(), known) for part in latex.split_top(found[1] or "", ",") if part]
    if not all(isinstance(point, Quantity) and not point.formula.symbols for point in points):
        return None
    quantities = [point for point in points if isinstance(point, Quantity)]
    for point in sorted(quantities, key=lambda quantity: inexact(value_of(quantity.formula))):
        pieces.append((low, point, True, True))
        low = point
    return Region((*pieces, (low, Infinity(is_negative=False), True, True)))


def _based(text: str, known: Collection[str]) -> Value | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    base = int(found[2] or found[3])
    digits = found[1].replace(" ", "").upper().lstrip("0") or "0"
    if base == 10 and re.fullmatch(r"-?[\d.]+", digits):
        return read_quantity(digits, known)
    if not 2 <= base <= 36 or any(int(d, 36) >= base for d in digits if d.isalnum()):
        return None
    return Based(digits, base)


def _matrix(text: str, known: Collection[str]) -> Value | None:
    if text.startswith(("(", "[")) and latex.closes_at_end(text):
        text = text[1:-1].strip()
    found = _MATRIX.fullmatch(text)
    if found is None or found[1] in ("vmatrix", "Vmatrix") or r"\begin" in found[2]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", found[2]) if row.strip()]
    cells = tuple(tuple(read_value(cell.strip()) for cell in row.split("&")) for row in rows)
    return Matrix(cells) if len({len(row) for row in cells}) == 1 else None


def _plus_minus(text: str, known: Collection[str]) -> Value | None:
    """Read a \\pm b as the two values a + b, a - b."""
    if r"\pm" not in text or r"\mp" in text or len(latex.split_top(text, ",;")) > 1:
        return None
    if text.startswith(("(", "[", r"\{", "{")) and latex.closes_at_end(text.lstrip("\\")):
        return None
    if len(_SIGNS.findall(text)) > 1:
        return None
    plus, minus = (_read(re.sub(r"\\pm(?![A-Za-z])", sign, text), known) for sign in "+-")
    if isinstance(plus, Quantity | Named) and isinstance(minus, Quantity | Named):
        return Several("list", (plus, minus))
    return None


def _bracketed(text: str, known: Collection[str]) -> Value | None:
    """Read what stands in one pair of brackets: a tuple, set, interval, vector."""
    for opening, closing, kind in (
        (r"\{", r"\}", "set"), (r"\langle", r"\rangle", "angles"), ("(", ")", "tuple"),
        ("[", "]", "brackets"), ("(", "]", "half"), ("[", ")", "half"), ("]", "[", "outward"),
        ("[", "[", "half"), ("]", "]", "half"), ("]", ")", "half"), ("(", "[", "half"),
    ):  # fmt: skip
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening):
            inside = text[len(opening) : len(text) - len(closing)]
            if kind in ("set", "tuple", "brackets") and not _is_one_group(text):
                continue
            return _in_brackets(inside, opening, closing, kind, known)
    return None


def _is_one_group(text: str) -> bool:
    return latex.closes_at_end(text.replace(r"\{", "{").replace(r"\}", "}"))


def _in_brackets(
    inside: str, opening: str, closing: str, kind: str, known: Collection[str]
) -> Value | None:
    parts = [part.strip() for part in latex.split_top(inside, ",;")]
    if len(parts) == 1:
        if kind == "set" and not re.search(r"[|:]|\\mid", inside):
            values = _list_parts(inside, known)
            return None if values is None else Several("set", values)
        if kind == "tuple" and re.fullmatch("[A-Z]", inside):
            return None
        return _read(inside, known) if kind == "tuple" else None
    if kind == "set" and re.search(r"(?<!\|)[|:](?!\|)|\\mid", inside):
        return None
    if any(not part for part in parts):
        return None
    values = tuple(read_value(part, frozenset(known)) for part in parts)
    ends = len(values) == 2 and all(is_end(value) for value in values)
    is_interval = kind in ("half", "outward") or any(isinstance(v, Infinity) for v in values)
    if is_interval or (kind == "brackets" and ends):
        if not ends:
            return None
        opens = (opening in ("(", "]"), closing in (")", "["))
        return Region(((values[0], values[1], *opens),))
    if kind == "set":
        found = _list_parts(inside, known)
        return None if found is None else Several("set", found)
    return None if kind in ("half", "outward") else Several(kind, values)


def _union(text: str, known: Collection[str]) -> Value | None:
    if r"\cup" not in text:
        return None
    head = re.match(rf"\s*({NAME})\s*\\in\s*(.*)", text, re.DOTALL)
    name, body = (head[1], head[2]) if head else ("", text)
    parts = [_read(part.strip(), known) for part in re.split(r"\\cup(?![A-Za-z])", body)]
    regions = [as_region(part) for part in parts if part is not None]
    if len(regions) == len(parts) and all(region is not None for region in regions):
        pieces = tuple(piece for region in regions if region for piece in region.pieces)
        return Region(pieces, name)
    return None


def _relation(text: str, known: Collection[str]) -> Value | None:
    """Read equations, chains of them, and inequalities; several of them are read as a list."""
    if len(latex.split_top(text, ",;")) > 1 or not _SIGNS.search(text):
        return None
    pieces = _OR.split(text)
    if len(pieces) > 1:
        return _alternatives(pieces, text, known)
    parts = _split_signs(text)
    sides, signs = parts[::2], parts[1::2]
    if not signs or not all(side.strip() for side in sides):
        return None
    if all(sign == "=" for sign in signs):
        return _equation([side.strip() for side in sides], known)
    if signs == [r"\in"]:
        inner = as_region(_read(sides[1].strip(), known))
        if inner is not None and IS_NAME.fullmatch(sides[0].strip()):
            return replace(inner, name=sides[0].strip())
        return None
    if "=" in signs or r"\in" in signs:
        return None
    return _inequality([side.strip() for side in sides], signs, known)


def _split_signs(text: str) -> list[str]:
    """Split at signs of relations that stand outside of braces."""
    parts, depth, last = [], 0, 0
    position = 0
    while position < len(text):
        char = text[position]
        depth += (char in "{(") - (char in "})")
        found = _SIGNS.match(text, position) if depth == 0 else None
        if found:
            parts += [text[last:position], found[0]]
            last = position = found.end()
        else:
            position += 1
    return [*parts, text[last:]]


def _alternatives(pieces: list[str], text: str, known: Collection[str]) -> Value | None:
    values = [_read(piece.strip(), known) for piece in pieces]
    if any(value is None for value in values):
        return None
    if all(isinstance(value, Region) for value in values):
        regions = [value for value in values if isinstance(value, Region)]
        names = {region.name for region in regions}
        is_or = re.search(r"\b(?:or|OR)\b|\\lor|\\vee", text)
        if len(names) == 1 and is_or:
            return Region(tuple(p for r in regions for p in r.pieces), names.pop())
        return None
    return Several("list", tuple(value for value in values if value is not None))


def _equation(sides: list[str], known: Collection[str]) -> Value | None:
    """Read a = b: a name with its value, a true chain as its last value, else an equation."""
    name = ""
    if re.fullmatch(rf"\({NAME}(?:,\s*{NAME})+\)", sides[0]) and len(sides) == 2:
        return _named_tuple(sides[0], _read(sides[1], known))
    if is_free_name(sides[0], sides[1:]):
        name, sides = sides[0], sides[1:]
    elif len(sides) == 2 and is_free_name(sides[1], sides[:1]):
        name, sides = sides[1], sides[:1]
    values = [_read(side, known) for side in sides]
    last = values[-1]
    if last is None or any(value is None for value in values):
        return (
            Named(spelled(name), Words(latex.words(sides[-1])))
            if name and len(sides) == 1
            else None
        )
    if _all_agree(values):
        return Named(spelled(name), last) if name else last
    quantities = [value for value in values if isinstance(value, Quantity)]
    is_worked_out = isinstance(last, Quantity) and not last.formula.symbols and len(sides) > 1
    if name and is_worked_out and all(value.formula.symbols for value in quantities[:-1]):
        return Named(spelled(name), last)  # V = \\pi r^2 h = 36 \\pi
    symbols = any(value.formula.symbols for value in quantities)
    if name or not symbols or len(sides) != 2 or len(quantities) != 2:
        return Contradiction("=".join(sides)) if not symbols or name else None
    return _difference("=", sides[0], sides[1])


def _named_tuple(names: str, value: Value | None) -> Value | None:
    """Return (x, y) = (1, 2) as a tuple whose parts have names."""
    parts = [part.strip() for part in latex.split_top(names[1:-1], ",")]
    if not isinstance(value, Several) or value.kind != "tuple" or len(value.parts) != len(parts):
        return None
    named = (Named(spelled(name), part) for name, part in zip(parts, value.parts, strict=True))
    return Several("tuple", tuple(named))


def _all_agree(values: Sequence[Value | None]) -> bool:
    """Whether the sides of a chain such as 2 + 3 = 10/2 = 5 are equal."""
    formulas = [v.formula for v in values if isinstance(v, Quantity)]
    if len(values) == 1:
        return True
    if len(formulas) != len(values):
        return all(value == values[0] for value in values)
    try:
        return all(is_equal(formulas[-1], formula) for formula in formulas[:-1])
    except ArithmeticError:
        return False


def _difference(sign: str, left: str, right: str) -> Relation | None:
    try:
        return Relation(sign, read_formula(f"({left})-({right})"))
    except NotReadError:
        return None


def _inequality(sides: list[str], signs: list[str], known: Collection[str]) -> Value | None:
    if signs[0].startswith(">") and all(sign.startswith(">") for sign in signs):
        flipped = [sign.replace(">", "<") for sign in reversed(signs)]
        return _inequality(list(reversed(sides)), flipped, known)
    if len(signs) == 1 and signs[0] == "!=":
        return _not_equal(sides, known)
    if not all(sign.startswith("<") for sign in signs) or len(signs) > 2:
        return None
    low, high = Infinity(is_negative=True), Infinity(is_negative=False)
    names = [IS_NAME.fullmatch(side) is not None for side in sides]
    values = [_read(side, known) for side in sides]
    is_open = [sign == "<" for sign in signs]
    left, right = values[0], values[-1]
    if len(sides) == 3 and names[1] and left and right and is_end(left) and is_end(right):
        return Region(((left, right, is_open[0], is_open[1]),), spelled(sides[1]))
    if len(sides) == 2 and names[0] and not names[1] and right and _is_constant(right):
        return Region(((low, right, True, is_open[0]),), spelled(sides[0]))
    if len(sides) == 2 and names[1] and not names[0] and left and _is_constant(left):
        return Region(((left, high, is_open[0], True),), spelled(sides[1]))
    return _difference(signs[0], sides[0], sides[1]) if len(sides) == 2 else None


def _is_constant(value: Value) -> bool:
    return isinstance(value, Infinity) or (
        isinstance(value, Quantity) and not value.formula.symbols
    )


def _not_equal(sides: list[str], known: Collection[str]) -> Value | None:
    low, high = Infinity(is_negative=True), Infinity(is_negative=False)
    value = _read(sides[1], known)
    if IS_NAME.fullmatch(sides[0]) and isinstance(value, Quantity) and _is_constant(value):
        pieces = ((low, value, True, True), (value, high, True, True))
        return Region(pieces, spelled(sides[0]))
    return _difference("!=", sides[0], sides[1])


def _separated(text: str, known: Collection[str]) -> Value | None:
    """Read values that stand side by side without brackets, and ratios."""
    bare = re.sub(r"\u27e6[^\u27e7]*\u27e7|%|[A-Za-z ]+$", "", text).strip()
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", bare):
        return None
    ratio = latex.split_top(text, ":")
    if len(ratio) > 1 and all(
        re.fullmatch(r"\s*[\d.]+\s*|\s*\\frac.*|\s*\\sqrt.*|\s*[a-z]\s*", part) for part in ratio
    ):
        return Several("ratio", tuple(read_value(part.strip()) for part in ratio))
    if not _OR.search(text) and len(latex.split_top(text, ",;")) < 2:
        return None
    values = _list_parts(text, known)
    return None if values is None else Several("list", values)


def _list_parts(text: str, known: Collection[str]) -> tuple[Value, ...] | None:
    """Return values joined by commas, "and" or "or"; those written with \\pm count twice."""
    spread = _OR.sub(",", text) if _OR.search(text) else text
    pieces = [piece.strip() for piece in latex.split_top(spread, ",;")]
    if not all(pieces) or pieces == [text]:
        return _one(text, known)
    values: list[Value] = []
    for piece in pieces:
        value = _read(piece, known)
        if value is None:
            if len(pieces) == 1 or not re.fullmatch(r"[\w \u27e6\u27e7:-]+", piece):
                return None
            value = Words(latex.words(piece))
        if isinstance(value, Several) and value.kind == "list":
            values += value.parts
        else:
            values.append(value)
    return tuple(values)


def _one(text: str, known: Collection[str]) -> tuple[Value, ...] | None:
    """Return the only value between braces: {5}, or the two of 1 \\pm 2."""
    value = _plus_minus(text, known) or _relation(text, known) or read_quantity(text, known)
    if isinstance(value, Several):
        return value.parts
    return None if value is None else (value,)


def _infinity(text: str, known: Collection[str]) -> Value | None:
    found = _INFINITY.fullmatch(text.strip())
    return Infinity(found[1] == "-") if found else None
