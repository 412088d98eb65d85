r"""The answer in a worked solution: what its author put in boxes.

For references alone. What a policy writes is read by the verifiers, which trust nobody.
"""

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_END_OF_MATH = re.compile(r"(?<!\\)\$|\\[\])]|\\end(?![a-zA-Z])|\n\s*\n|\Z")
_TOKEN = re.compile(r"-?\d+(?:[.,/]\d+)*|\\[a-zA-Z]+(?:\{[^{}]*\})*|\w")
_SAID = r"\\(?:text|textrm|mbox|mathrm)\s*\{\s*(?:and|or)\s*\}|\band\b|\bor\b"
_BETWEEN = re.compile(
    rf"(?:{_SAID}|[\s,;$&]|\\[,;: \[\]()]|\\q?quad(?![a-zA-Z])|\\\\|[a-zA-Z](?:_\w)?\s*=)*"
)


def boxed_answer(solution: str) -> str | None:
    r"""Return the one answer that a solution boxes, None where there is none or it is not clear.

    Boxes that follow each other with nothing but commas, "and", "or" or `x =` between them are one
    answer of several parts; other boxes must all hold the same.

    Examples: r"so $\boxed 2$." -> "2"; r"$\boxed{1}$ and $\boxed{2}$" -> "1, 2";
    r"$\boxed{3}$ apples, so $\boxed{6}$ in all" -> None
    """
    contents: list[str] = []
    between: list[str] = []
    position = 0
    for match in _BOX.finditer(solution):
        if match.start() < position:  # a box inside the one before
            continue
        between.append(solution[position : match.start()])
        content, position = _content(solution, match.end())
        if content is None:
            return None
        contents.append(_bare(content))
    distinct = list(dict.fromkeys(content for content in contents if content))
    is_one_list = all(_BETWEEN.fullmatch(text) for text in between[1:])
    return ", ".join(distinct) if len(distinct) == 1 or (distinct and is_one_list) else None


def _content(text: str, start: int) -> tuple[str | None, int]:
    r"""Return what a box holds, None where it is not closed, and where it ends.

    Without braces, as in `$\boxed 24$`, it reaches to the end of the formula; where text follows
    before the formula ends, as there is none, it is the next number, letter or command.
    """
    if not text.startswith("{", start):
        end = _END_OF_MATH.search(text, start)
        token = _TOKEN.match(text, start)
        if end is not None and end[0].strip() and not _BOX.search(text, start, end.start()):
            return text[start : end.start()], end.start()
        return (token[0], token.end()) if token else (None, start)
    depth = 0
    for brace in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start + 1 : brace.start()], brace.end()
    return None, len(text)


def _bare(content: str) -> str:
    """Return a box's content out of an inner box, without white space and a closing full stop."""
    text = content.strip()
    if inner := _BOX.match(text):
        found, end = _content(text, inner.end())
        text = found.strip() if found and not text[end:].strip(" .,;") else ""
    return re.sub(r"(?<![.\\])[.,;]$", "", text).rstrip()
