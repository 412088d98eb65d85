"""Every key of a recipe in words, read from the models in `config.py`; nothing is written twice.

`describe_key` says what a value may be (for errors), `recipe_fields` lists all keys (for
`rloop config`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rloop.recipe.config import Recipe

REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeField:
    """One key; an entry of a list is N, `tasks.train.N.source`.

    Example: RecipeField(key="explore.steps", type="an integer >= 1", default="required",
    description="RL steps in each iteration.")
    """

    key: str
    type: str
    default: str
    """As JSON; `required` where a recipe must say it."""
    description: str


def recipe_fields() -> list[RecipeField]:
    """Return every key of a recipe, parents before children, in the order of `config.py`."""
    return list(_walk(Recipe, ""))


def describe_key(path: Sequence[int | str]) -> str:
    """Return what the value at `path` may be, such as `an integer >= 1`."""
    annotation: Any = Recipe
    constraints: list[Any] = []
    for part in path:
        annotation, constraints = _child(annotation, part)
    return _words(annotation, constraints)


def find_key(path: Sequence[int | str]) -> RecipeField:
    """Return the entry of `recipe_fields` for a path whose list indexes are numbers."""
    key = ".".join("N" if isinstance(part, int) else part for part in path)
    return next(field for field in recipe_fields() if field.key == key)


def is_text(path: Sequence[str]) -> bool:
    """Return whether the value at `path` (list indexes as digits) is text."""
    key = ".".join("N" if part.isdecimal() else part for part in path)
    return any(field.key == key and field.type.startswith("text") for field in recipe_fields())


def valid_keys(path: Sequence[int | str]) -> list[str]:
    """Return the keys that the mapping at `path` takes."""
    annotation: Any = Recipe
    for part in path:
        annotation, _ = _child(annotation, part)
    model = _model(annotation)
    return list(model.model_fields) if model else []


def _walk(model: type[BaseModel], prefix: str) -> Iterator[RecipeField]:
    for name, info in model.model_fields.items():
        yield RecipeField(
            key=prefix + name,
            type=_words(info.annotation, info.metadata),
            default=_default(info),
            description=" ".join((info.description or "").split()),
        )
        nested = _model(info.annotation)
        if nested:
            entry = "N." if _is_list(info.annotation) else ""
            yield from _walk(nested, f"{prefix}{name}.{entry}")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return REQUIRED
    if isinstance(info.default, BaseModel):
        return "see below"
    return json.dumps(info.default)


def _is_list(annotation: Any) -> bool:  # noqa: ANN401 (a type, of any shape)
    return get_origin(annotation) is tuple


def _model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 (a type, of any shape)
    """Return the model that `X`, `X | None` or `tuple[X, ...]` holds."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _child(annotation: Any, part: int | str) -> tuple[Any, list[Any]]:  # noqa: ANN401 (a type)
    """Return the type and the constraints one step down."""
    model = _model(annotation)
    if isinstance(part, int) or model is None:
        return get_args(annotation)[-1 if get_origin(annotation) is dict else 0], []
    if part not in model.model_fields:
        return Any, []
    info = model.model_fields[part]
    return info.annotation, info.metadata


_PLAIN = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    NoneType: "null",
}
_SIGNS = ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"))


def _words(annotation: Any, constraints: Sequence[Any] = ()) -> str:  # noqa: ANN401 (a type)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], _flat(arguments[1:]))
    if origin in (Union, UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else arguments[0]
    if origin is tuple:
        filled = "non-empty " if any(isinstance(item, MinLen) for item in constraints) else ""
        return f"a {filled}list, each {_words(arguments[0])}"
    if annotation in _PLAIN:
        return _PLAIN[annotation] + _limits(constraints)
    return "a mapping"


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Return the constraints, those inside a `Field(...)` too."""
    return [
        inner
        for item in metadata
        for inner in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]


def _limits(constraints: Sequence[Any]) -> str:
    limits = [
        f"{sign} {getattr(item, name):g}"
        for item in constraints
        for kind, name, sign in _SIGNS
        if isinstance(item, kind)
    ]
    patterns = [
        f"matching {item.pattern}" for item in constraints if getattr(item, "pattern", None)
    ]
    said = " and ".join(limits + patterns)
    return f" {said}" if said else ""
