r"""Rewrite an answer, LaTeX or plain, into one spelling: the step between finding and parsing.

Each rewriting keeps the meaning. What was inside \text{} stays marked as words by the brackets
WORDS_OPEN and WORDS_CLOSE, since `cm` in \text{cm} is a unit and outside it three symbols.
"""

import re
import unicodedata

WORDS_OPEN, WORDS_CLOSE = "\u27e6", "\u27e7"
CURRENCIES = {"$": "usd", "\u20ac": "eur", "\u00a3": "gbp", "\u00a5": "jpy", "\u20b9": "inr"}

_UNICODE = {
    "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\uff0d": "-",
    "\ufe63": "-", "\u00d7": r"\times ", "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u2217": "*",
    "\u00f7": "/", "\u2044": "/", "\u2215": "/", "\u221e": r"\infty ", "\u2264": r"\le ",
    "\u2265": r"\ge ", "\u2a7d": r"\le ", "\u2a7e": r"\ge ", "\u2260": r"\ne ", "\u00b1": r"\pm ",
    "\u2213": r"\mp ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ",
    "\u2205": r"\emptyset ", "\u00b0": r"^\circ ", "\u2032": "'", "\u2019": "'", "\u2018": "'",
    "\u201c": '"', "\u201d": '"', "\u2248": r"\approx ", "\u2211": r"\sum ", "\u220f": r"\prod ",
    "\u222b": r"\int ", "\u2102": r"\mathbb{C}", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}",
    "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}", "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ", "\u230a": r"\lfloor ", "\u230b": r"\rfloor ", "\u2308": r"\lceil ",
    "\u2309": r"\rceil ", "\u2192": r"\to ", "\u2220": r"\angle ", "\u25b3": r"\triangle ",
    "\u2026": r"\ldots ", "\u00a0": " ", "\u2009": r"\,", "\u202f": r"\,", "\u200b": "",
    "\ufeff": "", "\u2061": "", "\u2062": "",
}  # fmt: skip
_GREEK = {
    "\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta",
    "\u03b5": "epsilon", "\u03b6": "zeta", "\u03b7": "eta", "\u03b8": "theta", "\u03bb": "lambda",
    "\u03bc": "mu", "\u00b5": "mu", "\u03bd": "nu", "\u03be": "xi", "\u03c0": "pi",
    "\u03c1": "rho", "\u03c3": "sigma", "\u03c4": "tau", "\u03c6": "phi", "\u03c7": "chi",
    "\u03c8": "psi", "\u03c9": "omega", "\u0393": "Gamma", "\u0394": "Delta", "\u0398": "Theta",
    "\u039b": "Lambda", "\u03a0": "Pi", "\u03a3": "Sigma", "\u03a6": "Phi", "\u03a8": "Psi",
    "\u03a9": "Omega",
}  # fmt: skip
_SUPERSCRIPTS = dict(
    zip(
        "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f",
        "0123456789+-n",
        strict=True,
    )
)
_SUBSCRIPTS = dict(
    zip("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789", strict=True)
)
_ROOTS = {"\u221a": "", "\u221b": "[3]", "\u221c": "[4]"}
_ROOT = re.compile(r"([\u221a-\u221c])\s*(\(|\d+(?:\.\d+)?|[A-Za-z]|\\[a-z]+|\{)")
_FORMAT = r"text|textrm|textbf|textit|textnormal|texttt|textsf|mbox|hbox|mathrm|mathbf|mathit"
_FORMAT += r"|mathsf|mathtt|boldsymbol|bm|operatorname\*?|rm|bf|it|emph|underline|boxed|fbox"
_FORMATTED = re.compile(rf"\\(?P<name>{_FORMAT})\s*\{{")
_WORDS_BY = ("text", "mbox", "hbox")
_FUNCTION_NAMES = frozenset(
    (  # noqa: SIM905
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp gcd lcm max min "
        "det deg arg lim mod"
    ).split()
)
_DROPPED = re.compile(
    r"(?<!\\)\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|left|right|[bB]igg?[lrm]?"
    r"|phantom\{[^{}]*\}|color\{[^{}]*\}|hline|Huge|huge|LARGE|Large|large|small|tiny|hfill"
    r"|strut)(?![A-Za-z])\s?|(?<!\\)\\!"
)
_SPACES = re.compile(r"(?<!\\)\\(?:[,;: >]|enspace(?![A-Za-z]))|~")
_GAPS = re.compile(r"\s*,?\s*(?<!\\)\\q?quad(?![A-Za-z])\s*,?\s*")
"""Wide spaces stand between answers: x = 1, \\quad y = 2."""
_MATH_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|\$\$")
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|,\s?\\!\s?|\\,|,\\,|\{,\\!\}|\s,\\!)\d{3})+)(?!\d)"
)
_SPACED = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d.,]|\s*/)")
_WORD = re.compile(r"(?<![\\A-Za-z_{])(?:[A-Z]?[a-z]{2,}|No|Up|[A-Z]{3,})(?![A-Za-z])")
_SHORT_ARG = r"(\\[A-Za-z]+|[0-9A-Za-z])"


def clean(text: str) -> str:
    r"""Return an answer in one spelling, without the dressing around it.

    Examples: "$\dfrac12.$" -> "\frac{1}{2}"; "5\text{ cm}" -> "5 <cm>" with word brackets;
    "\u221a2" -> "\sqrt{2}"; "5,\!040" -> "5040"; "**73**" -> "73".
    """
    text = _ascii(text)
    text = _without_dressing(text)
    text = _currency(text)
    text = re.sub(r"\\%", "%", text)
    text = re.sub(r"\b(?:np|math)\.(?=[a-z])", "", text)
    text = _THOUSANDS.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), text)
    text = re.sub(r"\\[lr][vV]ert(?![A-Za-z])", "|", text)
    text = _DROPPED.sub("", re.sub(r"\\(?:bf|rm|it|sf|tt)(?![A-Za-z])\s*", "", text))
    text = _MATH_MARKS.sub(" ", text).replace("$", " ")
    text = _unwrapped(text)
    text = _SPACES.sub(" ", _GAPS.sub(", ", text))
    text = _SPACED.sub(lambda found: found[1] + found[2].replace(" ", ""), text)
    text = _fractions(text)
    text = re.sub(r"\\(?:leqslant|leq|le)(?![A-Za-z])", "<=", text)
    text = re.sub(r"\\(?:geqslant|geq|ge)(?![A-Za-z])", ">=", text)
    text = re.sub(r"\\(?:neq|ne)(?![A-Za-z])|\\not\s*=", "!=", text)
    text = re.sub(r"\\lt(?![A-Za-z])", "<", text)
    text = re.sub(r"\\gt(?![A-Za-z])", ">", text)
    text = re.sub(r"\\l?dots(?![A-Za-z])|\\cdots(?![A-Za-z])", "...", text)
    text = re.sub(r"\s+", " ", text)
    return _without_dressing(text.strip().removeprefix("="))


def words(text: str) -> str:
    """Return a text as words to compare whole: no brackets of words, one space, no outer marks.

    Case is ignored for words (Evelyn, YES) and kept for symbols (GMm, kT, mW). "1, 234" is a list,
    "1,234" a number.
    """
    text = text.replace(WORDS_OPEN, " ").replace(WORDS_CLOSE, " ")
    text = re.sub(
        r"(?<=\d)\s?([AaPp])\s?\.?\s?[Mm]\b\.?", lambda found: f" {found[1].lower()}m", text
    )
    text = re.sub(r"(\d)\s*,\s+(?=\d)", r"\1;", text)
    text = re.sub(r"\s*([,;:()/=+*^_{}-])\s*", r"\1", text)
    text = " ".join(text.replace("...", "\u2026").split()).strip(' "`').rstrip(".,;: ")
    return _WORD.sub(lambda found: found[0].casefold(), text)


def _ascii(text: str) -> str:
    """Replace characters by their LaTeX or ASCII spelling."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _ROOT.sub(_root, text)
    out: list[str] = []
    raised = ""
    for char in text:
        if char in _SUPERSCRIPTS:
            raised += _SUPERSCRIPTS[char]
            continue
        if raised:
            out.append("^{" + raised + "}")
            raised = ""
        out.append(_char(char, "".join(out[-1:])))
    if raised:
        out.append("^{" + raised + "}")
    return "".join(out)


def _char(char: str, before: str) -> str:
    if char.isascii():
        return char
    if char in _UNICODE:
        return _UNICODE[char]
    if char in _GREEK:
        return f"\\{_GREEK[char]} "
    if char in _SUBSCRIPTS:
        return "_{" + _SUBSCRIPTS[char] + "}"
    if unicodedata.category(char) == "Nd":
        return str(unicodedata.decimal(char))
    parts = unicodedata.normalize("NFKC", char)
    if "\u2044" in parts:  # one half as a single character, perhaps behind a whole number
        over, under = parts.split("\u2044")
        space = " " if before[-1:].isdigit() else ""
        return f"{space}\\frac{{{over}}}{{{under}}}"
    return parts if parts.isascii() else char


def _root(found: re.Match[str]) -> str:
    degree, start = _ROOTS[found[1]], found[2]
    if start in ("(", "{"):
        return f"\\sqrt{degree}{start}"
    return f"\\sqrt{degree}{{{start}}}"


def _currency(text: str) -> str:
    r"""Write a sign of a currency before or behind a number as a word: \$5, 5\u20ac, $1,250."""
    for sign, name in CURRENCIES.items():
        word = f"{WORDS_OPEN}{name}{WORDS_CLOSE}"
        text = text.replace(f"\\{sign}", f" {word} " if sign == "$" else sign)
        if sign != "$":
            text = text.replace(sign, f" {word} ")
        elif text.count("$") % 2:  # signs of mathematics come in pairs
            text = re.sub(r"\$(?=\s?-?[\d.])", f" {word} ", text, count=1)
    text = re.sub(r"\\pounds(?![A-Za-z])", f" {WORDS_OPEN}gbp{WORDS_CLOSE} ", text)
    return re.sub(r"\\euro?(?![A-Za-z])", f" {WORDS_OPEN}eur{WORDS_CLOSE} ", text)


def _unwrapped(text: str) -> str:
    r"""Take \text{}, \mathbf{} and their kind away, the innermost first; words stay marked."""
    for found in reversed(list(_FORMATTED.finditer(text))):
        end = brace_end(text, found.end())
        if end is not None:
            inside = _inside(found["name"], text[found.end() : end])
            text = text[: found.start()] + inside + text[end + 1 :]
    return text


def brace_end(text: str, start: int) -> int | None:
    """Return where the brace closes that was opened right before `start`, None if it does not."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        if brace.group() in "{}":
            depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return start + brace.start()
    return None


def _inside(name: str, inside: str) -> str:
    r"""Return what stands in \name{inside}, with words marked as such."""
    is_words = name.startswith(_WORDS_BY) or (name in ("mathrm", "rm") and len(inside) > 1)
    plain = inside.strip()
    if plain.casefold() in _FUNCTION_NAMES and not name.startswith(_WORDS_BY):
        return f"\\{plain} "
    if WORDS_OPEN in inside or "\\" in inside or not re.search("[A-Za-z]", plain):
        return f" {inside} " if is_words else inside
    if not is_words:
        return inside
    number = re.match(r"^\s*([-+]?[\d.,/ ]*\d(?:[eE][-+]?\d+)?)(.*)$", inside, re.DOTALL)
    if number and not number[2].strip():
        return f" {number[1]} "
    if number and number[2].strip():
        return f" {number[1]} {WORDS_OPEN}{number[2].strip()}{WORDS_CLOSE} "
    return f" {WORDS_OPEN}{plain}{WORDS_CLOSE} "


def _fractions(text: str) -> str:
    r"""Write \dfrac12, \frac1{2}, \sqrt2 and \binom52 with braces; `x^10` as x^{10}."""
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^([^{}]*)\\over(?![A-Za-z])([^{}]*)$", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\[dt]binom(?![A-Za-z])", r"\\binom", text)
    for name in ("frac", "binom"):
        text = re.sub(rf"\\{name}\s*{_SHORT_ARG}\s*{_SHORT_ARG}", rf"\\{name}{{\1}}{{\2}}", text)
        text = re.sub(rf"\\{name}\s*{_SHORT_ARG}\s*\{{", rf"\\{name}{{\1}}{{", text)
        text = re.sub(
            rf"\\{name}\s*(\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})\s*{_SHORT_ARG}",
            rf"\\{name}\1{{\2}}",
            text,
        )
    text = re.sub(r"\\sqrt\s*(\d)(?![\d.])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s+(\d+(?:\.\d+)?)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s*(\\[A-Za-z]+|[A-Za-z])(?![A-Za-z{])", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s*(?=[({])", r"\\sqrt", text)
    return re.sub(r"(?:\^|\*\*)\s*(-?\d+)(?![\d}.])", r"^{\1}", text)


def _without_dressing(text: str) -> str:
    """Strip white space, quotes, emphasis, backticks and closing punctuation from around it."""
    previous = None
    while previous != text:
        previous = text
        text = text.strip()
        text = re.sub(r"(?:\\[,;: ])+$", "", text).strip()
        text = text.rstrip(".,;:").strip() if not text.endswith("...") else text
        text = text.strip("*`").strip()
        for mark in ("__", '"', "''"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        if text.startswith("{") and text.endswith("}") and closes_at_end(text):
            text = text[1:-1]
    return text


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens a text closes at its very end."""
    depth = 0
    for index, char in enumerate(text):
        if char in "({[":
            depth += 1
        elif char in ")}]":
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False


def split_top(text: str, separators: str) -> list[str]:
    r"""Split at characters that stand in no bracket, brace or words. Example: "(1,2),3" -> 2 parts.

    An escaped brace is a bracket too.
    """
    parts, start, depth, in_words = [], 0, 0, False
    index = 0
    while index < len(text):
        char = text[index]
        if char == WORDS_OPEN:
            in_words = True
        elif char == WORDS_CLOSE:
            in_words = False
        elif char in "({[":
            depth += 1
        elif char in ")}]":
            depth -= 1
        elif char in separators and depth <= 0 and not in_words:
            parts.append(text[start:index])
            start = index + 1
        index += 1
    return [*parts, text[start:]]
