"""Find the final answer in a completion: boxes, tags, final statements, last lines.

Knows nothing of what the answer should be, nor whether it is right.
"""

import re
import unicodedata

from rloop.tasks.verifiers.boxes import (
    BOX,
    BOXED_PHRASE,
    JOINT,
    Box,
    find_boxes,
    find_tags,
    formula_around,
    tail_of,
)
from rloop.tasks.verifiers.latex import brace_end
from rloop.tasks.verifiers.statements import (
    Found,
    is_echo,
    is_taken_back,
    last_line,
    masked,
    named_answer,
)

_PHRASE = re.compile(r"\banswer\s*(?:\*\*)?\s*(?:is\b|:|=)\s*(?:\*\*)?:?|####", re.IGNORECASE)
_SUPERSCRIPT_DIGITS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_POWER = re.compile(rf"(?<=\d)[{_SUPERSCRIPT_DIGITS}]+")
_SUPERSCRIPTS = str.maketrans(_SUPERSCRIPT_DIGITS, "0123456789")
_MINUS_SIGNS = "\u2212\u2010\u2011\u2012\u2013\uff0d\ufe63"


def last_box(text: str) -> tuple[str | None, bool]:
    r"""Return the content of the last non-empty \boxed{} and whether the last box is closed.

    A last box that never closes hides the ones before it: the completion was still about to say
    something else, so the content is None. No box at all gives (None, True).
    """
    for match in reversed(list(BOX.finditer(text))):
        end = brace_end(text, match.end())
        if end is None:
            return None, False
        content = text[match.end() : end]
        if content.strip():
            return content.strip(), True
    return None, True


def after_phrase(text: str, num_lines: int = 1) -> str | None:
    """Return the lines after the last "answer is", "answer:" or "####", None where nothing follows.

    Example: "The answer is 5.\\nBye" -> "5."
    """
    for match in reversed(list(_PHRASE.finditer(text))):
        lines = [line.strip() for line in text[match.end() :].strip().splitlines()]
        lines = [line for line in lines if line]
        if lines:
            return "\n".join(lines[:num_lines])
    return None


def bare(text: str) -> str:
    """Strip quotes, emphasis, dollar signs and closing punctuation from around an answer.

    Example: '**"Paris".**' -> "Paris"
    """
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip("*`\"'$").rstrip(".,;:!").strip()
    return text


def with_ascii_numbers(text: str) -> str:
    """Replace decimal digits of other scripts and look-alike minus signs by their ASCII forms.

    Superscripts right behind a digit become powers, 8^2: neither 82 nor 8.
    """
    if text.isascii():
        return text
    text = _POWER.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    return "".join(char if char.isascii() else _ascii_number_char(char) for char in text)


def _ascii_number_char(char: str) -> str:
    if unicodedata.category(char) == "Nd":
        return str(unicodedata.decimal(char))
    return "-" if char in _MINUS_SIGNS else char


MAX_STATED = 4000
"""Characters at the end of a completion in which a statement is looked for."""
_THOUGHTS = r"[\w:-]*(?:think|thought|reason|reflect|scratchpad|analysis)[\w:-]*"
CLOSED_THOUGHT = re.compile(
    rf"<\s*/\s*{_THOUGHTS}\s*>|\[/THINK\]|<\|end_of_thought\|>|<\|?/think(?:ing)?\|?>"
    r"|\u25c1/think\u25b7|<\|channel\|>\s*final\s*<\|message\|>",
    re.IGNORECASE,
)
OPEN_THOUGHT = re.compile(
    rf"<\s*{_THOUGHTS}\b[^>/]*>|\[THINK\]|<\|begin_of_thought\|>|<\|think(?:ing)?\|>"
    r"|\u25c1think\u25b7|<\|channel\|>\s*(?:analysis|commentary)",
    re.IGNORECASE,
)
_END_TOKEN = re.compile(r"(?:<\|[a-z_]+\|>|</s>|<eos>|<end_of_turn>|\[EOS\])\s*$", re.IGNORECASE)
_REFUSED = re.compile(
    r"(?:\b(?:either\b.*\bor|or)|\bnot|n't|\bnever|\brather\s+than|\binstead\s+of|\\ne"
    r"|\\neq|\u2260|!=)(?:\s+(?:be"
    r"|equal\s+to|the\s+answer|simply|just))*[\s$*:({\\]*$",
    re.IGNORECASE,
)
_WRONG_TAIL = re.compile(
    r"[\s$*.)}\\]*\s*\(?(?:is|was|would\s+be|seems|looks)?\s*(?:not\b|n't|isn't|wasn't"
    r"|wrong\b|incorrect\b|false\b)",
    re.IGNORECASE,
)


Step = tuple[str, str]
"""What was done to judge an answer and what came out. Example: ("found (box)", "5 cm")."""


def find_answer(text: str, question: str = "") -> tuple[Found | None, str]:
    r"""Return the final answer of a completion, or None and why there is none.

    Thoughts do not count. What is marked last wins: a \boxed{}, an <answer></answer>, or a
    statement that names the answer ("The answer is 5."), which must not be negated, a bound or
    taken back; then a last line that ends in "is 5" or "= 5", or a text that is nothing but a
    value. A completion that only repeats the question has no answer.
    """
    text, reason = without_thoughts(text)
    if reason:
        return None, reason
    text = re.sub(r"[ \t]{3,}", "  ", without_end_tokens(text))
    if not text.strip():
        return None, "an empty completion"
    if question and is_echo(text, question, share=0.3):
        return None, "the completion repeats the question"
    boxes, unclosed = find_boxes(text)
    if unclosed:
        return None, "the last \\boxed{} is not closed"
    if boxes:
        return _from_boxes(text, boxes)
    tags = find_tags(text)
    if tags:
        return _from_tag(text, tags, question)
    return _from_statement(text[-MAX_STATED:], question)


def without_end_tokens(text: str) -> str:
    """Return a text without the tokens that end a turn, written out: <|im_end|>, </s>."""
    text = text.rstrip()
    while found := _END_TOKEN.search(text, max(0, len(text) - 40)):
        text = text[: found.start()].rstrip()
    return text


def text_to_judge(prompt_text: str, completion_text: str) -> str:
    """Return what a verifier reads: the completion, behind the thought that its prompt opened.

    Some chat templates end a prompt in <think>. A completion that never closes that thought has no
    answer, which it does not show by itself.
    """
    end = prompt_text.rstrip()
    opened = list(OPEN_THOUGHT.finditer(end, max(0, len(end) - 100)))
    if not opened or opened[-1].end() != len(end) or CLOSED_THOUGHT.search(completion_text):
        return completion_text
    return opened[-1].group() + completion_text


def without_thoughts(text: str) -> tuple[str, str]:
    """Return what follows the last closed thought; a thought still open has no answer."""
    closed = [found.end() for found in CLOSED_THOUGHT.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    if OPEN_THOUGHT.search(rest):
        return "", "it ends within its thoughts"
    return rest, ""


def _from_boxes(text: str, boxes: list[Box]) -> tuple[Found | None, str]:
    last = boxes[-1]
    group = [last]
    for box in reversed(boxes[:-1]):
        if not JOINT.fullmatch(text[box.end : group[0].start]) or len(group) >= 12:
            break
        group.insert(0, box)
    before, after = text[: group[0].start], text[last.end :]
    if _REFUSED.search(before[-80:].rpartition("\n")[2]):
        return None, "the boxed answer is negated"
    if _WRONG_TAIL.match(after[:40]) or is_taken_back(after[:MAX_STATED]):
        return None, "the boxed answer is taken back"
    whole = ", ".join(dict.fromkeys(BOXED_PHRASE.sub(r"\1", box.text) for box in group))
    if len(group) == 1:
        head, tail = formula_around(before, after)
        whole = f"{head}{{{whole}}}{tail}" if head else whole + tail
    return Found(text=whole + tail_of(after), source="box", later=_later(after)), ""


def _later(after: str) -> str | None:
    """Return what is marked as the answer behind the last box, None where nothing is."""
    tags = find_tags(after)
    if tags:
        return tags[-1].text
    found, _ = named_answer(after[-MAX_STATED:])
    return found.text if found is not None and not found.is_hedged else None


def _from_tag(text: str, tags: list[Box], question: str) -> tuple[Found | None, str]:
    tag = tags[-1]
    if _REFUSED.search(text[: tag.start][-80:].rpartition("\n")[2]):
        return None, "the answer is negated"
    if is_taken_back(text[tag.end :]):
        return None, "the answer is taken back"
    if len(tags) > 1 and JOINT.fullmatch(text[tags[-2].end : tag.start]):
        return Found(text=f"{tags[-2].text}, {tag.text}", source="tag"), ""
    inner, reason = _from_statement(tag.text, question, is_marked=True)
    if inner is None:
        return None, reason
    return Found(text=inner.text + tail_of(text[tag.end :]), source="tag"), ""


def _from_statement(
    text: str, question: str, *, is_marked: bool = False
) -> tuple[Found | None, str]:
    found, reason = named_answer(text)
    if found is not None or reason:
        return found, reason
    whole = text.strip()
    if is_marked:
        return Found(text=whole, source="tag"), ""
    if len(whole.splitlines()) == 1 and not re.search(
        r"(?<![A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}\s+[A-Za-z]", masked(whole)
    ):
        if whole.endswith(("=", "?")):
            return None, "the completion ends without a statement"
        return Found(text=whole, source="whole text"), ""
    return last_line(whole, question)
