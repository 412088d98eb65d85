r"""Whether an answer only repeats the question: "2 + 3" for "What is 2 + 3?" is no answer.

An expression that is not worked out counts as an answer where the reference is written just so, or
where the question does not contain it.
"""

import re
from collections import Counter
from functools import lru_cache
from typing import Any

from rloop.tasks.verifiers.formula import NotReadError, Tree, read_formula
from rloop.tasks.verifiers.latex import WORDS_CLOSE, WORDS_OPEN, clean
from rloop.tasks.verifiers.numbers import read_number

_ARITHMETIC = re.compile(r"(?:[\d.,\s()+\-*/^{}]|\\cdot|\\times|\\div|\\frac)+")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_SEGMENT = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)


def is_unworked(reference: str, answer: str, question: str) -> bool:
    """Whether an answer is an expression of the question and not how the reference is written.

    Example: ("5", "3 + 2", "What is 2 + 3?") -> True; ("10", "10", "Is 10 even?") -> False.
    """
    if not question:
        return False
    wanted, whole = clean(reference), clean(answer)
    sides = [side.strip() for side in re.split(r"(?<![<>!])=", whole)]
    if any(read_number(side) is not None and not _is_fraction(side) for side in sides):
        return _is_converted(sides[-1], wanted, question)
    found = sides[-1]
    if (
        not found
        or _flat(whole) == _flat(wanted)
        or _flat(found) == _flat(wanted)
        or _is_plain(found)
    ):
        return False
    if _same_tree(found, wanted):
        return False
    return _is_converted(found, wanted, question) or _repeats(found, wanted, question)


def _repeats(found: str, wanted: str, question: str) -> bool:
    """Whether an expression says what the question says: its formula, or its numbers."""
    if (
        _is_number(wanted)
        and not _is_one_fraction(found)
        and not re.search("[A-Za-z]", _bare(found))
    ):
        numbers = set(_numbers(found)) - {"0", "1"}
        if numbers and not numbers - set(_numbers(clean(question))):
            return True
    is_kept = _is_one_fraction(found) and (_is_fraction(wanted) or "decimal" not in question)
    is_kept = is_kept and (_is_fraction(wanted) or "." in wanted)
    arithmetic = _arithmetic(found)
    if arithmetic is not None and not is_kept:
        asked = Counter(_numbers(clean(question)))
        used = Counter(number for number in _numbers(arithmetic) if number not in ("0", "1"))
        if used and not used - asked:
            return True
    if is_kept and not _is_fraction(wanted):
        return False
    if len(_flat(found)) > 2 and _flat(found) in _flat(clean(question)):
        return True
    tree = _canonical(found)
    return tree is not None and tree in _trees(question)


def _is_plain(text: str) -> bool:
    """Whether a text is a value as one writes it: an integer, a decimal, one symbol, a word."""
    number = read_number(text)
    if number is not None:
        return not _is_fraction(text)
    if re.fullmatch(r"[^+\-*/^=<>,;|!{}()\\]*", text) and not re.search(
        r"\d\s*[A-Za-z]|[A-Za-z]\s*\d", text
    ):
        return True
    return (
        re.fullmatch(r"-?\s*(?:\\?[A-Za-z]+|[\d.]+)\s*(?:\^\s*\{?\\circ\}?|%)?", text) is not None
    )


def _is_converted(found: str, wanted: str, question: str) -> bool:
    """Whether a number is written as the question has it where it asks for the other way."""
    asked = _flat(clean(question))
    is_decimal = re.fullmatch(r"-?\d*\.\d+", found) is not None
    if is_decimal and _is_fraction(wanted):
        return re.search(rf"(?<![\d.]){re.escape(_flat(found))}(?!\d)", asked) is not None
    return False


def _is_fraction(text: str) -> bool:
    return "/" in text or r"\frac" in text


def _is_number(text: str) -> bool:
    return read_number(text) is not None and not _is_fraction(text)


def _bare(text: str) -> str:
    """Return a formula without its commands and the words in it."""
    text = re.sub(f"{WORDS_OPEN}[^{WORDS_CLOSE}]*{WORDS_CLOSE}", " ", text)
    return re.sub(r"\\[A-Za-z]+", " ", text)


def _is_one_fraction(text: str) -> bool:
    return re.fullmatch(r"-?(?:\\frac\{\d+\}\{\d+\}|\d+\s*/\s*\d+)", text) is not None


def _arithmetic(text: str) -> str | None:
    """Return an expression of numbers and + - * / without what changes nothing, None for others.

    Absolute values, squares and roots are taken away too: sqrt((2+3)^2) says no more than 2+3. A
    remainder still to be taken counts as arithmetic.
    """
    text = re.sub(f"{WORDS_OPEN}[^{WORDS_CLOSE}]*{WORDS_CLOSE}", " ", text)
    has_remainder = re.search(r"\\b?mod(?![A-Za-z])", text) is not None
    text = re.sub(r"\\b?mod(?![A-Za-z])|\^\{[12]\}|\\sqrt|\||%", " ", text)
    if _ARITHMETIC.fullmatch(text) is None or ("^" in text and not has_remainder):
        return None
    return text


def _numbers(text: str) -> list[str]:
    found = (number.replace(",", "") for number in _NUMBER.findall(text))
    return [number.rstrip("0").rstrip(".") if "." in number else number for number in found]


def _same_tree(left: str, right: str) -> bool:
    tree = _canonical(left)
    return tree is not None and tree == _canonical(right)


@lru_cache(maxsize=4096)
def _canonical(text: str) -> Tree | None:
    """Return the tree of an expression with the terms of sums and products in one order."""
    try:
        return _sorted(read_formula(text).tree)
    except NotReadError:
        return None


def _sorted(tree: Tree) -> Tree:
    parts = [_sorted(part) if isinstance(part, tuple) else part for part in tree]
    if tree[0] == "pow" and parts[2] == ("num", 1):
        return tuple(parts[1])
    if tree[0] == "pow" and parts[2] == ("div", ("num", 1), ("num", 2)):
        return ("root", ("num", 2), parts[1])
    if tree[0] in ("add", "mul"):
        flat: list[Any] = []
        for part in parts[1:]:
            flat += part[1:] if isinstance(part, tuple) and part[0] == tree[0] else [part]
        neutral = ("num", 0 if tree[0] == "add" else 1)
        flat = [part for part in flat if part not in (neutral, ("neg", neutral))] or flat[:1]
        return flat[0] if len(flat) == 1 else (tree[0], *sorted(flat, key=repr))
    return tuple(parts)


@lru_cache(maxsize=1024)
def _trees(question: str) -> frozenset[Tree]:
    """Return the formulas of a question, and the sides of its equations."""
    found = set()
    for groups in _SEGMENT.findall(question):
        for side in re.split(r"[=<>,]", clean("".join(groups))):
            tree = _canonical(side.strip()) if side.strip() else None
            if tree is not None:
                found.add(tree)
    return frozenset(found)


def _flat(text: str) -> str:
    text = re.sub(r"\\(?:cdot|times)(?![A-Za-z])|\*", "*", text)
    return re.sub(r"\\(?=[{}])|[\s{}$]+", "", text).casefold()
