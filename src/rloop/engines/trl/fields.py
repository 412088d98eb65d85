"""Which options TRL's configurations take, read from the installed files without importing them.

TRL imports torch, which `rloop check` does not wait for. Where the files are not laid out as they
are known to be, nothing is known, and TRL itself refuses what it does not take.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FILES = {
    "GRPOConfig": ("trl", "trainer/grpo_config.py"),
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}
"""Class -> its package and the file in it."""


@cache
def option_names(name: str) -> frozenset[str]:
    """Return the options of a class in `FILES`, inherited ones too; empty where not all is known.

    Example: "learning_rate" in option_names("GRPOConfig")
    """
    body = _class_body(name)
    if body is None:
        return frozenset()
    inherited: frozenset[str] = frozenset()
    for base in body.bases:
        of_base = option_names(base.id) if isinstance(base, ast.Name) else frozenset()
        if not of_base:
            return frozenset()
        inherited |= of_base
    return inherited | {
        line.target.id
        for line in body.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and not _is_no_option(line)
    }


def _class_body(name: str) -> ast.ClassDef | None:
    """Return the definition of a class in `FILES`; None where it is not there."""
    if name not in FILES:
        return None
    package, file = FILES[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == name), None)


def _is_no_option(line: ast.AnnAssign) -> bool:
    """Whether it is a constant of the class, or a field that its constructor does not take."""
    is_constant = "ClassVar" in ast.unparse(line.annotation)
    given = line.value.keywords if isinstance(line.value, ast.Call) else []
    return is_constant or any(
        word.arg == "init" and isinstance(word.value, ast.Constant) and word.value.value is False
        for word in given
    )
