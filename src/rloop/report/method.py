"""What ran, in words: the method a recipe amounts to, how far it came, and the facts beside it."""

from collections.abc import Mapping
from typing import Any

from rloop.methods import method_title
from rloop.report.run_record import Row, RunRecord
from rloop.report.words import count


def describe_method(config: Row) -> str:
    """Return the method as a sentence or three, from a resolved recipe; empty without one."""
    explore, finetune, expert = config.get("explore"), config.get("finetune"), config.get("expert")
    if not explore:
        return ""
    iterations = config.get("iterations", 1)
    turns = f"{iterations} iteration{'s' if iterations != 1 else ''}"
    text = f"{method_title(config)}: {turns} of {_exploration(explore)}"
    if config.get("coldstart"):
        text = f"A cold start on worked solutions first. {text}"
    if finetune is None:
        return f"{text}. No selection and no fine-tuning: RL's own weights are the result."
    start = {
        "iteration_start": "the policy that the iteration started from",
        "base": "the base policy",
        "explored": "RL's own weights",
    }[finetune["init"]]
    text += f", then {_count(finetune['epochs'], 'epoch')} of fine-tuning of {start}"
    text += f" on {_selection(expert)}." if expert else "."
    return text


def describe_evaluation(config: Row) -> str:
    """Return what `rloop eval` measured, from its resolved recipe."""
    evaluate = config["evaluate"]
    sampling = evaluate.get("sampling", {})
    text = f"An evaluation: {_count(evaluate['samples'], 'completion')} of every held-out problem"
    temperature = sampling.get("temperature")
    return f"{text}." if temperature is None else f"{text} at temperature {temperature:g}."


def is_finished(record: RunRecord) -> bool:
    """Whether the run's last phase is complete."""
    if record.is_evaluation:
        return bool(record.rows("evaluate"))
    last = record.config.get("iterations", 1)
    if record.config.get("finetune") is None:
        return record.is_complete(f"{last}/explore")
    return record.is_complete(f"{last}/evaluate/iter-{last:03d}")


def describe_state(record: RunRecord) -> str:
    """Return `Complete.`, or where the run stands."""
    if is_finished(record):
        return "Complete."
    done = list(record.manifest.get("phases", {}))
    reached = f"the last complete phase is {done[-1]}" if done else "no phase is complete"
    point = record.manifest.get("in_progress") or {}
    where = f", {point['key']} is in progress" if point.get("key") else ""
    return f"Not complete: {reached}{where}. All numbers are those so far."


def early_stops(record: RunRecord) -> list[str]:
    """Return a sentence for each exploration that ended before its steps were done."""
    return [
        f"Exploration {key.split('/')[0]} ended early at step {result['steps']}: "
        f"{result['early_stop']}."
        for key, result in record.manifest.get("phases", {}).items()
        if key.endswith("/explore") and result.get("early_stop")
    ]


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return what the page's head lists: name and value, those that are known."""
    config, environment = record.config, flatten(record.environment)
    tasks = config.get("tasks", {})
    known = [
        ("Model", config.get("policy", {}).get("path")),
        ("Trained on", "" if record.is_evaluation else _task_names(tasks.get("train", []))),
        ("Measured on", _task_names(tasks.get("evaluate", []))),
        ("Seed", config.get("seed")),
        ("Sampled in RL", _tokens(record)),
        ("Device", _device(record)),
        ("Commit", environment.get("git_commit")),
        ("Versions", _versions(environment)),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested JSON as dotted names and text. Example: {"a": {"b": 1}} -> {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _exploration(explore: Row) -> str:
    steps, prompts = explore["steps"], explore["prompts_per_step"]
    batch = f"({prompts} prompts x {explore['group_size']} completions)"
    if explore.get("optimizer", {}).get("learning_rate") == 0:
        return f"{_count(steps, 'step')} of sampling {batch}"
    return f"{_count(steps, 'RL step')} {batch}, loss {explore['loss']}"


def _selection(expert: Row) -> str:
    text = f"the successes on problems solved at most {100 * expert['max_success_rate']:g} %"
    cap = expert.get("per_problem_cap")
    return f"{text} of the time, at most {cap} each" if cap else f"{text} of the time"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _task_names(tasks: list[Row]) -> str:
    return ", ".join(str(task.get("name") or task.get("source")) for task in tasks)


def _device(record: RunRecord) -> str:
    machine, cores = record.environment.get("machine"), record.environment.get("cores")
    asked = record.config.get("engine", {}).get("device", "")
    device = flatten(record.environment).get("engine.device", asked)
    return f"{device} ({machine}, {cores} cores)" if machine and cores else device


def _versions(environment: Mapping[str, str]) -> str:
    packages = {"rloop": "packages.rloop-rl", "torch": "packages.torch"}
    return ", ".join(
        f"{name} {environment[key]}" for name, key in packages.items() if key in environment
    )


def _tokens(record: RunRecord) -> str | None:
    sampled = [row.get("explore/sampled_tokens_count") for row in record.rows("explore")]
    known = [number for number in sampled if number is not None]
    return f"{count(sum(known))} tokens in {_count(len(sampled), 'step')}" if known else None
