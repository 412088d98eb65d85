"""What may stand on the left of an equation as the name of its value: x, f(x), P(A), |z|."""

import re
from collections.abc import Sequence

from rloop.tasks.verifiers import latex
from rloop.tasks.verifiers.units import CHANGES

NAME = r"(?:\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?'*(?:\((?:[A-Za-z]|-?\d+)(?:,\s*[A-Za-z])*\))?)"
IS_NAME = re.compile(NAME)
_QUANTITY_NAME = re.compile(
    r"\\angle\s*[A-Z]+|\[[A-Z]{3,}\]|\|[A-Za-z]\||[A-Z]{2,}|\\(?:sin|cos|tan)\s*(?:\\[a-z]+"
    r"|[A-Za-z])"
    r"|[A-Za-z]\^\{-1\}\([a-z]\)|[A-Za-z]\((?:[^()]|\([^()]*\))*\)|\\frac\{[a-z]\}\{[a-z]\}"
    r"|\\overline\{[A-Z]+\}|[A-Za-z](?:\s*\+\s*[A-Za-z])+"
)
"""What an equation may have on its left as the name of a value: P(A), |z|, angle ABC, m + n."""


def is_free_name(side: str, others: Sequence[str]) -> bool:
    """Whether a side is a variable (or words) that the other sides do not hold."""
    bare = side.strip()
    if bare.startswith(latex.WORDS_OPEN) and bare.count(latex.WORDS_OPEN) == 1:
        names = bare[1:-1].casefold().split()
        return bare.endswith(latex.WORDS_CLOSE) and not CHANGES.intersection(names)
    if _QUANTITY_NAME.fullmatch(bare):
        return True
    if not IS_NAME.fullmatch(bare) or bare in ("e", "i", r"\pi", r"\infty", r"\emptyset"):
        return False
    letter = re.escape(bare.partition("(")[0])
    return not any(re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", other) for other in others)


def spelled(name: str) -> str:
    """Return a name in one spelling, to compare it with another."""
    if name.startswith(latex.WORDS_OPEN):
        return latex.words(name)
    return re.sub(r"[{}\s]", "", name)
