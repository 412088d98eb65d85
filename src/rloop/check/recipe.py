"""`rloop check`: the recipe's problems loaded and judged, and what the run will ask of the machine.

Samples nothing and imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from rloop.check.estimate import (
    Demand,
    auto_device,
    batch_arithmetic,
    compute_bytes,
    cuda_memory,
    disk,
    disk_warnings,
    main_memory,
    memory,
)
from rloop.errors import ConfigError, EngineUnavailable, TaskError
from rloop.policies.model_files import (
    ACCEPTED_FORMS,
    TokenizerFiles,
    find_packaged_gguf,
    is_hub_name,
    measure_model,
    read_attention_window,
    read_context_length,
    read_random_name,
    read_tokenizer,
)
from rloop.policies.prompts import (
    PromptText,
    Section,
    check_context,
    completion_limit,
    today,
)
from rloop.recipe.checks import check_best_by, recipe_warnings
from rloop.recipe.config import Recipe
from rloop.tasks.load import load_coldstart, load_task, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import Progress, check_references
from rloop.tasks.rewards import check_rewards
from rloop.text import format_value
from rloop.types import Problem

SECTIONS: tuple[Section, ...] = ("explore", "evaluate")
"""Sections of a recipe that sample, in the order of training and held-out problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What is known before a run starts.

    Example: CheckReport(problems=("gsm8k/train: 7473 read, 7473 taken",), demands=(...),
    warnings=("The disk has 2 GB free, the run may write 3 GB.",))
    """

    problems: tuple[str, ...]
    demands: tuple[Demand, ...]
    warnings: tuple[str, ...]
    prompt: str | None = None
    """The first problem's prompt; None where the model's tokenizer is not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
    """What could be loaded, with the lines and warnings that say so."""

    train: tuple[Problem, ...] | None
    """None where a training task is out of reach."""
    held_out: tuple[Problem, ...]
    others: tuple[Problem, ...]
    """Of a cold start, or of training where some of it is out of reach: judged, not counted."""
    lines: list[str]
    warnings: list[str]


def check_recipe(
    recipe: Recipe, run_root: Path, on_progress: Progress | None = None
) -> CheckReport:
    """Load and judge all problems and multiply out the recipe; runs would be under `run_root`.

    `on_progress` is told how many verdicts are done, of how many.

    Raises ConfigError, TaskError or EngineError where a run would stop at its start; a hub out of
    reach is a warning, for the run may be meant for another machine.
    """
    check_path(recipe.policy.path)
    _check_device(recipe.engine.device)
    problems = _load(recipe)
    kept = _judge(recipe, problems, on_progress)
    num_evaluate = sum(problem.problem_id in kept for problem in problems.held_out)
    num_train = None
    if problems.train is not None:
        num_train = sum(problem.problem_id in kept for problem in problems.train)
    first, said = check_prompts(recipe, problems.train or problems.others, problems.held_out)
    everything = (*(problems.train or ()), *problems.held_out, *problems.others)
    longest = longest_prompt(recipe, everything)
    model = measure_model(recipe.policy.path)
    written = disk(recipe, num_evaluate, model)
    demands = [*batch_arithmetic(recipe, num_train, num_evaluate), *written]
    warnings = [
        *recipe_warnings(recipe),
        *_check_sampler(recipe),
        *problems.warnings,
        *said,
        *disk_warnings(written, run_root / recipe.name),
    ]
    if recipe.engine.name == "tinker":
        warnings.append("The model is in the server's memory: see `rloop doctor --server URL`.")
    elif model is None:
        warnings.append(_unknown_size(recipe.policy.path))
    else:
        here = _here(recipe, longest)
        held = memory(here, model, compute_bytes(here), num_evaluate=num_evaluate)
        demands += [
            Demand("memory", "longest prompt", longest, "tokens", "of these problems"),
            *held,
        ]
        warnings += _memory_warnings(here, held)
    return CheckReport(
        problems=tuple(problems.lines),
        demands=tuple(demands),
        warnings=tuple(warnings),
        prompt=first,
    )


def check_prompts(
    recipe: Recipe, train: Sequence[Problem], held_out: Sequence[Problem]
) -> tuple[str | None, list[str]]:
    """Return the first problem's prompt and warnings, from what lies on this machine: a directory,
    the hub's cache, a GGUF file's header; None where the model's tokenizer is not here.

    EngineError for a template that a run would refuse, ConfigError for a prompt and a completion
    that are longer than the model's context.
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
    warnings = prompts.warnings() if prompts is not None else []
    context, window = read_context_length(source), read_attention_window(source)
    limits = {section: completion_limit(recipe, section) for section in SECTIONS}
    longest = config.max_tokens + max(limits.values())
    if window is not None and longest > window:
        warnings.append(
            f"This model attends over a sliding window of {window} tokens, and prompt.max_tokens + "
            f"max_completion_tokens = {longest} is longer, which the native engine refuses. Lower "
            "either."
        )
    for section, problems in zip(SECTIONS, (train, held_out), strict=True):
        together = config.max_tokens + limits[section]
        if context is None or not problems or together <= context:
            continue
        if files is None or files.tokenizer is None or prompts is None:
            warnings.append(
                f"prompt.max_tokens={config.max_tokens} and {section}.sampling."
                f"max_completion_tokens={limits[section]} are {together} tokens together, more "
                f"than the {context} of the policy's context: a run stops at its start where its "
                "longest prompt does not fit. Lower either."
            )
            continue
        is_own = config.template is not None
        lengths = [(files.count(prompts.text(p), is_own=is_own), p.problem_id) for p in problems]
        fitting = [found for found in lengths if found[0] <= config.max_tokens]
        if fitting:
            length, problem_id = max(fitting, key=lambda found: found[0])
            check_context(recipe, section, problem_id, length, context)
    first = next(iter((*train, *held_out)), None)
    return (prompts.text(first) if prompts and first else None), warnings


def longest_prompt(recipe: Recipe, problems: Sequence[Problem]) -> int:
    """Return the tokens of the longest prompt that `prompt.max_tokens` lets pass.

    Where no tokenizer is here to count them, a token for each byte, as no prompt has more; without
    a chat template `prompt.max_tokens` itself.
    """
    config, files = recipe.dated(today()).prompt, read_tokenizer(recipe.policy.path)
    if files is None or not problems:
        return config.max_tokens
    prompts = PromptText(
        config, chat_template=files.chat_template, special_tokens=files.special_tokens
    )
    is_own = config.template is not None
    lengths = []
    for text in map(prompts.text, problems):
        if files.tokenizer is None:
            lengths.append(min(config.max_tokens, len(text.encode()) + 1))
        else:
            lengths.append(files.count(text, is_own=is_own))
    return max((length for length in lengths if length <= config.max_tokens), default=1)


def _here(recipe: Recipe, longest: int) -> Recipe:
    """Return the recipe on this machine's device, with prompts no longer than the longest."""
    device = auto_device() if recipe.engine.device == "auto" else recipe.engine.device
    engine = recipe.engine.model_copy(update={"device": device})
    prompt = recipe.prompt.model_copy(update={"max_tokens": longest})
    return recipe.model_copy(update={"engine": engine, "prompt": prompt})


def _check_sampler(recipe: Recipe) -> list[str]:
    """Return a warning where the sampler is not here; the run may be meant for another machine."""
    if recipe.explore.sampler != "vllm" or find_spec("vllm") is not None:
        return []
    return ["explore.sampler is vllm, which is not installed here: docs/how-to/use-vllm.md."]


def check_path(source: str) -> None:
    """Raise ConfigError or EngineError for a `policy.path` that is nothing here and no name of the
    hub's.
    """
    kind, _, name = source.partition(":")
    if kind == "random":
        read_random_name(name)
    elif kind == "package":
        find_packaged_gguf(name)
    elif not (Path(source).expanduser().exists() or is_hub_name(source)):
        raise ConfigError(f"policy.path {source!r} does not exist. Give {ACCEPTED_FORMS}.")


def _check_device(name: str) -> None:
    """Raise EngineUnavailable for a GPU that this machine has not."""
    if name == "mps" and auto_device() != "mps":
        raise EngineUnavailable(
            "engine.device is 'mps', and this machine has no Apple GPU. Set engine.device=cpu, or "
            "check the recipe on the Mac that runs it."
        )
    kind, _, index = name.partition(":")
    count = len(cuda_memory()) if kind == "cuda" else 0
    if kind == "cuda" and int(index or 0) >= count:
        raise EngineUnavailable(
            f"engine.device is {name!r}, and the driver shows {count} CUDA devices here. Set "
            "engine.device=cpu, or check the recipe on the machine that runs it."
        )


def _load(recipe: Recipe) -> _Problems:
    try:
        tasks = load_tasks(recipe.tasks)
        check_best_by(recipe, tasks.evaluate)
        held_out = tuple(chain.from_iterable(tasks.evaluate.values()))
        coldstart = (
            [load_coldstart(recipe.coldstart, held_out, data_dir=recipe.tasks.data_dir)]
            if recipe.coldstart
            else []
        )
    except TaskError as error:
        if not _is_out_of_reach(error):
            raise
        return _load_within_reach(recipe)
    return _Problems(
        train=tasks.train,
        held_out=held_out,
        others=tuple(problem for task in coldstart for problem in task.problems),
        lines=[*tasks.summary(), *(task.summary() for task in coldstart)],
        warnings=[],
    )


def _load_within_reach(recipe: Recipe) -> _Problems:
    """Load each task by itself; those out of reach become warnings, overlap stays unknown."""
    found: dict[str, list[Problem]] = {"evaluate": [], "other": []}
    lines, warnings = [], []
    tasks = recipe.tasks
    configs = [(f"tasks.evaluate.{i}", config) for i, config in enumerate(tasks.evaluate)]
    configs += [(f"tasks.train.{i}", config) for i, config in enumerate(tasks.train)]
    configs += [("coldstart.task", recipe.coldstart.task)] if recipe.coldstart else []
    for key, config in configs:
        purpose = "evaluate" if key.startswith("tasks.evaluate") else "other"
        try:
            task = load_task(
                config, data_dir=tasks.data_dir, key=key, held_out=purpose == "evaluate"
            )
        except TaskError as error:
            if not _is_out_of_reach(error):
                raise
            warnings.append(f"{error}; not counted below.")
            continue
        lines.append(task.summary())
        found[purpose] += task.problems
    warnings.append("Problems in both training and evaluation tasks were not looked for.")
    return _Problems(
        train=None,
        held_out=tuple(found["evaluate"]),
        others=tuple(found["other"]),
        lines=lines,
        warnings=warnings,
    )


def _is_out_of_reach(error: BaseException | None) -> bool:
    """Whether a connection failed at the root of the error."""
    while error is not None:
        if isinstance(error, ConnectionError):
            return True
        error = error.__cause__
    return False


def _judge(recipe: Recipe, problems: _Problems, on_progress: Progress | None) -> set[str]:
    """Judge every reference answer; return the ids of the problems that stay."""
    tasks = recipe.tasks
    everything = [*(problems.train or ()), *problems.held_out, *problems.others]
    with VerifierPool(tasks.verifier_workers, tasks.verifier_timeout_s) as pool:
        report = check_references(
            everything, pool, policy=tasks.bad_references, on_progress=on_progress
        )
        check_rewards(recipe.rewards, everything, pool)
    problems.lines.append(report.summary())
    return {problem.problem_id for problem in report.kept}


def _memory_warnings(recipe: Recipe, held: list[Demand]) -> list[str]:
    present = main_memory()
    if recipe.engine.device not in ("cpu", "mps") or held[-1].value <= present:
        return []
    return [
        f"The run may hold {format_value(held[-1].value, 'bytes')} and this machine has "
        f"{format_value(present, 'bytes')}: lower engine.microbatch_tokens or engine.max_batch, "
        "or see docs/how-to/train-a-larger-model.md."
    ]


def _unknown_size(source: str) -> str:
    if source.startswith("random:"):
        return f"{source} is tiny and made at the start; its memory is not estimated."
    if Path(source).expanduser().exists():
        return (
            f"No memory estimate: the size of {source} is unknown, because its config.json and "
            "safetensors weights, or its GGUF file, are missing or damaged."
        )
    return (
        f"No memory estimate: the files of {source} are not on this machine. Name a local "
        "directory: --set policy.path=DIR."
    )
