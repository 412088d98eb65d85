"""The prompts of a recipe before a run, rendered from a model's files: no torch, no transformers.

Reads what lies on this machine: a directory, the hub's cache, a GGUF file's header; a `random:`
model's template is known. Where none of it is here, nothing is said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rloop.config import Recipe
from rloop.gguf_header import read_gguf_header, read_gguf_strings
from rloop.model_size import find_model, read_attention_window, read_context_length
from rloop.prompt_text import (
    CHARACTER_TEMPLATE,
    CHARACTER_TOKENS,
    PromptText,
    Section,
    added_prefix,
    check_context,
    completion_limit,
    today,
    with_prefix,
)
from rloop.types import Problem

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What a model's files say of its prompts.

    Example: TokenizerFiles(chat_template="{{ bos_token }}...", special_tokens={"bos_token": "<s>"},
    tokenizer=Tokenizer(...))
    """

    chat_template: str | Mapping[str, str] | None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    """What counts tokens; None where it is not here as a `tokenizer.json`."""

    def count(self, text: str, *, is_own: bool) -> int:
        """Return a prompt's tokens; a recipe's own template gets what the tokenizer adds."""
        assert self.tokenizer is not None, "asked only where there is a tokenizer"
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not is_own:
            return len(ids)
        bare, whole = (self.tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True))
        return len(with_prefix(ids, added_prefix(bare, whole)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCheck:
    """What is known of the prompts.

    Example: PromptCheck(first="<bos>Q:1+1=\nA:", warnings=())
    """

    first: str | None
    """The first problem's prompt; None where it cannot be told from here."""
    warnings: tuple[str, ...]


def check_prompts(
    recipe: Recipe, train: Sequence[Problem], held_out: Sequence[Problem]
) -> PromptCheck:
    """Render the first prompt, and hold prompts and completions against the model's context.

    EngineError for a template that a run would refuse, ConfigError for a context that is too short.
    """
    recipe = recipe.dated(today())
    source, config = recipe.policy.path, recipe.prompt
    files = read_tokenizer(source)
    if files is None and config.template is not None:
        files = TokenizerFiles(chat_template=None)
    prompts = None
    if files is not None:
        prompts = PromptText(
            config, chat_template=files.chat_template, special_tokens=files.special_tokens
        )
    context, warnings = read_context_length(source), _window_warnings(recipe)
    parts: tuple[tuple[Section, Sequence[Problem]], ...] = (
        ("explore", train),
        ("evaluate", held_out),
    )
    for section, problems in parts:
        completion = completion_limit(recipe, section)
        if context is None or not problems or config.max_tokens + completion <= context:
            continue
        if files is None or files.tokenizer is None or prompts is None:
            warnings.append(
                f"prompt.max_tokens={config.max_tokens} and {section}.sampling."
                f"max_completion_tokens={completion} are {config.max_tokens + completion} tokens "
                f"together, more than the {context} of the policy's context: a run stops at its "
                "start where its longest prompt does not fit. Lower either."
            )
            continue
        lengths = {
            problem.problem_id: files.count(
                prompts.text(problem), is_own=config.template is not None
            )
            for problem in problems
        }
        fitting = [name for name, length in lengths.items() if length <= config.max_tokens]
        longest = max(fitting, key=lengths.__getitem__, default=None)
        if longest is not None:
            check_context(recipe, section, longest, lengths[longest], context)
    first = next(iter((*train, *held_out)), None)
    return PromptCheck(
        first=prompts.text(first) if prompts is not None and first is not None else None,
        warnings=(*(prompts.warnings() if prompts is not None else ()), *warnings),
    )


def _window_warnings(recipe: Recipe) -> list[str]:
    longest = recipe.prompt.max_tokens + max(
        completion_limit(recipe, "explore"), completion_limit(recipe, "evaluate")
    )
    window = read_attention_window(recipe.policy.path)
    if window is None or longest <= window:
        return []
    return [
        f"This model attends over a sliding window of {window} tokens, and prompt.max_tokens + "
        f"max_completion_tokens = {longest} is longer, which the native engine refuses. Lower "
        "either."
    ]


def read_tokenizer(source: str) -> TokenizerFiles | None:
    """Return what the files of the recipe's `policy.path` say, None where they are not here."""
    if source.startswith("random:"):
        return TokenizerFiles(chat_template=CHARACTER_TEMPLATE, special_tokens=CHARACTER_TOKENS)
    try:
        here = Path(source).expanduser()
        path = here if (here / "tokenizer_config.json").is_file() else find_model(source)
        if path is None:
            return None
        return _of_gguf(path) if path.suffix == ".gguf" else _of_directory(path)
    except (KeyError, ValueError, TypeError, OSError):
        return None  # damaged, or written in another way: the run says so


def _of_directory(path: Path) -> TokenizerFiles | None:
    if not (path / "tokenizer_config.json").is_file():
        return None
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file():
            settings |= json.loads((path / name).read_text(encoding="utf-8"))
    tokens = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in settings.items()
        if name in SPECIAL and token is not None
    }
    file = path / "tokenizer.json"
    return TokenizerFiles(
        chat_template=_templates(path, settings.get("chat_template")),
        special_tokens=tokens,
        tokenizer=_tokenizer(file) if file.is_file() else None,
    )


def _tokenizer(file: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 (the library raises plain Exception for a damaged file)
        return None


def _templates(path: Path, written: Any) -> str | dict[str, str] | None:  # noqa: ANN401 (JSON)
    """Return the templates as transformers finds them: files win over tokenizer_config.json."""
    files = sorted((path / "additional_chat_templates").glob("*.jinja"))
    named = {file.stem: file.read_text(encoding="utf-8") for file in files}
    default = path / "chat_template.jinja"
    if default.is_file():
        named["default"] = default.read_text(encoding="utf-8")
    if not named and isinstance(written, list):
        named = {entry["name"]: entry["template"] for entry in written}
    return named or (written if isinstance(written, str) else None)


def _of_gguf(path: Path) -> TokenizerFiles | None:
    values = read_gguf_header(path).values
    template = values.get("tokenizer.chat_template")
    indices = {
        name: int(values[key])
        for name in ("bos_token", "eos_token")
        if (key := f"tokenizer.ggml.{name}_id") in values
    }
    tokens = read_gguf_strings(path, "tokenizer.ggml.tokens", [*indices.values()])
    return TokenizerFiles(
        chat_template=str(template) if template else None,
        special_tokens=dict(zip(indices, tokens, strict=True)),
    )
