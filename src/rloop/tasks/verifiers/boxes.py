r"""Boxes of a completion: \boxed{}, with or without braces, and the formula that they stand in."""

import re
from dataclasses import dataclass

from rloop.tasks.verifiers.latex import brace_end, clean
from rloop.tasks.verifiers.units import read_unit

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
MAX_BOXES = 20
"""Boxes further back are not looked at."""
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s+|(?=[\d\\]))([^\s{$,;]+)")
JOINT = re.compile(
    r"(?:\s|\$|\\[()\[\],;]|\\quad|\\qquad|\*\*|[,;&]|\\?text\{\s*(?:and|or)\s*\}|\b(?:and"
    r"|or)\b|\b(?:x|y|z|n|a|b|t|k|m)(?:_?\{?\d?\}?)\s*=)*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:\s|\$|\\[()\[\]]|\*\*)*(?P<tail>\.\d\S*|\\(?:frac|sqrt|pi)\b\S*|[:-]\s*\d\S*|(?:\\?text\{)?\s*(?:million|billion|thousand"
    r"|hundred"
    r"|trillion|dozen|percent|\\?%|\^\S+|_\S+|!(?!\s)"
    r"|(?:or|and|to)\s+(?=[-\d$\\(])[^.\n]*|(?:\\times|\\cdot|\*|/|\+)\s*\d[^.\s]*)\}?)",
    re.IGNORECASE,
)
_UNIT_TAIL = re.compile(
    r"(?:\$|\\[)\]])?\s*((?:\\(?:text|mathrm)\{[^{}]*\}"
    r"|[A-Za-z]+(?:\s[a-z]+)?)(?:\^\{?\d\}?)?)\s*(?:\$|\\[)\]])?\s*(?:[.,;]|$|\n)"
)
BOXED_PHRASE = re.compile(
    r"^(\\(?:text|mbox|textbf|mathrm)\{)?\s*(?:so|thus|hence"
    r"|therefore)?,?\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is|:|=)\s*:?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Box:
    """A box, where it stands and what stands in it."""

    start: int
    end: int
    text: str


def find_boxes(text: str) -> tuple[list[Box], bool]:
    r"""Return the last boxes with something in them, and whether the last \boxed{ never closes."""
    starts = sorted(
        [*BOX.finditer(text), *_BARE_BOX.finditer(text)], key=lambda found: found.start()
    )[-MAX_BOXES:]
    if not starts:
        return [], False
    last = starts[-1]
    if last.re is BOX and brace_end(text, last.end()) is None:
        return [], True
    boxes: list[Box] = []
    for found in starts:
        if boxes and found.start() < boxes[-1].end:
            continue  # a box in a box
        if found.re is _BARE_BOX:
            boxes.append(Box(found.start(), found.end(), found[1]))
            continue
        end = brace_end(text, found.end())
        if end is not None and text[found.end() : end].strip():
            boxes.append(Box(found.start(), end + 1, text[found.end() : end].strip()))
    return boxes, False


def find_tags(text: str) -> list[Box]:
    """Return the last two <answer>...</answer> that hold something."""
    found: list[Box] = []
    low, end = text.casefold(), len(text)
    if len(low) != len(text):  # some characters fold to two
        low = text.replace("ANSWER", "answer").replace("Answer", "answer")
    while len(found) < 2 and (close := low.rfind("</answer>", 0, end)) >= 0:
        start = low.rfind("<answer>", 0, close)
        if start < 0:
            break
        inside = text[start + len("<answer>") : close].strip()
        if inside:
            found.insert(0, Box(start, close + len("</answer>"), inside))
        end = start
    return found


_OPENING = re.compile(r"(?<!\\)(?:\$\$?|\\[(\[])")
_DOLLAR = re.compile(r"(?<!\\)\$\$?")


def formula_around(before: str, after: str) -> tuple[str, str]:
    r"""Return what stands around a box in its formula: 2 and nothing for $2\boxed{7}$.

    What stands left of a sign of relation is no part of the answer, nor are words.
    """
    marks = list(_OPENING.finditer(before))
    is_dollar = bool(marks) and marks[-1][0].startswith("$")
    inside = bool(marks) and (len(_DOLLAR.findall(before)) % 2 == 1 if is_dollar else True)
    start = marks[-1].end() if marks else 0
    inside = inside and not re.search(r"\\[)\]]", before[start:])
    head = before[start:] if inside else re.split(r"\s", before)[-1]
    head = re.split(
        r"(?<!\\left)(?:[=<>]|(?<!\d):)|\\(?:approx|leq?|geq?|to|implies|Rightarrow|iff|quad|qquad"
        r"|text\{[^{}]*\}"
        r"|therefore|[\[(\\])|&|\n|\*\*",
        head,
    )[-1].strip(" ${*_\u2248\u2264\u2265\u2192(\"'")
    head = clean(head)
    if re.search("[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", head)):
        head = ""
    opening = re.search(r"\{+\s*$", before)
    if opening and inside and re.search(r"\\[A-Za-z]+(?:\{[^{}]*\})?\{\s*$", before):
        command = re.search(r"[^=\s$]*$", before.rstrip())
        closing = re.match(r"\s*(\}[^$.\n=]*)", after)
        if command and closing:
            return command[0], closing[1].rstrip(" $\\)]")
    tail = re.match(r"\s*([^$\n]*?)\s*(?:\$|\\\)|\\\]|$|\n)", after) if inside else None
    rest = tail[1].strip(" .,;:!?") if tail else ""
    if re.match(r"\\text\{\s*(?:or|and)\b|(?:or|and)\b", rest):
        return head, " " + rest
    is_words = re.match(r"\\text|\\mathrm|\\quad", rest) or re.search(
        "[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+", " ", rest)
    )
    return head, "" if not rest or is_words else rest


def tail_of(after: str) -> str:
    """Return what stands right behind a box and changes its meaning: "million", "or 7", "km"."""
    found = _TAIL.match(after)
    if found:
        return " " + found["tail"]
    found = _UNIT_TAIL.match(after)
    unit = re.sub(r"\\(?:text|mathrm)|[{}]", " ", found[1]) if found else ""
    return f"\\text{{ {unit} }}" if read_unit(unit) else ""
