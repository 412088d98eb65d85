"""The prompts of a recipe before a run, rendered from a model's files: no torch, no transformers.

Reads what lies on this machine: a directory, the hub's cache, a GGUF file's header; a `random:`
model's template is known. Where none of it is here, nothing is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rloop.policies.model_files import (
    TokenizerFiles,
    read_attention_window,
    read_context_length,
    read_tokenizer,
)
from rloop.policies.prompts import (
    PromptText,
    Section,
    check_context,
    completion_limit,
    today,
)
from rloop.recipe.config import Recipe
from rloop.types import Problem


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
