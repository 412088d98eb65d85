"""What ran, in words: the method a recipe amounts to, how far it came, and the facts beside it."""

from collections.abc import Mapping
from typing import Any

from rloop.methods import last_phase, method_title
from rloop.report.run_record import Row, RunRecord
from rloop.report.words import count


def describe_run(record: RunRecord) -> str:
    """Return what ran: a method, or an evaluation alone."""
    return (describe_evaluation if record.is_evaluation else describe_method)(record.config)


def describe_method(config: Row) -> str:
    """Return the method in a few short sentences, from a resolved recipe; empty without one."""
    explore, finetune, expert = config.get("explore"), config.get("finetune"), config.get("expert")
    if not explore:
        return ""
    iterations = config.get("iterations", 1)
    said = [f"{method_title(config)}: {_count(iterations, 'iteration')}."]
    if config.get("coldstart"):
        said.insert(0, "A cold start on worked solutions first.")
    each = "It" if iterations == 1 else "Each"
    if finetune is None:
        said.append(f"{each} is {_exploration(explore)}.")
        said += _result_of_rl(explore)
        return " ".join(said)
    start = {
        "iteration_start": "goes back to the weights that the iteration began with",
        "base": "goes back to the base policy",
        "explored": "goes on from RL's own weights",
    }[finetune["init"]]
    epochs = _count(finetune["epochs"], "epoch")
    said.append(f"{each} is {_exploration(explore)}, then {epochs} of fine-tuning.")
    said.append(f"Fine-tuning {start} and learns from the correct completions.")
    if expert:
        said.append(_selection(expert))
    return " ".join(one for one in said if one)


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
    return record.is_complete(last_phase(record.config))


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


def _result_of_rl(explore: Row) -> list[str]:
    """Return what plain RL does with successes and weights."""
    said = []
    if explore.get("replay_per_group"):
        successes = _count(explore["replay_per_group"], "stored success")
        said.append(f"Each begins at the base; from the second on {successes} join each group.")
    return [*said, "No selection and no fine-tuning: RL's own weights are the result."]


def _exploration(explore: Row) -> str:
    steps, prompts = explore["steps"], explore["prompts_per_step"]
    batch = f"{prompts} prompts x {explore['group_size']} completions"
    if explore.get("optimizer", {}).get("learning_rate") == 0:
        return f"{_count(steps, 'step')} of sampling from a frozen policy ({batch})"
    return f"{_count(steps, 'RL step')} ({batch}, loss {explore['loss']})"


def _selection(expert: Row) -> str:
    """Return which problems and how many completions are learned from; empty for all of them."""
    rate, cap = expert["max_success_rate"], expert.get("per_problem_cap")
    most = f"at most {_count(cap, 'completion')} a problem" if cap else ""
    if rate < 1:
        text = f"Problems solved more than {100 * rate:g} % of the time are left out"
        return f"{text}, {most} are kept." if most else f"{text}."
    return f"{most[0].upper()}{most[1:]} are kept." if most else ""


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun}" if number == 1 else f"{number} {plural}"


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
