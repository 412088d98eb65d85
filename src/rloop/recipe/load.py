"""From a YAML file to a checked `Recipe`, and back to words: errors and the list of keys.

Knows nothing of what the values mean; `config.py` does.
"""

import copy
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rloop.errors import ConfigError
from rloop.recipe.config import Recipe
from rloop.recipe.defaults import fill
from rloop.recipe.keys import (
    describe,
    explain_unknown,
    general,
    is_text,
    keys_with_value,
    recipe_fields,
)
from rloop.recipe.packaged import packaged_recipes

RESOLVED = "config.json"
"""A run's own recipe, whose paths are as they were when it began."""
_log = logging.getLogger(__name__)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `a.b=value` overrides in order, and check every value.

    What a recipe need not say comes from `recipe.defaults`; its name from the file's. Relative
    paths start at the recipe's folder; where they do not exist there, at the current directory, as
    those of overrides do.
    Raises ConfigError with one line per problem: file, dotted key, value, what is allowed.
    """
    data = _read_mapping(path)
    if path.name != RESOLVED:
        _start_at(path.parent, data)
    return make_recipe({"name": run_name(path.stem), **data}, overrides, source=str(path))


def load_text(text: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML text, as `load_recipe` that of a file in the current folder."""
    return make_recipe(_mapping(text, "recipe"), overrides)


def make_recipe(
    data: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str = "recipe"
) -> Recipe:
    """Return the recipe of its values, as YAML or a dict has them; `source` names it in errors."""
    return _check(overridden(data, overrides), source)


def overridden(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of a recipe with `a.b=value` overrides."""
    changed = copy.deepcopy(dict(data))
    for override in overrides:
        _apply(changed, override)
    return changed


def run_name(text: str) -> str:
    """Return a name of a run made of any text. Example: `my-sums` of "my sums"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "run"


def recipe_of_policy(policy: str) -> Path | None:
    """Return the resolved recipe of the run that a policy directory lies in, None outside a run."""
    config = Path(policy).resolve().parent.parent / "config.json"
    return config if Path(policy).is_dir() and config.is_file() else None


def check_policy(policy: str) -> None:
    """Raise ConfigError for a run where a policy is wanted, and for one that its run has not."""
    path = Path(policy)
    is_run = (path / "manifest.json").is_file()
    run_dir = path if is_run else path.parent.parent
    is_missing = path.parent.name == "policies" and not path.exists()
    if not is_run and not (is_missing and (run_dir / "manifest.json").is_file()):
        return
    kept = sorted(found for found in (run_dir / "policies").glob("*") if found.is_dir())
    if is_run:
        names = ", ".join(map(str, kept))
        which = f"Name one of its policies: {names}" if kept else "It has saved none yet"
        raise ConfigError(f"{policy} is a run, not a policy. {which}.")
    names = ", ".join(found.name for found in kept) or "none"
    raise ConfigError(f"There is no policy {path.name} in {run_dir}; it has {names}.")


def evaluation_recipe(
    base: Path | None, overrides: Sequence[str], names: Sequence[str] = ()
) -> Recipe:
    """Return a recipe for evaluation alone: `base`, or one that trains nothing, with overrides.

    `names` take the place of the recipe's held-out tasks: names of some of them, or sources.
    Without a base, `policy.path` and tasks must be given. Values of k above the samples are left
    out, unless k itself is among the overrides.
    """
    data = _read_mapping(base) if base else copy.deepcopy(_EVALUATION)
    if names and isinstance(data.get("tasks"), dict):
        known = {task.get("name") or task.get("source"): task for task in _held_out(data)}
        data["tasks"]["evaluate"] = [known.get(name, {"source": name}) for name in names]
    for override in overrides:
        _apply(data, override)
    tasks = data.get("tasks")
    if base is None and isinstance(tasks, dict):
        if not tasks.get("evaluate"):
            raise ConfigError("Name what to evaluate on: --task gsm8k, or --recipe with its tasks.")
        tasks["train"] = tasks["evaluate"]
    if not any(override.startswith("evaluate.k=") for override in overrides):
        _drop_large_k(data.get("evaluate"))
    return _check(data, str(base) if base else "rloop eval")


def _drop_large_k(evaluate: object) -> None:
    """Leave out the values of k above the number of samples; wrong types are for the models."""
    if not isinstance(evaluate, dict):
        return
    samples, ks = evaluate.get("samples"), evaluate.get("k")
    if isinstance(samples, int) and isinstance(ks, list) and all(isinstance(k, int) for k in ks):
        evaluate["k"] = [k for k in ks if k <= samples] or ks


def _held_out(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = data["tasks"].get("evaluate")
    return [task for task in found if isinstance(task, dict)] if isinstance(found, list) else []


_EVALUATION: dict[str, Any] = {
    "name": "eval",
    "seed": 0,
    "iterations": 1,
    "policy": {},
    "tasks": {"evaluate": []},
    "explore": {
        "steps": 1,
        "prompts_per_step": 1,
        "group_size": 1,
        "sampling": {"max_completion_tokens": 1},
        "optimizer": {"learning_rate": 0},
    },
    "expert": None,
    "finetune": None,
    "evaluate": {"samples": 32, "k": [1, 8, 32], "sampling": {"max_completion_tokens": 1024}},
}


def resolved_json(recipe: Recipe) -> str:
    """Return every value of the recipe as JSON; `load_recipe` reads it back to the same recipe."""
    return recipe.model_dump_json(indent=2) + "\n"


def recipe_yaml(recipe: Recipe) -> str:
    """Return every value of the recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-6 is a number, a date is text, and a key stands once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute)
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key.start_mark
                )
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key.value}` appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _load_yaml(text: str) -> Any:  # noqa: ANN401 (YAML)
    """Return the values of a YAML text; YAMLError for what is none, or nested beyond measure."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _read_mapping(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a recipe.{_near(path / 'any.yaml')}")
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"There is no recipe at {path}.{_near(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a recipe: {error}.") from error
    return _mapping(text, str(path))


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        data = _load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_where(error)}.") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source} holds {_kind(data)}, not a mapping of keys such as `explore:` to values."
        )
    return data


def _start_at(folder: Path, data: dict[str, Any]) -> None:
    """Make paths of a recipe full that exist in its folder, unless that is the current one."""
    if folder.resolve() == Path.cwd():
        return
    tasks, coldstart = data.get("tasks"), data.get("coldstart")
    entries: list[Any] = [coldstart.get("task")] if isinstance(coldstart, dict) else []
    if isinstance(tasks, dict):
        lists = [tasks.get(key) for key in ("train", "evaluate")]
        entries += [entry for found in lists if isinstance(found, list) for entry in found]
    for entry in entries:
        _complete(folder, entry, "source", "file:")
    _complete(folder, tasks, "data_dir")
    _complete(folder, data.get("policy"), "path")


def _complete(folder: Path, section: object, key: str, prefix: str = "") -> None:
    value = section.get(key) if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(value, str) or not value:
        return
    name = value.removeprefix(prefix)
    if not value.startswith(prefix) or not (folder / name).exists():
        return
    section[key] = f"{prefix}{(folder / name).resolve()}"
    if Path(name).exists() and not Path(name).is_absolute():
        _log.warning(
            "%s exists in %s and in %s; using the one in the recipe's folder.",
            name,
            folder,
            Path.cwd(),
        )


def _near(path: Path) -> str:
    siblings = sorted(str(found) for found in path.parent.glob("*.y*ml"))
    here = f" Here are: {', '.join(siblings)}." if siblings else ""
    return f"{here} rloop comes with: {', '.join(packaged_recipes())}."


def _where(error: yaml.YAMLError) -> str:
    if "found character '\\t'" in str(error) and isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return f"line {line} is indented with a tab; use spaces"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _kind(value: object) -> str:
    kinds = {type(None): "nothing", list: "a list", str: "text", dict: "a mapping"}
    return kinds.get(type(value), "a single value")


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set takes KEY=VALUE, such as explore.steps=20, got {override!r}.")
    value = _override_value(override, text, wants_text=is_text(parts))
    here: Any = data
    for depth, part in enumerate(parts):
        place = _place(here, part, key, ".".join(parts[:depth]))
        if depth == len(parts) - 1:
            here[place] = value
        elif isinstance(here, dict) and here.get(place) is None:
            here[place] = {}
        here = here[place]


def _override_value(override: str, text: str, *, wants_text: bool) -> Any:  # noqa: ANN401 (YAML)
    """Return the value as YAML; where text is wanted, anything else is text as it was written."""
    try:
        value = _load_yaml(text)
    except yaml.YAMLError as error:
        if wants_text:
            return text
        raise ConfigError(
            f"--set {override}: the value is not valid YAML: {_where(error)}."
        ) from error
    if wants_text and (not text or not isinstance(value, str | None)):
        return text
    return value


def _place(here: Any, part: str, key: str, above: str) -> Any:  # noqa: ANN401 (YAML values)
    """Return the index or key that `part` is in `here`."""
    if isinstance(here, dict):
        return part
    if not isinstance(here, list):
        raise ConfigError(
            f"--set {key}: {above} is the single value {here!r}, it has no key `{part}`."
        )
    if not part.isdecimal() or int(part) >= len(here):
        raise ConfigError(
            f"--set {key}: {above} is a list of {len(here)}; give an index from 0 to "
            f"{len(here) - 1}, got `{part}`."
        )
    return int(part)


def _check(data: dict[str, Any], source: str) -> Recipe:
    try:
        text = json.dumps(fill(data), default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{source} is not a valid recipe: {error}. A value cannot contain itself, and every "
            "key must be text."
        ) from error
    try:
        # As JSON, so that types are strict and lists still become tuples.
        return Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
    lines = [_explain(one) for one in details if not _repeats(one, details)]
    raise ConfigError("\n".join(f"{source}: {line}" for line in lines))


def _repeats(details: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether it calls a list too short only because its entries are wrong, which is said too."""
    path = details["loc"]
    return details["type"] == "too_short" and any(
        other["loc"][: len(path)] == path for other in others if other is not details
    )


def _explain(details: ErrorDetails) -> str:
    path = details["loc"]
    key = ".".join(str(part) for part in path)
    if details["type"] == "value_error":
        message = details["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    if details["type"] == "extra_forbidden":
        return explain_unknown(path)
    allowed = describe(path)
    if details["type"] == "missing":
        meaning = recipe_fields()[general(path)].description.split(". ")[0].rstrip(".")
        return f"{key} is missing. It must be {allowed}: {meaning}."
    value = json.dumps(details["input"])
    if details["type"] == "literal_error":
        others = keys_with_value(details["input"], but=general(path))
        value += f", a value of {others[0]}: set {others[0]}={details['input']}" if others else ""
    if details["type"] == "tuple_type" and isinstance(details["input"], str):
        value += f": write [{details['input']}]"
    if value == "null" and allowed == "text":
        value += ': write ""'
    value = value if len(value) <= 80 else value[:77] + "..."
    if allowed is None:
        return f"{key}: {details['msg']}, got {value}."
    return f"{key} must be {allowed}, got {value}."
