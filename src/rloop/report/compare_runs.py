"""The runs that are compared: what each measured on its way, under which method, and its budget.

A folder of `rloop eval` counts as a run with one policy; where that policy lies in a run, method
and seed are that run's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rloop.config import Recipe
from rloop.errors import StoreError
from rloop.evaluation.checkpoints import Checkpoint, read_checkpoints
from rloop.methods import method_title
from rloop.recipe import recipe_of_policy
from rloop.report.budget import phase_seconds
from rloop.report.held_out import HeldOut, held_out_tasks
from rloop.report.method import is_finished
from rloop.report.run_record import FILES, Row, RunRecord, read_run
from rloop.store.trajectories import TrajectoryStore
from rloop.text import visible


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One held-out task of one run, at the policies that the method would hand over.

    Example: TaskRun(path=(base, iter_1, iter_2), has_reference=True)
    """

    path: tuple[Checkpoint, ...]
    """The reference policy first, then the policies kept; for plain RL each measured one."""
    has_reference: bool

    @property
    def final(self) -> Checkpoint:
        """The policy that the run ends with."""
        return self.path[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run used; None where it was not recorded.

    Example: Budget(rl_tokens=102_400, rl_completions=1_152, all_tokens=140_000,
    trained_tokens=81_000, seconds={"explore": 412.0, "evaluate": 40.0})
    """

    rl_tokens: int | None
    """Sampled in explorations."""
    rl_completions: int | None
    all_tokens: int | None
    """Sampled in explorations and evaluations."""
    trained_tokens: int | None
    """In losses, of RL and of fine-tuning."""
    seconds: Mapping[str, float]
    """By phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run, read.

    Example: ComparedRun(name="rl-seed-0", record=..., method="Plain RL", policy="", recipe={...},
    seed=0, tasks={"sums": TaskRun(...)}, versions={"template_version": {"1a2b"}},
    budget=Budget(...))
    """

    name: str
    """Of its directory, safe to print."""
    record: RunRecord
    method: str
    """The title of its method; empty for a policy that no run here trained."""
    policy: str
    """Which one was measured, in a folder of `rloop eval`; else empty: the last."""
    recipe: Mapping[str, Any]
    """Resolved, of what trained the policy; runs with the same one differ in the seed."""
    seed: int
    tasks: Mapping[str, TaskRun]
    versions: Mapping[str, frozenset[str]]
    """Of prompt templates and verifiers, as the store has them."""
    budget: Budget

    @property
    def title(self) -> str:
        """Return what to call what was measured: the method, the policy, or both."""
        return ", ".join(part for part in (self.method, self.policy) if part)

    @property
    def directory(self) -> Path:
        """Where it lies; two runs may have the same name."""
        return self.record.directory


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories named, each once; a folder stands for the runs in it."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if is_run(path) else sorted(p for p in _children(path) if is_run(p))
        if not inside:
            raise StoreError(
                f"{path} is no run directory and has none in it. Name folders that `rloop run`, "
                "`rloop eval` or `rloop sweep` wrote."
            )
        for run in inside:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def is_run(path: Path) -> bool:
    """Whether a folder holds a run or an evaluation."""
    return any((path / name).is_file() for name in FILES)


def read_compared(path: Path) -> tuple[ComparedRun | None, str]:
    """Return a run that can be compared, or None and why it is left out."""
    record = read_run(path)
    if not record.config.get("explore"):
        return None, f"{visible(path.name)} has no config.json that says what it is"
    is_whole = record.rows("evaluate") if record.is_evaluation else is_finished(record)
    if not is_whole:
        return None, f"{visible(path.name)} is not complete"
    store = TrajectoryStore(path)
    tasks = {
        held.task: _task_run(held, record)
        for held in held_out_tasks(record, read_checkpoints(store))
    }
    if not tasks:
        return None, f"{visible(path.name)} has no evaluation in its store"
    origin, method, policy = _origin(record)
    recipe = _in_full(origin)
    return ComparedRun(
        name=visible(path.resolve().name),
        record=record,
        method=method,
        policy=visible(policy),
        recipe={key: value for key, value in recipe.items() if key not in ("name", "seed")},
        seed=int(recipe.get("seed", 0)),
        tasks=tasks,
        versions=_versions(store),
        budget=run_budget(record),
    ), ""


def run_budget(record: RunRecord) -> Budget:
    """Return what the run sampled, learned from and how long it took."""
    explored = record.rows("explore")
    evaluated = record.rows("evaluate")
    rl_tokens = _sum(explored, "explore/sampled_tokens_count")
    measured = sum(
        _sum(evaluated, key) or 0
        for key in {key for row in evaluated for key in row if key.endswith("sampled_tokens_count")}
    )
    trained = [
        _sum(record.rows(phase), f"{phase}/loss_tokens_count")
        for phase in ("coldstart", "explore", "finetune")
    ]
    known = [tokens for tokens in trained if tokens is not None]
    return Budget(
        rl_tokens=rl_tokens,
        rl_completions=_sum(explored, "explore/trajectories_count"),
        all_tokens=(rl_tokens or 0) + measured if rl_tokens or measured else None,
        trained_tokens=sum(known) if known else None,
        seconds=phase_seconds(record.events),
    )


def _children(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []


def _task_run(held: HeldOut, record: RunRecord) -> TaskRun:
    """Return the path of a task; plain RL could have ended at each of its measured steps."""
    if record.is_plain_rl and held.has_reference:
        inside = [checkpoint for checkpoint in held.checkpoints if not checkpoint.is_kept]
        return TaskRun(path=(held.reference, *inside), has_reference=True)
    return TaskRun(path=held.line, has_reference=held.has_reference and len(held.line) > 1)


def _origin(record: RunRecord) -> tuple[Mapping[str, Any], str, str]:
    """Return the recipe that trained the policy, its method, and the policy of an evaluation."""
    config = record.config
    if not record.is_evaluation:
        return config, method_title(config), ""
    path = str(record.manifest["phases"].get("0/prepare", config["policy"])["path"])
    trained_by = recipe_of_policy(path)
    origin = config if trained_by is None else read_run(trained_by.parent).config
    temperature = _temperature(config)
    usual = 1.0 if trained_by is None else _temperature(origin)
    # A policy at another temperature is another thing to compare, not another seed.
    policy = Path(path).name + (f" at temperature {temperature:g}" if temperature != usual else "")
    return origin, "" if trained_by is None else method_title(origin), policy


def _temperature(config: Mapping[str, Any]) -> float:
    sampling = config.get("evaluate", {}).get("sampling") or {}
    return float(sampling.get("temperature", 1.0))


def _in_full(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recipe with the defaults of keys that came after it, so that it equals today's."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _versions(store: TrajectoryStore) -> dict[str, frozenset[str]]:
    names = ("template_version", "verifier_version")
    found = store.query(
        f"select distinct {', '.join(names)} from trajectories where phase = 'evaluate'"
    ).to_pylist()
    return {name: frozenset(str(row[name]) for row in found) for name in names}


def _sum(rows: Sequence[Row], key: str) -> int | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return int(sum(values)) if values else None
