"""Find the final answer in a completion: boxes, tags, final statements, last lines.

Knows nothing of what the answer should be, nor whether it is right.
"""

import re
import unicodedata

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
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
    for match in reversed(list(_BOX.finditer(text))):
        content = _braced(text, match.end())
        if content is None:
            return None, False
        if content.strip():
            return content.strip(), True
    return None, True


def _braced(text: str, start: int) -> str | None:
    """Return the text from `start` to the brace that closes the group, None if none does."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        if brace.group() in "{}":
            depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()]
    return None


def last_tag(text: str) -> str | None:
    """Return what stands between the last <answer> and </answer>, None where nothing does."""
    for content in reversed(_TAG.findall(text)):
        if content.strip():
            return str(content).strip()
    return None


def last_fence(text: str) -> str | None:
    """Return the content of the last fenced code block, None where there is none."""
    blocks = _FENCE.findall(text)
    return str(blocks[-1]).strip("\n") if blocks else None


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


def last_lines(text: str, num_lines: int = 1) -> str:
    """Return the last lines of a text without the white space around them."""
    return "\n".join(text.strip().splitlines()[-num_lines:]).strip()


def final_statement(text: str) -> str:
    """Return what follows the last "answer is", "answer:" or "####"; else the last line."""
    return after_phrase(text) or last_lines(text)


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
