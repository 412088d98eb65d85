"""Real references of the data folder, sorted into kinds whose meaning is known exactly.

A reference that fits none of the kinds is of kind "expression": rules may change how it is written
or take a part away, and nothing else.
"""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

FILES = (
    "gsm8k_train", "gsm8k_test", "math_test5000", "math_train7474", "minerva_math",
    "aime_1983_2023", "aime24", "aime25", "amc23", "omni_math_rule", "dsr_sub1209", "svamp",
)  # fmt: skip
WITH_PROBLEM_TEXT = ("gsm8k_train", "gsm8k_test", "math_test5000", "math_train7474")  # MIT

INT = r"-?\d+"
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
FRAC = r"-?\\[dt]?frac\{\d+\}\{\d+\}"
ENTRY = rf"(?:{FRAC}|-?\d+/\d+|{NUMBER})"


@dataclass(frozen=True)
class Reference:
    """One distinct reference answer.

    `parts` is what its kind is made of: a Fraction for numbers, entries (text) for tuples, sets and
    matrices, `(coefficient, power)` terms for polynomials. Example: kind "tuple", answer
    r"(2,\\frac{1}{3})", parts ["2", r"\\frac{1}{3}"].
    """

    answer: str
    kind: str
    parts: Any
    source: str
    problem: str = ""
    solution: str = ""
    extra: dict[str, str] = field(default_factory=dict)


def value(text: str) -> Fraction | None:
    """Return the exact value of an integer, a decimal, `a/b`, `\\frac{a}{b}` or `1.5e-3`."""
    text = text.strip()
    if found := re.fullmatch(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", text):
        sign, top, bottom = found.groups()
        return Fraction(int(top), int(bottom)) * (-1 if sign else 1)
    if re.fullmatch(rf"{NUMBER}(?:[eE][-+]?\d+)?|-?\d+/\d+", text):
        return Fraction(text)
    return None


def load_references(folder: Path | None = None) -> list[Reference]:
    """Return the distinct references of all files, in order, from the folder RLOOP_DATA names."""
    folder = folder or Path(os.environ["RLOOP_DATA"])
    references: dict[str, Reference] = {}
    for source in FILES:
        for row in _rows(folder / f"{source}.jsonl.gz"):
            answer = row["answer"].strip()
            if answer in references or len(answer) > 150 or "boxed" in answer or "$ $" in answer:
                continue
            if answer.startswith("$") or "\\(" in answer or "\n" in answer:
                continue
            kind, parts, extra = classify(answer)
            problem = row["problem"] if source in WITH_PROBLEM_TEXT else ""
            if kind == "list" and re.search(r"order|respective|sequence", row["problem"]):
                kind = "expression"  # the order may matter
            if kind == "tuple" and "interval" in row["problem"]:
                kind = "open interval"
            references[answer] = Reference(
                answer, kind, parts, source, problem, row.get("solution", ""), extra
            )
    return list(references.values())


def problems(folder: Path | None = None) -> list[tuple[str, str]]:
    """Return `(question, answer)` of GSM8K's test problems and of MATH's (both MIT)."""
    folder = folder or Path(os.environ["RLOOP_DATA"])
    return [
        (row["problem"], row["answer"].strip())
        for source in ("gsm8k_test", "math_test5000")
        for row in _rows(folder / f"{source}.jsonl.gz")
        if len(row["problem"]) < 400
    ]


def classify(answer: str) -> tuple[str, Any, dict[str, str]]:
    """Return kind, parts and further texts of a reference."""
    for kind, parse in PARSERS.items():
        if (found := parse(answer)) is not None:
            parts, extra = found if isinstance(found, tuple) else (found, {})
            return kind, parts, extra
    return "expression", None, {}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _integer(answer: str) -> Fraction | None:
    return Fraction(answer) if re.fullmatch(r"-?(?:0|[1-9]\d*)", answer) else None


def _decimal(answer: str) -> Fraction | None:
    return Fraction(answer) if re.fullmatch(r"-?\d+\.\d+", answer) else None


def _scientific(answer: str) -> Fraction | None:
    return Fraction(answer) if re.fullmatch(r"-?\d+(\.\d+)?e-?\d+", answer) else None


def _fraction(answer: str) -> Fraction | None:
    found = re.fullmatch(FRAC, answer)
    return value(answer) if found and value(answer).denominator > 1 else None  # type: ignore[union-attr]


def _grouped(answer: str) -> Fraction | None:
    if re.fullmatch(r"\d{1,3}(?:,\\!\s?\d{3}|\{,\}\d{3}|,\d{3})+", answer):
        return Fraction(re.sub(r"\D", "", answer))
    return None


def _percent(answer: str) -> Fraction | None:
    found = re.fullmatch(rf"({NUMBER}) ?\\%", answer)
    return Fraction(found[1]) if found else None


def _money(answer: str) -> Fraction | None:
    found = re.fullmatch(r"\\\$ ?(\d+(?:\.\d\d)?)", answer)
    return Fraction(found[1]) if found else None


def _degrees(answer: str) -> Fraction | None:
    found = re.fullmatch(rf"({NUMBER})\^(?:\\circ|\{{\\circ\}})", answer)
    return Fraction(found[1]) if found else None


def _unit(answer: str) -> tuple[Fraction, dict[str, str]] | None:
    found = re.fullmatch(
        rf"({NUMBER}) ?(?:\\,|\\;|\\!)?\s*"
        r"\\(?:text|mbox|mathrm) ?\{\s*([a-zA-Z ]+?)\.?\s*\}(\^\d)?",
        answer,
    )
    if not found or re.search(r"\b(a\.m|and|or)\b", found[2]):
        return None
    return Fraction(found[1]), {"number": found[1], "unit": found[2], "power": found[3] or ""}


def _root(answer: str) -> tuple[tuple[int, int], dict[str, str]] | None:
    found = re.fullmatch(r"(-?\d*)\\sqrt\{(\d+)\}", answer)
    if not found or int(found[2]) < 2 or round(int(found[2]) ** 0.5) ** 2 == int(found[2]):
        return None
    front = found[1] + "1" if found[1] in {"", "-"} else found[1]
    return (int(front), int(found[2])), {}


def _pi(answer: str) -> Fraction | None:
    found = re.fullmatch(rf"({INT}|{FRAC})? ?\\pi", answer)
    return value(found[1]) if found and found[1] else None


def _complex(answer: str) -> tuple[tuple[int, int], dict[str, str]] | None:
    found = re.fullmatch(r"(-?\d+) ?([-+]) ?(\d*)i", answer)
    return ((int(found[1]), int(found[2] + (found[3] or "1"))), {}) if found else None


def _polynomial(answer: str) -> tuple[list[tuple[int, int]], dict[str, str]] | None:
    letters = set(re.findall(r"[a-z]", answer))
    text = answer.replace(" ", "").replace("{", "").replace("}", "")
    if len(letters) != 1 or not re.fullmatch(r"[-+0-9a-z^]+", text):
        return None
    letter = letters.pop()
    terms = re.findall(rf"([-+]?)(\d*)({letter}(?:\^(\d+))?)?(?=[-+]|$)", text)
    pieces = [(s, c, x, p) for s, c, x, p in terms if c or x]
    if "".join(s + c + x for s, c, x, p in pieces) != text or len(pieces) < 2 or letter in "ie":
        return None
    parsed = [(int(s + (c or "1")), int(p or 1) if x else 0) for s, c, x, p in pieces]
    return (parsed, {"letter": letter}) if len({p for _, p in parsed}) == len(parsed) else None


def _entries(text: str) -> list[str] | None:
    entries = [entry.strip() for entry in re.sub(r"\\,|\\;|\\ ", "", text).split(",")]
    is_numbers = all(re.fullmatch(ENTRY, entry) for entry in entries)
    return entries if len(entries) > 1 and is_numbers else None


def _tuple(answer: str) -> list[str] | None:
    text = answer.replace(r"\left", "").replace(r"\right", "").strip()
    return _entries(text[1:-1].strip()) if text[:1] + text[-1:] == "()" else None


def _set(answer: str) -> list[str] | None:
    text = answer.replace(r"\left", "").replace(r"\right", "").strip()
    return _entries(text[2:-2]) if text[:2] + text[-2:] == r"\{\}" else None


def _list(answer: str) -> list[str] | None:
    entries = _entries(answer)
    looks_grouped = re.search(r"\d,\d{3}(?!\d)", answer)
    return (
        entries
        if entries and not looks_grouped and len({value(e) for e in entries}) == len(entries)
        else None
    )


def _interval(answer: str) -> tuple[list[str], dict[str, str]] | None:
    text = answer.replace(r"\left", "").replace(r"\right", "").strip()
    end = rf"({ENTRY}|-?\\infty)"
    found = re.fullmatch(rf"([\[(])\s*{end}\s*,\s*{end}\s*([\])])", text)
    if not found:
        return None
    opening, low, high, closing = found.groups()
    if opening + closing == "()" and "infty" not in text:
        return None
    if opening + closing == "[]" and low == high:
        return None
    return [low, high], {"opening": opening, "closing": closing}


def _union(answer: str) -> list[str] | None:
    parts = [part.strip() for part in answer.split(r"\cup")]
    return (
        parts if len(parts) > 1 and all(re.match(r"(\\left *)?[\[(]", p) for p in parts) else None
    )


def _matrix(answer: str) -> list[list[str]] | None:
    found = re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", answer, re.DOTALL)
    if not found or "phantom" in answer:
        return None
    rows = [[e.strip() for e in row.split("&")] for row in found[1].split(r"\\") if row.strip()]
    return rows if all(re.fullmatch(ENTRY, e) for row in rows for e in row) else None


def _assignment(answer: str) -> tuple[str, dict[str, str]] | None:
    found = re.fullmatch(rf"([a-zA-Z]) ?= ?({ENTRY})", answer)
    return (found[2], {"letter": found[1]}) if found else None


def _equation(answer: str) -> list[str] | None:
    sides = [side.strip() for side in answer.split("=")]
    if len(sides) != 2 or re.search(r"\\[lg]e|<|>|\\approx|text|,", answer):
        return None
    return sides


def _letter(answer: str) -> str | None:
    found = re.fullmatch(r"\\text\{\(?([A-H])\)?\}|\(\\text\{([A-H])\}\)|([A-E])", answer)
    return next(filter(None, found.groups())) if found else None


def _word(answer: str) -> str | None:
    found = re.fullmatch(r"\\(?:text|mbox)\{ ?([A-Z]?[a-z]{2,})\}", answer)
    return found[1] if found else None


def _base(answer: str) -> tuple[tuple[str, str], dict[str, str]] | None:
    found = re.fullmatch(r"(\d+)_\{?(\d+)\}?", answer)
    return ((found[1], found[2]), {}) if found else None


def _power(answer: str) -> tuple[tuple[int, int], dict[str, str]] | None:
    found = re.fullmatch(r"(\d+)\^\{?(\d+)\}?", answer)
    return ((int(found[1]), int(found[2])), {}) if found else None


PARSERS: dict[str, Callable[[str], Any]] = {
    "integer": _integer, "decimal": _decimal, "scientific": _scientific, "fraction": _fraction,
    "grouped": _grouped, "percent": _percent, "money": _money, "degrees": _degrees, "unit": _unit,
    "root": _root, "pi": _pi, "complex": _complex, "polynomial": _polynomial, "interval": _interval,
    "tuple": _tuple, "set": _set, "list": _list, "union": _union, "matrix": _matrix,
    "assignment": _assignment, "equation": _equation, "letter": _letter, "word": _word,
    "base": _base, "power": _power,
}  # fmt: skip
