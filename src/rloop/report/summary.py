"""What ran, in words: the method a recipe amounts to, how far it came, and the facts beside it."""

from collections.abc import Mapping

from rloop.observe.metric_keys import flatten
from rloop.recipe.methods import method_title
from rloop.report.formatting import count, plural
from rloop.run_directory import Row, Run


def describe_run(run: Run) -> str:
    """Return what ran: a method, or an evaluation alone."""
    return (describe_evaluation if run.is_evaluation else describe_method)(run.config)


def describe_method(config: Row) -> str:
    """Return the method in a few short sentences, from a resolved recipe; empty without one."""
    explore, finetune, expert = config.get("explore"), config.get("finetune"), config.get("expert")
    if not explore:
        return ""
    iterations = config.get("iterations", 1)
    said = [f"{method_title(config)}: {plural(iterations, 'iteration')}."]
    if config.get("coldstart"):
        said.insert(0, "A cold start on worked solutions comes first.")
    each = "It" if iterations == 1 else "Each"
    if finetune is None:
        said.append(f"{each} is {_exploration(explore)}.")
        said += _result_of_rl(explore)
        return " ".join(said)
    start = {
        "iteration_start": "starts from the weights that the iteration began with",
        "base": "starts from the base policy",
        "explored": "continues from the RL weights",
    }[finetune["init"]]
    epochs = plural(finetune["epochs"], "epoch")
    said.append(f"{each} is {_exploration(explore)}, then {epochs} of fine-tuning.")
    said.append(f"Fine-tuning {start} and learns from the correct completions.")
    if expert:
        said.append(_selection(expert))
    return " ".join(one for one in said if one)


def describe_evaluation(config: Row) -> str:
    """Return what `rloop eval` measured, from its resolved recipe."""
    evaluate = config["evaluate"]
    sampling = evaluate.get("sampling", {})
    text = f"An evaluation: {plural(evaluate['samples'], 'completion')} of every held-out problem"
    temperature = sampling.get("temperature")
    return f"{text}." if temperature is None else f"{text} at temperature {temperature:g}."


def describe_state(run: Run) -> str:
    """Return `Complete.`, or where the run stands."""
    if run.is_complete:
        return "Complete."
    done = list(run.phases)
    reached = f"the last complete phase is {done[-1]}" if done else "no phase is complete"
    point = run.manifest.get("in_progress") or {}
    where = f", {point['key']} is in progress" if point.get("key") else ""
    return f"Not complete: {reached}{where}. The numbers are those so far."


def early_stops(run: Run) -> list[str]:
    """Return a sentence for each exploration that ended before its steps were done."""
    return [
        f"Exploration {key.split('/')[0]} ended early at step {result['steps']}: "
        f"{result['early_stop']}."
        for key, result in run.phases.items()
        if key.endswith("/explore") and result.get("early_stop")
    ]


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what the page's head lists: name and value, those that are known."""
    config, environment = run.config, environment_facts(run)
    tasks = config.get("tasks", {})
    known = [
        ("Model", config.get("policy", {}).get("path")),
        ("Trained on", "" if run.is_evaluation else _task_names(tasks.get("train", []))),
        ("Measured on", _measured_on(tasks)),
        ("Seed", config.get("seed")),
        ("Sampled in RL", _tokens(run)),
        ("Device", _device(run)),
        ("Commit", environment.get("git_commit")),
        ("Versions", _versions(environment)),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]


def alarm_sentences(run: Run) -> list[str]:
    """Return a sentence for each alarm, in time.

    Steps that a resumed run did again sound again; the first counts.
    """
    first: dict[tuple[object, ...], str] = {}
    for event in run.events:
        if event.get("name") == "alarm":
            place = tuple(event.get(key) for key in ("iteration", "phase", "step", "what"))
            step = f", step {event['step']}" if event.get("step") else ""
            where = f"Iteration {event.get('iteration')}, {event.get('phase')}{step}"
            first.setdefault(place, f"{where}: {event.get('text', event.get('what'))}.")
    return list(first.values())


def environment_facts(run: Run) -> dict[str, str]:
    """Return what is known of the environment, by dotted name."""
    flat = flatten(run.environment)
    return {name: str(value) for name, value in flat.items() if value not in (None, {})}


def _result_of_rl(explore: Row) -> list[str]:
    """Return what plain RL does with successes and weights."""
    said = []
    if explore.get("replay_per_group"):
        successes = plural(explore["replay_per_group"], "stored success")
        said.append(f"Each starts from the base; from the second on, {successes} join each group.")
    return [*said, "There is no selection or fine-tuning: the RL weights are the result."]


def _exploration(explore: Row) -> str:
    steps, prompts = explore["steps"], explore["prompts_per_step"]
    batch = f"{prompts} prompts x {explore['group_size']} completions"
    if explore.get("optimizer", {}).get("learning_rate") == 0:
        return f"{plural(steps, 'step')} of sampling from a frozen policy ({batch})"
    return f"{plural(steps, 'RL step')} ({batch}, loss {explore['loss']})"


def _selection(expert: Row) -> str:
    """Return which problems and how many completions are learned from; empty for all of them."""
    rate, cap = expert["max_success_rate"], expert.get("per_problem_cap")
    most = f"at most {plural(cap, 'completion')} a problem" if cap else ""
    if rate < 1:
        text = f"Problems solved more than {100 * rate:g} % of the time are left out"
        return f"{text}, {most} are kept." if most else f"{text}."
    return f"{most[0].upper()}{most[1:]} are kept." if most else ""


def _measured_on(tasks: Row) -> str:
    held_out, trained = tasks.get("evaluate"), _task_names(tasks.get("train", []))
    return _task_names(held_out) if held_out else trained and f"a held-out part of {trained}"


def _task_names(tasks: list[Row]) -> str:
    return ", ".join(str(task.get("name") or task.get("source")) for task in tasks)


def _device(run: Run) -> str:
    machine, cores = run.environment.get("machine"), run.environment.get("cores")
    asked = run.config.get("engine", {}).get("device", "")
    device = environment_facts(run).get("engine.device", asked)
    return f"{device} ({machine}, {cores} cores)" if machine and cores else device


def _versions(environment: Mapping[str, str]) -> str:
    packages = {"rloop": "packages.rloop-rl", "torch": "packages.torch"}
    return ", ".join(
        f"{name} {environment[key]}" for name, key in packages.items() if key in environment
    )


def _tokens(run: Run) -> str | None:
    sampled = run.sampled_tokens("explore")
    steps = plural(len(run.rows("explore")), "step")
    return None if sampled is None else f"{count(sampled)} tokens in {steps}"
