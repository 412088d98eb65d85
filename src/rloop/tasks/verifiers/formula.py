r"""One mathematical expression: cleaned LaTeX parsed to a small tree.

A recursive-descent parser; nothing is ever run as code. What cannot be evaluated (an integral, a
derivative, f(x)) becomes a variable of its own, named by its text. evaluate.py gives trees values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rloop.tasks.verifiers.commands import (
    DECORATED,
    FUNCTION_LETTERS,
    FUNCTIONS,
    IMPLICIT_STOP,
    INVERSES,
    MANY,
    OPAQUE,
    SYMBOLS,
)
from rloop.tasks.verifiers.latex import WORDS_OPEN, brace_end

MAX_DEPTH = 60
MAX_CHARS = 1000

Tree = tuple[Any, ...]
_TOKEN = re.compile(
    r"\s*(?P<token>\d+\.\d*|\.\d+|\d+|\\[A-Za-z]+|\\[{}|]|[A-Z]{2,}|[A-Za-z]|<=|>=|!=|\.\.\.|!!|\S)"
)
_PLAIN_NAMES = (*sorted((*FUNCTIONS, *MANY, "log", "sqrt", "pi"), key=len, reverse=True),)
_PLAIN = re.compile(rf"(?<![\\A-Za-z])({'|'.join(_PLAIN_NAMES)})(?![a-z])")


class NotReadError(ValueError):
    """The text is no expression that this parser understands."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed expression. Example: read_formula("2x+1").symbols == {"x"}."""

    text: str
    tree: Tree

    @property
    def symbols(self) -> frozenset[str]:
        """Names of variables, and of parts that cannot be evaluated."""
        return frozenset(_symbols(self.tree))

    @property
    def is_number(self) -> bool:
        """Whether it is one number, perhaps with a sign."""
        tree = self.tree[1] if self.tree[0] == "neg" else self.tree
        return tree[0] in ("num", "dec")


@lru_cache(maxsize=8192)
def read_formula(text: str) -> Formula:
    """Parse a cleaned expression; NotReadError where it is none."""
    if len(text) > MAX_CHARS:
        raise NotReadError(f"an expression longer than {MAX_CHARS} characters")
    parser = _Parser(text)
    tree = parser.sum(0)
    if parser.peek() is not None:
        raise NotReadError(f"{parser.peek()!r} is not expected in {text!r}")
    return Formula(text, tree)


def _symbols(tree: Tree) -> Iterator[str]:
    if tree[0] == "sym":
        yield tree[1]
    else:
        for part in tree[1:]:
            if isinstance(part, tuple):
                yield from _symbols(part)


def _is_vector(tree: Tree) -> bool:
    marks = (r"\vec", r"\hat", r"\mathbf", r"\overrightarrow")
    return tree[0] == "sym" and str(tree[1]).startswith(marks)


class _Parser:
    """Recursive descent over tokens; every method returns a tree and moves behind it."""

    def __init__(self, text: str) -> None:
        if WORDS_OPEN in text:
            raise NotReadError("words stand in it")
        self._text = _PLAIN.sub(r"\\\1 ", text)
        self._tokens = [(m["token"], m.start("token")) for m in _TOKEN.finditer(self._text)]
        self._at = 0

    def peek(self, ahead: int = 0) -> str | None:
        """Return a token that is still to come, None behind the last one."""
        index = self._at + ahead
        return self._tokens[index][0] if index < len(self._tokens) else None

    def sum(self, depth: int) -> Tree:
        """Parse terms joined by + and -."""
        if depth > MAX_DEPTH:
            raise NotReadError("an expression nested too deeply")
        terms = [self._term(depth)]
        while self.peek() in ("+", "-"):
            sign = self._next()
            term = self._term(depth)
            terms.append(term if sign == "+" else ("neg", term))
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def _next(self) -> str:
        token = self.peek()
        if token is None:
            raise NotReadError(f"{self._text!r} ends too early")
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        found = self._next()
        if found != token:
            raise NotReadError(f"{token!r} is missing in {self._text!r}")

    def _term(self, depth: int) -> Tree:
        """Parse factors joined by signs of multiplication and division, or by nothing."""
        result = self._signed(depth)
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times"):
                self._next()
                factor = self._signed(depth)
                if token == r"\times" and any(_is_vector(tree) for tree in (result, factor)):
                    raise NotReadError("a product of vectors")
                result = ("mul", result, factor)
            elif token in ("/", r"\div"):
                self._next()
                result = ("div", result, self._signed(depth))
            elif token in (r"\mod", r"\bmod"):
                self._next()
                result = ("mod", result, self._signed(depth))
            elif token is None or token in IMPLICIT_STOP:
                return result
            else:
                before = self._tokens[self._at - 1][0]
                if token[0] in "0123456789." and before[-1] in "0123456789.":
                    raise NotReadError("two numbers side by side")
                if token == r"\frac" and before.isdigit() and self._is_number_over_number():
                    raise NotReadError("a mixed number that is none")
                result = ("mul", result, self._power(depth))

    def _is_number_over_number(self) -> bool:
        rest = self._text[self._tokens[self._at][1] :]
        return re.match(r"\\frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\}", rest) is not None

    def _signed(self, depth: int) -> Tree:
        if self.peek() in ("-", "+"):
            if depth > MAX_DEPTH:
                raise NotReadError("an expression nested too deeply")
            sign = self._next()
            factor = self._signed(depth + 1)
            return ("neg", factor) if sign == "-" else factor
        return self._power(depth)

    def _power(self, depth: int) -> Tree:
        """Parse one factor with its exponents, factorials, degrees and percent."""
        base = self._postfix(self._primary(depth))
        if self.peek() != "^":
            return base
        self._next()
        if base[0] == "sym" and base[1] in ("f", "g", "F", "G") and self._is_inverse():
            return self._applied(f"{base[1]}^-1'")
        if self._is_circle():
            return ("mul", base, ("div", ("const", "pi"), ("num", Fraction(180))))
        if base[0] == "sym" and self._is_prime():
            return self._applied(base[1] + "'")
        exponent = self._argument(depth)
        return self._postfix(("pow", base, exponent))

    def _postfix(self, tree: Tree) -> Tree:
        while self.peek() in ("!", "!!", "%"):
            token = self._next()
            if token == "%":
                tree = ("div", tree, ("num", Fraction(100)))
            else:
                tree = ("fact", tree, len(token))
        return tree

    def _is_next(self, *forms: tuple[str, ...]) -> bool:
        """Move behind one of some rows of tokens if it comes next; say whether it did."""
        for form in forms:
            if tuple(map(self.peek, range(len(form)))) == form:
                self._at += len(form)
                return True
        return False

    def _is_circle(self) -> bool:
        return self._is_next((r"\circ",), ("{", r"\circ", "}"))

    def _is_prime(self) -> bool:
        return self._is_next((r"\prime",), ("{", r"\prime", "}"))

    def _argument(self, depth: int) -> Tree:
        """Parse what follows ^ or a command: a group in braces, or a single token."""
        if self.peek() == "{":
            return self._group(depth, "}")
        if self.peek() == "-":
            self._next()
            return ("neg", self._argument(depth))
        return self._primary(depth)

    def _group(self, depth: int, end: str) -> Tree:
        self._next()
        tree = self.sum(depth + 1)
        self._expect(end)
        return tree

    def _raw_group(self) -> str:
        """Return the text of a group in braces, or of a single token, without white space."""
        token = self._next()
        if token != "{":
            return token
        begin = self._tokens[self._at - 1][1] + 1
        end = brace_end(self._text, begin)
        if end is None:
            raise NotReadError("a brace is not closed")
        while self._at < len(self._tokens) and self._tokens[self._at][1] <= end:
            self._at += 1
        return re.sub(r"\s+", "", self._text[begin:end])

    def _primary(self, depth: int) -> Tree:
        token = self._next()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1 and token != "..."):
            return self._number(token)
        if token.isalpha() and token.isascii():
            return self._symbol(token)
        if token in ("(", "[", "{"):
            self._at -= 1
            return self._group(depth, {"(": ")", "[": "]", "{": "}"}[token])
        if token == "|":
            self._at -= 1
            return ("abs", self._group(depth, "|"))
        if token in (r"\lfloor", r"\lceil"):
            self._at -= 1
            kind = token[2:]
            return (kind if kind == "floor" else "ceil", self._group(depth, f"\\r{kind}"))
        if token.startswith("\\") and token[1:].isalpha():
            return self._command(token[1:], depth)
        raise NotReadError(f"{token!r} is not expected in {self._text!r}")

    def _number(self, token: str) -> Tree:
        if self.peek() == "_":
            raise NotReadError("a number in another base")
        if len(token) > MAX_CHARS:
            raise NotReadError("a number too long")
        if token[-1] == "." and self.peek() not in (None, ")", "}", "+", "-", "*", "/"):
            raise NotReadError("a decimal point without digits")
        if "." in token:
            return ("dec", Fraction(token if token[-1] != "." else token + "0"))
        return ("num", Fraction(int(token)))

    def _symbol(self, name: str) -> Tree:
        """Parse a letter or a Greek one with its subscript, primes and argument."""
        constant = name if name in ("e", "i") else "pi" if name == r"\pi" else None
        if self.peek() == "_":
            self._next()
            name, constant = f"{name}_{self._raw_group().strip('{}')}", None
        while self.peek() == "'":
            self._next()
            name, constant = name + "'", None
        if constant and self.peek() != "'":
            return ("const", constant)
        return self._applied(name)

    def _applied(self, name: str) -> Tree:
        """Return the symbol, or the application of a function that it names: f(x), v(0), y'(t)."""
        if self.peek() == "^" and "'" in name:
            start = self._at
            self._next()
            if self._is_prime():
                return self._applied(name + "'")
            self._at = start
        if self.peek() != "(":
            return ("sym", name)
        end = self._closing()
        inside = re.sub(r"\s+", "", self._text[self._tokens[self._at][1] + 1 : end])
        letter = name[0] if "_" not in name else ""
        is_single = re.fullmatch(r"-?[\d.]+|[A-Za-z]|\\[A-Za-z]+", inside)
        if self._follows(end) == "^" and re.fullmatch(r"-?\d+", inside):
            return ("sym", name)  # n(-1)^n
        is_function = (
            (letter in ("f", "g", "h") and re.search("[xtnzy]", inside))
            or letter.isupper()
            or name in FUNCTION_LETTERS
        )
        if not (is_function or "'" in name or is_single or "," in inside):
            return ("sym", name)
        while self._at < len(self._tokens) and self._tokens[self._at][1] <= end:
            self._at += 1
        return ("sym", f"{name}({inside})")

    def _follows(self, position: int) -> str | None:
        return next((token for token, start in self._tokens if start > position), None)

    def _closing(self) -> int:
        depth = 0
        for token, position in self._tokens[self._at :]:
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return position
        raise NotReadError("a parenthesis is not closed")

    def _command(self, name: str, depth: int) -> Tree:
        if name in ("frac", "binom"):
            return self._fraction(name, depth)
        if name == "sqrt":
            degree: Tree = ("num", Fraction(2))
            if self.peek() == "[":
                degree = self._group(depth, "]")
            return ("root", degree, self._argument(depth))
        if name in FUNCTIONS or name in ("log", "lg"):
            return self._call(name, depth)
        if name in MANY:
            return self._call_many(name, depth)
        if name in OPAQUE:
            return self._opaque(name)
        if name in DECORATED:
            return self._symbol(f"\\{name}{{{self._raw_group()}}}")
        if name in SYMBOLS:
            return self._symbol(f"\\{name}")
        raise NotReadError(f"\\{name} is no symbol of an expression")

    def _fraction(self, name: str, depth: int) -> Tree:
        start, over, under = self._at, self._raw_group(), self._raw_group()
        is_over = re.match(r"(?:d|\\partial)(?![a-z]{2})", over)
        if name == "frac" and is_over and re.match(r"(?:d|\\partial)[A-Za-z\\]", under):
            return ("sym", rf"\frac{{{over}}}{{{under}}}")
        self._at = start
        parts = (self._argument(depth), self._argument(depth))
        return ("div" if name == "frac" else "binom", *parts)

    def _call(self, name: str, depth: int) -> Tree:
        base: Tree | None = None
        power: Tree | None = None
        while self.peek() in ("_", "^"):
            if self._next() == "_":
                base = self._argument(depth)
            elif self._is_inverse() and name in INVERSES:
                name = INVERSES[name]
            else:
                power = self._argument(depth)
        argument = self._call_argument(depth)
        if name in ("log", "lg"):
            tree: Tree = ("log", argument, base or ("num", Fraction(10)))
        elif base is not None:
            raise NotReadError(f"a subscript of \\{name}")
        else:
            tree = (name, argument)
        return tree if power is None else ("pow", tree, power)

    def _is_inverse(self) -> bool:
        return self._is_next(("{", "-", "1", "}"), ("-", "1"))

    def _call_argument(self, depth: int) -> Tree:
        r"""Parse a function's argument: a group, or factors side by side as in \sin 2x."""
        if self.peek() in ("(", "{", "[", "|"):
            return self._power(depth + 1)
        if self.peek() == "-":
            self._next()
            return ("neg", self._call_argument(depth))
        result = self._power(depth + 1)
        while (token := self.peek()) is not None and token not in IMPLICIT_STOP:
            is_function = token[0] == "\\" and (token[1:] in FUNCTIONS or token == r"\log")
            if token in ("(", "[") or is_function:
                break
            result = ("mul", result, self._power(depth + 1))
        return result

    def _call_many(self, name: str, depth: int) -> Tree:
        opening = self._next()
        closing = {"(": ")", "{": "}", r"\{": r"\}"}.get(opening)
        if closing is None:
            raise NotReadError(f"\\{name} without its arguments")
        arguments = [self.sum(depth + 1)]
        while self.peek() == ",":
            self._next()
            arguments.append(self.sum(depth + 1))
        self._expect(closing)
        return (name, *arguments)

    def _opaque(self, name: str) -> Tree:
        """Take an integral, sum, product or limit, to the end of its group, as one symbol."""
        begin = self._tokens[self._at - 1][1]
        depth = 0
        while (token := self.peek()) is not None:
            depth += (token in ("(", "{", "[")) - (token in (")", "}", "]"))
            if depth < 0:
                break
            self._at += 1
        end = self._tokens[self._at][1] if token is not None else len(self._text)
        return ("sym", re.sub(r"[\s{}]+", "", self._text[begin:end]))
