"""The commands of LaTeX that formulas are made of."""

FUNCTIONS = (
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot",
    "arcsec", "arccsc", "sinh", "cosh", "tanh",
    "ln", "exp",
)  # fmt: skip
MANY = ("gcd", "lcm", "max", "min")
INVERSES = {
    "sin": "arcsin", "cos": "arccos", "tan": "arctan",
    "cot": "arccot", "sec": "arcsec", "csc": "arccsc",
}  # fmt: skip
SYMBOLS = frozenset(
    (  # noqa: SIM905
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu "
        "xi pi varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta "
        "Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph"
    ).split()
)
FUNCTION_LETTERS = tuple(
    rf"\{name}"
    for name in ("Gamma", "Phi", "Psi", "delta", "phi", "psi", "zeta", "sigma", "omega", "Omega")
)
"""Greek letters before a parenthesis name functions, as f, g and capitals do."""
OPAQUE = (
    "int",
    "iint",
    "iiint",
    "oint",
    "sum",
    "prod",
    "lim",
    "limsup",
    "liminf",
    "partial",
    "nabla",
)
DECORATED = ("vec", "hat", "bar", "overline", "tilde", "dot", "ddot", "overrightarrow", "mathbb",
              "mathcal", "mathscr", "mathfrak", "widehat", "angle", "triangle", "operatorname",
              "mathrm", "mathbf", "text")  # fmt: skip
IMPLICIT_STOP = frozenset("+-=<>,;)]}/|!:^_'&%") | {
    r"\}", r"\cup", r"\cap", r"\in", r"\to", r"\rfloor", r"\rceil", r"\times", r"\cdot", r"\pm",
    r"\mp", "<=", ">=", "!=", r"\div", r"\mid", r"\approx", r"\equiv", r"\pmod", r"\mod", r"\bmod",
    "...", r"\rangle", "!!", "*", r"\\", r"\circ", r"\setminus",
}  # fmt: skip
