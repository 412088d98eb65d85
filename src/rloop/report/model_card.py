"""The model card of an exported policy: what it is, what it cost, what was measured and what not.

Numbers are those of metrics.jsonl, up to the policy and no further. Text of a recipe is shown as
text: nothing in it is Markdown, HTML or YAML. Knows nothing of files but the run's.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from rloop.report.conclusions import headline
from rloop.report.html import NUMBERS
from rloop.report.summary import describe_method, environment_facts, facts
from rloop.report.tables import TaskTable, task_tables
from rloop.run_directory import Row, Run
from rloop.store.trajectories import open_store
from rloop.tasks.benchmarks import BENCHMARKS
from rloop.text import visible
from rloop.types import policy_kind

TAGS = ["rloop", "reinforcement-learning", "rlvr"]
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SPECIAL = re.compile(r"[\\`*_\[\]{}|~$#]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A task of the run, and how much of it the policy met on its way.

    Example: Data(use="RL", task="sums", source="reasoning_gym:chain_sum", seed=1, problems=64,
    completions=840, verifier="numeric/1")
    """

    use: str
    task: str
    source: str
    split: str | None
    seed: int
    problems: int
    """Different ones sampled."""
    completions: int
    verifier: str
    """Name and version, as stored with every verdict."""


def model_card(run: Run, policy: str, *, directory: str, license_name: str | None = None) -> str:
    """Return the README.md of a policy exported to a directory of that name.

    `license_name` is the base model's own as the hub names it (`apache-2.0`), None where unknown.
    """
    config, until, confidence = run.config, run_until(run, policy), run.confidence
    tables = task_tables(until)
    data = data_of(until)
    metadata = front_matter(
        config, tables, policy, name=directory, confidence=confidence, license_name=license_name
    )
    body = _template().render(
        policy=policy,
        run=run,
        directory=directory,
        what=what_it_is(config, policy),
        # Of the base and of the cold start the loop has made nothing yet.
        method="" if policy in ("base", "coldstart") else describe_method(config),
        base=config.get("policy", {}).get("path", "unknown"),
        facts=dict(facts(until)),
        version=environment_facts(run).get("packages.rloop-rl", "unknown"),
        data=data,
        coldstart=config.get("coldstart"),
        tables=tables,
        headlines=[(t.task, headline(t, confidence)) for t in tables if _ends_with(t, policy)],
        confidence=confidence,
        budgets=until.budgets,
        prompt=config.get("prompt", {}),
        sampling=config.get("evaluate", {}).get("sampling", {}),
        license_name=license_name,
    )
    return f"---\n{metadata.to_yaml()}\n---\n{body}"


def resolved_recipe(run: Run) -> str:
    """Return every value of the run's recipe as YAML; `rloop run` and `rloop eval` read it."""
    head = "# Every value of the recipe that made this policy, overrides included.\n"
    return head + yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100)


def run_until(run: Run, policy: str) -> Run:
    """Return the record as it stood when the policy was made and measured."""
    named = [number for number, row in enumerate(run.metrics) if row.get("policy") == policy]
    metrics = run.metrics[: named[-1] + 1] if named else []
    seen = {(row["iteration"], row["phase"]) for row in metrics}
    events = [row for row in run.events if (row.get("iteration"), row.get("phase")) in seen]
    return replace(run, metrics=metrics, events=events)


def what_it_is(config: Row, policy: str) -> str:
    """Return the policy's place in the loop. Example: `the policy after iteration 1 of 2`."""
    kind, number = policy_kind(policy), policy.rpartition("-")[2]
    if kind == "base":
        return "the base policy, as the run began with it"
    if kind == "coldstart":
        return "the base policy after a cold start on worked solutions, before any RL"
    turn = f"iteration {int(number)} of {config.get('iterations', 1)}"
    if kind == "explored":
        finetune = config.get("finetune")
        is_passing = finetune is not None and finetune["init"] != "explored"
        thrown = ", which the loop discarded" if is_passing else ""
        return f"the policy as RL left it in {turn}{thrown}"
    return f"the policy after {turn}"


def data_of(run: Run) -> list[Data]:
    """Return the tasks that were sampled up to the record's end, training first."""
    tasks = run.config.get("tasks", {})
    last = max((row["iteration"] for row in run.metrics), default=-1)
    stored = open_store(run.directory).query(
        "select phase, task, count(distinct problem_id) as problems, count(*) as completions, "
        "string_agg(distinct verifier_version, ', ' order by verifier_version) as verifier "
        f"from trajectories where iteration <= {last} group by all"
    )
    counts = {(row.pop("phase"), row.pop("task")): row for row in stored.to_pylist()}
    return [
        Data(
            use=use,
            task=task_name(task),
            source=task["source"],
            split=task.get("split"),
            seed=task.get("seed", 0),
            **counts[phase, task_name(task)],
        )
        for use, phase, group in (("RL", "explore", "train"), ("held out", "evaluate", "evaluate"))
        for task in tasks.get(group, [])
        if (phase, task_name(task)) in counts
    ]


def task_name(task: Row) -> str:
    """Return a task's name in metrics and store: its own, else its source's last part."""
    return str(task.get("name") or re.split(r"[:/]", task["source"])[-1].partition(".")[0])


def front_matter(
    config: Row,
    tables: list[TaskTable],
    policy: str,
    *,
    name: str,
    confidence: float,
    license_name: str | None,
) -> ModelCardData:
    """Return what the hub reads: what it is made of, and every value measured, as a fraction."""
    path, tasks = config.get("policy", {}).get("path", ""), config.get("tasks", {})
    learned = {"base": [], "coldstart": [(config.get("coldstart") or {}).get("task")]}
    trained_on = [
        hub_name(task["source"]) for task in learned.get(policy, tasks.get("train", [])) if task
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=path if is_hub_name(path) else None,
        license=license_name,
        datasets=[source for source in trained_on if source] or None,
        tags=TAGS,
        model_name=name,
        eval_results=eval_results(config, tables, policy, confidence) or None,
    )


def eval_results(
    config: Row, tables: list[TaskTable], policy: str, confidence: float
) -> list[EvalResult]:
    """Return what was measured of the policy, one result for each task and metric."""
    tasks = config.get("tasks", {})
    tasks = tasks.get("evaluate") or tasks.get("train", [])
    sources = {task_name(task): str(task["source"]) for task in tasks}
    rows = [(table.task, table.row(policy)) for table in tables]
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=hub_name(sources.get(task, "")) or sources.get(task, "custom"),
            dataset_name=task,
            metric_type=metric,
            metric_name=metric,
            metric_value=cell.value.value,
            metric_args={"confidence": confidence, "low": cell.value.low, "high": cell.value.high},
        )
        for task, row in rows
        for metric, cell in (row.cells if row else {}).items()
        if cell.value is not None
    ]


def card_license(card: Path) -> str | None:
    """Return the licence that a model's own card names; None where it names none."""
    try:
        found = ModelCard.load(card).data.get("license")
    except ValueError:  # front matter that is no YAML mapping
        return None
    return found if isinstance(found, str) else None


def is_hub_name(path: str) -> bool:
    """Whether a recipe's policy.path is the name of a model on the hub."""
    return bool(_HUB_NAME.fullmatch(path)) and not (Path(path).exists() or path.endswith(".gguf"))


def hub_name(source: str) -> str | None:
    """Return the hub's name of a task's source, None for one that is not there."""
    if source.startswith("hub:"):
        return source.removeprefix("hub:")
    return BENCHMARKS[source].hub if source in BENCHMARKS else None


def plain_text(text: object) -> str:
    """Return text that Markdown shows as it is, on one line."""
    line = " ".join(visible(str(text)).split())
    escaped = _SPECIAL.sub(lambda found: f"\\{found[0]}", line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fenced(text: str, language: str = "") -> str:
    """Return a block of code that the text cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def python_text(text: object) -> str:
    """Return text, or another value of a recipe, as a literal of Python."""
    if not isinstance(text, str):
        return repr(text)
    is_plain = text.replace("\n", "").isprintable()
    return json.dumps(text, ensure_ascii=False) if is_plain else repr(text)


def _ends_with(table: TaskTable, policy: str) -> bool:
    return table.outcome is not None and table.outcome.policy == policy


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("rloop.report", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= NUMBERS | {"text": plain_text, "fenced": fenced, "python": python_text}
    return environment.get_template("model_card.md.j2")
