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
    found = re.split(r"(?<![<>!])=", whole)[-1].strip()
    if (
        not found
        or _flat(whole) == _flat(wanted)
        or _flat(found) == _flat(wanted)
        or _is_plain(found)
    ):
        return False
    if _is_arithmetic(found) and not (_is_fraction(found) and _is_fraction(wanted)):
        asked = Counter(_numbers(clean(question)))
        if not Counter(_numbers(found)) - asked:
            return not _same_tree(found, wanted)
    if len(_flat(found)) > 2 and _flat(found) in _flat(clean(question)):
        return True
    tree = _canonical(found)
    return tree is not None and tree in _trees(question) and tree != _canonical(wanted)


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


def _is_fraction(text: str) -> bool:
    return "/" in text or r"\frac" in text


def _is_arithmetic(text: str) -> bool:
    text = text.replace(WORDS_OPEN, " ").replace(WORDS_CLOSE, " ")
    if re.search(r"\\b?mod(?![A-Za-z])", text):  # a remainder still to be taken
        return _ARITHMETIC.fullmatch(re.sub(r"\\b?mod(?![A-Za-z])", " ", text)) is not None
    return _ARITHMETIC.fullmatch(text) is not None and "^" not in text


def _numbers(text: str) -> list[str]:
    return [found.replace(",", "") for found in _NUMBER.findall(text)]


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
    if tree[0] in ("add", "mul"):
        flat: list[Any] = []
        for part in parts[1:]:
            flat += part[1:] if isinstance(part, tuple) and part[0] == tree[0] else [part]
        return (tree[0], *sorted(flat, key=repr))
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
    return re.sub(r"[\s{}$]+", "", text).casefold()
