r"""One mathematical expression: parsed from cleaned LaTeX, evaluated, compared.

A recursive-descent parser makes a small tree; nothing is ever run as code. Two formulas are equal
when they have the same value: exactly, in fractions, where only rational numbers are involved, so
that 1 - 2^2012 differs from -2^2012; else to 50 digits. With variables they must agree at several
points, some below and some above 1, some negative; a point at which one side is undefined in the
real numbers says nothing. What cannot be evaluated (an integral, a derivative, f(x)) is a variable
of its own, named by its text.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import mpmath

from rloop.tasks.verifiers.latex import WORDS_OPEN, brace_end

MP = mpmath.MPContext()
"""A context of our own: the precision of others is left alone."""
MP.dps = 50
MAX_BITS = 200_000
"""Size of an exact number; what is larger is not worked out."""
MAX_DEPTH = 60
MAX_CHARS = 1000
RELATIVE = MP.mpf(10) ** -40

Tree = tuple[Any, ...]
Value = Any
"""A Fraction, or mpmath's real or complex number."""

_TOKEN = re.compile(
    r"\s*(?P<token>\d+\.\d*|\.\d+|\d+|\\[A-Za-z]+|\\[{}|]|[A-Za-z]|<=|>=|!=|\.\.\.|!!|\S)"
)
_FUNCTIONS = {
    "sin": MP.sin, "cos": MP.cos, "tan": MP.tan, "cot": MP.cot, "sec": MP.sec,
    "csc": MP.csc, "arcsin": MP.asin, "arccos": MP.acos, "arctan": MP.atan,
    "sinh": MP.sinh, "cosh": MP.cosh, "tanh": MP.tanh, "ln": MP.ln,
    "exp": MP.exp,
}  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_MANY = ("gcd", "lcm", "max", "min")
_PLAIN_NAMES = (*sorted((*_FUNCTIONS, *_MANY, "log", "sqrt", "pi"), key=len, reverse=True),)
_PLAIN = re.compile(rf"(?<![\\A-Za-z])({'|'.join(_PLAIN_NAMES)})(?![a-z])")
_OPAQUE = ("int", "iint", "iiint", "oint", "sum", "prod", "lim", "limsup", "liminf", "partial", "nabla")
_DECORATED = ("vec", "hat", "bar", "overline", "tilde", "dot", "ddot", "overrightarrow", "mathbb",
              "mathcal", "mathscr", "mathfrak", "widehat", "angle", "triangle", "operatorname",
              "mathrm", "mathbf", "text")  # fmt: skip
_IMPLICIT_STOP = frozenset("+-=<>,;)]}/|!:^_'&%") | {
    r"\}", r"\cup", r"\cap", r"\in", r"\to", r"\rfloor", r"\rceil", r"\times", r"\cdot", r"\pm",
    r"\mp", "<=", ">=", "!=", r"\div", r"\mid", r"\approx", r"\equiv", r"\pmod", r"\mod", r"\bmod",
    "...", r"\rangle", "!!", "*", r"\\", r"\circ", r"\setminus",
}  # fmt: skip


class NotReadError(ValueError):
    """The text is no expression that this parser understands."""


class UndefinedError(ArithmeticError):
    """The expression has no value here: a division by zero, a root of a negative number."""


class TooLargeError(ArithmeticError):
    """Working the expression out exactly would take too long."""


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
    def is_plain(self) -> bool:
        """Whether it is a value as one writes it: a number, its negative, a symbol; no operation.

        A fraction of two integers, a root and a multiple of a constant are operations.
        """
        tree = self.tree[1] if self.tree[0] == "neg" else self.tree
        return tree[0] in ("num", "dec", "sym")


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


def is_equal(left: Formula, right: Formula) -> bool:
    """Whether two formulas have the same value wherever both have one.

    TooLargeError where that cannot be worked out, UndefinedError where one has no value at all.
    """
    if left.tree == right.tree:
        return True
    symbols = sorted(left.symbols | right.symbols)
    if not symbols:
        return _close(evaluate(left.tree, {}), evaluate(right.tree, {}))
    agreed = 0
    for point in _points(symbols):
        try:
            values = evaluate(left.tree, point), evaluate(right.tree, point)
        except UndefinedError:
            continue
        if not _close(*values):
            return False
        agreed += 1
    return agreed >= 2


def constant_ratio(left: Formula, right: Formula) -> Value | None:
    """Return c where left = c * right at every point, None where there is no such number."""
    ratio, agreed = None, 0
    for point in _points(sorted(left.symbols | right.symbols)):
        try:
            over, under = evaluate(left.tree, point), evaluate(right.tree, point)
        except UndefinedError:
            continue
        if under == 0 or over == 0:
            if over != under:
                return None
            continue
        found = _pair(over, under, lambda x, y: x / y)
        if ratio is not None and not _close(ratio, found):
            return None
        ratio, agreed = found, agreed + 1
    return ratio if agreed >= 2 else None


def value_of(formula: Formula) -> Value:
    """Return the value of a formula without variables; UndefinedError, TooLargeError, else."""
    if formula.symbols:
        raise UndefinedError("it has variables")
    return evaluate(formula.tree, {})


def _close(left: Value, right: Value) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    if isinstance(left, Fraction) or isinstance(right, Fraction):
        left, right = _inexact(left), _inexact(right)
    scale = max(abs(left), abs(right))
    if not MP.isfinite(scale):
        return bool(left == right)
    return bool(abs(left - right) <= RELATIVE * scale)


def _points(symbols: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield values for every variable: 2 points below 1, 2 above, 2 with negative ones."""
    for index in range(6):
        point = {}
        for name in symbols:
            digest = blake2b(f"{index}/{name}".encode(), digest_size=4).digest()
            share = Fraction(int.from_bytes(digest, "big") % 9973, 9973)
            if index < 2:
                value = Fraction(3, 10) + share * Fraction(13, 20)
            elif index < 4:
                value = Fraction(21, 20) + share * Fraction(3, 2)
            else:
                value = -Fraction(1, 5) - share * Fraction(7, 4)
                if index == 5 and digest[0] % 2:
                    value = -value
            point[name] = value
        yield point


def _symbols(tree: Tree) -> Iterator[str]:
    if tree[0] == "sym":
        yield tree[1]
    else:
        for part in tree[1:]:
            if isinstance(part, tuple):
                yield from _symbols(part)


def evaluate(tree: Tree, point: Mapping[str, Fraction]) -> Value:
    """Return the value of a tree where the variables have the point's values."""
    kind = tree[0]
    if kind in ("num", "dec"):
        return tree[1]
    if kind == "sym":
        return point[tree[1]]
    if kind == "const":
        return {"pi": MP.pi, "e": MP.e, "i": MP.mpc(0, 1)}[tree[1]] * 1
    arguments = [evaluate(part, point) for part in tree[1:] if isinstance(part, tuple)]
    if kind in ("pow", "root") and not point and _is_real(arguments[-1 if kind == "root" else 0]):
        arguments = _perhaps_complex(kind, arguments)
    try:
        return _checked(_apply(tree, arguments))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UndefinedError(str(error)) from error


def _perhaps_complex(kind: str, a: list[Value]) -> list[Value]:
    r"""Let a negative number without variables have a square root: \sqrt{-4} is 2i."""
    position = 1 if kind == "root" else 0
    other = a[1 - position]
    is_even = isinstance(other, Fraction) and (other if kind == "root" else other.denominator) % 2 == 0
    if is_even and a[position] < 0:
        a[position] = MP.mpc(_inexact(a[position]), 0)
    return a


def _apply(tree: Tree, a: list[Value]) -> Value:
    kind = tree[0]
    if kind == "neg":
        return -a[0]
    if kind == "add":
        return _fold(a, lambda x, y: x + y)
    if kind == "mul":
        return _fold(a, lambda x, y: x * y)
    if kind == "div":
        if a[1] == 0:
            raise UndefinedError("a division by zero")
        return _pair(a[0], a[1], lambda x, y: x / y)
    if kind == "pow":
        return _power(a[0], a[1])
    if kind == "fact":
        return _factorial(a[0], tree[-1])
    if kind == "root":
        return _root(a[0], a[1])
    if kind == "binom":
        return _binomial(a[0], a[1])
    return _function(kind, a)


def _fold(values: list[Value], operation: Any) -> Value:  # noqa: ANN401
    result = values[0]
    for value in values[1:]:
        result = _pair(result, value, operation)
    return result


def _pair(left: Value, right: Value, operation: Any) -> Value:  # noqa: ANN401
    if isinstance(left, Fraction) != isinstance(right, Fraction):
        left, right = _inexact(left), _inexact(right)
    return operation(left, right)


def _inexact(value: Value) -> Value:
    if isinstance(value, Fraction):
        return MP.mpf(value.numerator) / MP.mpf(value.denominator)
    return value


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise TooLargeError("a number too large to work out")
    elif MP.isnan(value):
        raise UndefinedError("no number")
    elif isinstance(value, MP.mpc) and abs(value.imag) <= abs(value.real) * RELATIVE:
        return value.real
    return value


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = exponent.numerator
        if base == 0 and power <= 0:
            raise UndefinedError("zero to the power of zero or less")
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(power) > MAX_BITS and abs(base) not in (0, 1):
                raise TooLargeError("a power too large to work out")
            return base**power
        _check_exponent(base, exponent)
        return base**power
    if base == 0:
        return Fraction(0)
    if not isinstance(base, MP.mpc) and base < 0:
        root = _odd_root(base, exponent)
        if root is None:
            raise UndefinedError("a root of a negative number")
        return root
    _check_exponent(base, exponent)
    exact = _exact_root(base, exponent)
    return exact if exact is not None else _inexact(base) ** _inexact(exponent)


def _check_exponent(base: Value, exponent: Value) -> None:
    size = abs(_inexact(exponent)) * abs(MP.log(abs(_inexact(base)) or 1))
    if size > 1e12:
        raise TooLargeError("a power too large to work out")


def _odd_root(base: Value, exponent: Value) -> Value | None:
    if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
        return None
    sign = -1 if exponent.numerator % 2 else 1
    return sign * _power(-base, exponent)


def _exact_root(base: Value, exponent: Value) -> Fraction | None:
    """Return base^exponent where both are rational and so is the result: 4^(1/2) = 2."""
    if not (isinstance(base, Fraction) and isinstance(exponent, Fraction)):
        return None
    degree, roots = exponent.denominator, []
    if degree > 64 or abs(exponent.numerator) > 1000:
        return None
    for part in (base.numerator, base.denominator):
        root = int(MP.nint(MP.mpf(part) ** (MP.mpf(1) / degree)))
        if root**degree != part:
            return None
        roots.append(root)
    return Fraction(*roots) ** exponent.numerator


def _root(degree: Value, base: Value) -> Value:
    if degree == 0:
        raise UndefinedError("a root of degree zero")
    if isinstance(degree, Fraction):
        return _power(base, 1 / degree)
    return _power(base, 1 / degree)


def _factorial(value: Value, step: int) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise UndefinedError("a factorial of a negative number")
        if value > 20_000:
            raise TooLargeError("a factorial too large to work out")
        result = 1
        for factor in range(int(value), 0, -step):
            result *= factor
        return Fraction(result)
    if step != 1:
        raise UndefinedError("a double factorial of a fraction")
    return MP.gamma(_inexact(value) + 1)


def _binomial(over: Value, under: Value) -> Value:
    if isinstance(under, Fraction) and under.denominator == 1 and 0 <= under <= 20_000:
        result = Fraction(1)
        for index in range(int(under)):
            result = _checked(_pair(result, _pair(over - index, Fraction(index + 1), lambda x, y: x / y), lambda x, y: x * y))
        return result
    return MP.binomial(_inexact(over), _inexact(under))


def _function(kind: str, a: list[Value]) -> Value:
    if kind in _MANY:
        return _of_many(kind, a)
    if kind == "abs":
        return abs(a[0])
    if kind in ("floor", "ceil"):
        if not _is_real(a[0]):
            raise UndefinedError("rounding a complex number")
        found = MP.floor(_inexact(a[0])) if kind == "floor" else MP.ceil(_inexact(a[0]))
        return Fraction(int(found))
    if kind == "mod":
        if a[1] == 0 or not (isinstance(a[0], Fraction) and isinstance(a[1], Fraction)):
            raise UndefinedError("a remainder of this kind")
        return a[0] % a[1]
    if kind in ("ln", "log"):
        return _logarithm(a)
    value = _inexact(a[0])
    if kind == "exp":
        _check_exponent(MP.e, value)
    if kind in ("arcsin", "arccos") and _is_real(value) and abs(value) > 1:
        raise UndefinedError("an inverse of a sine beyond 1")
    if abs(value) > 10**15:
        raise TooLargeError("a function of a large number")
    try:
        found = _FUNCTIONS[kind](value)
    except (ValueError, ZeroDivisionError) as error:
        raise UndefinedError(str(error)) from error
    return found


def _logarithm(a: list[Value]) -> Value:
    if any(value == 0 or (not isinstance(value, MP.mpc) and value < 0) for value in a):
        raise UndefinedError("a logarithm of zero or less")
    result = MP.ln(_inexact(a[0]))
    if len(a) == 1:
        return result
    under = MP.ln(_inexact(a[1]))
    if under == 0:
        raise UndefinedError("a logarithm to base 1")
    return result / under


def _of_many(kind: str, a: list[Value]) -> Value:
    if kind in ("max", "min"):
        return (max if kind == "max" else min)(a, key=_inexact)
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in a):
        raise UndefinedError(f"{kind} of numbers that are not integers")
    numbers = [value.numerator for value in a]
    return Fraction(math.gcd(*numbers) if kind == "gcd" else math.lcm(*numbers))


def _is_real(value: Value) -> bool:
    return not isinstance(value, MP.mpc)


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
                result = ("mul", result, self._signed(depth))
            elif token in ("/", r"\div"):
                self._next()
                result = ("div", result, self._signed(depth))
            elif token in (r"\mod", r"\bmod"):
                self._next()
                result = ("mod", result, self._signed(depth))
            elif token is None or token in _IMPLICIT_STOP:
                return result
            else:
                before = self._tokens[self._at - 1][0]
                if token[0].isdigit() and before[-1].isdigit():
                    raise NotReadError("two numbers side by side")
                result = ("mul", result, self._power(depth))

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

    def _is_circle(self) -> bool:
        for form in (r"\circ",), ("{", r"\circ", "}"):
            if tuple(self.peek(i) for i in range(len(form))) == form:
                self._at += len(form)
                return True
        return False

    def _is_prime(self) -> bool:
        for form in (r"\prime",), ("{", r"\prime", "}"):
            if tuple(self.peek(i) for i in range(len(form))) == form:
                self._at += len(form)
                return True
        return False

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
        if not (letter in tuple("fghFGH") or "'" in name or is_single or "," in inside):
            return ("sym", name)
        while self._at < len(self._tokens) and self._tokens[self._at][1] <= end:
            self._at += 1
        return ("sym", f"{name}({inside})")

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
        if name in _FUNCTIONS or name == "log":
            return self._call(name, depth)
        if name in _MANY:
            return self._call_many(name, depth)
        if name in _OPAQUE:
            return self._opaque(name)
        if name in _DECORATED:
            return self._symbol(f"\\{name}{{{self._raw_group()}}}")
        if name in ("infty", "ldots", "pm", "mp", "begin", "end", "text", "in", "cup", "cap", "to"):
            raise NotReadError(f"\\{name} is no part of an expression")
        return self._symbol(f"\\{name}")

    def _fraction(self, name: str, depth: int) -> Tree:
        start = self._at
        over, under = self._raw_group(), self._raw_group()
        if name == "frac" and re.match(r"(?:d|\\partial)(?![a-z]{2})", over) and re.match(
            r"(?:d|\\partial)[A-Za-z\\]", under
        ):
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
            elif self._is_inverse() and name in _INVERSES:
                name = _INVERSES[name]
            else:
                power = self._argument(depth)
        argument = self._call_argument(depth)
        if name == "log":
            tree: Tree = ("log", argument, base or ("num", Fraction(10)))
        elif base is not None:
            raise NotReadError(f"a subscript of \\{name}")
        else:
            tree = (name, argument)
        return tree if power is None else ("pow", tree, power)

    def _is_inverse(self) -> bool:
        for form in (("{", "-", "1", "}"), ("-", "1")):
            if tuple(self.peek(i) for i in range(len(form))) == form:
                self._at += len(form)
                return True
        return False

    def _call_argument(self, depth: int) -> Tree:
        r"""Parse a function's argument: a group, or factors side by side as in \sin 2x."""
        if self.peek() in ("(", "{", "[", "|"):
            return self._power(depth + 1)
        if self.peek() == "-":
            self._next()
            return ("neg", self._call_argument(depth))
        result = self._power(depth + 1)
        while (token := self.peek()) is not None and token not in _IMPLICIT_STOP:
            is_function = token[0] == "\\" and (token[1:] in _FUNCTIONS or token == r"\log")
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
        return ("sym", re.sub(r"\s+", "", self._text[begin:end]))
