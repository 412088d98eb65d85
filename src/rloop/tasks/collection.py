"""All tasks of a recipe: what is trained on, what is held out, and what was left out and why."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import ColdstartConfig, TaskConfig, TasksConfig
from rloop.tasks.duplicates import answer_conflicts, conflict_warning, drop_duplicates, overlap
from rloop.tasks.references import check_solutions
from rloop.tasks.sources import LoadedTask, load_task
from rloop.types import Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """The problems of a run.

    Example: Tasks(train=(...), evaluate={"gsm8k": (...)}, loaded=(...), held_out_pairs=(),
    num_train_duplicates=0)
    """

    train: tuple[Problem, ...]
    """Problems to explore, in the recipe's order of tasks; none of them is held out."""
    evaluate: Mapping[str, tuple[Problem, ...]]
    """Held-out problems by task name."""
    loaded: tuple[LoadedTask, ...]
    """Each task as read, training first."""
    held_out_pairs: tuple[tuple[Problem, Problem], ...]
    """Training problems left out because they are held out, with the held-out problem."""
    num_train_duplicates: int
    """Training problems left out because an earlier training task has them."""

    def summary(self) -> list[str]:
        """Return lines of counts for `rloop check`."""
        lines = [task.summary() for task in self.loaded]
        if self.num_train_duplicates:
            lines.append(
                f"{self.num_train_duplicates} problems of training tasks stand in an earlier one: "
                "removed"
            )
        for names, count in sorted(
            Counter((a.task, b.task) for a, b in self.held_out_pairs).items()
        ):
            lines.append(
                f"{count} problems stand in {names[0]} and are held out in {names[1]}: "
                "left out of training"
            )
        held_out = sum(len(problems) for problems in self.evaluate.values())
        lines.append(f"in all {len(self.train)} problems to train on, {held_out} held out")
        return lines


def load_tasks(config: TasksConfig) -> Tasks:
    """Load every task, remove duplicates from training, and leave held-out problems out of it."""
    train = _load(config.train, config, "train")
    evaluate = _load(config.evaluate, config, "evaluate")
    everything = [problem for task in train for problem in task.problems]
    held_out = [problem for task in evaluate for problem in task.problems]
    _check_ids([*everything, *held_out])
    distinct = drop_duplicates(everything, set())
    pairs = overlap(distinct, held_out)
    left_out = {problem.problem_id for problem, _ in pairs}
    kept = tuple(problem for problem in distinct if problem.problem_id not in left_out)
    _warn_of_conflicts(train, evaluate, {problem.problem_id for problem in (*kept, *held_out)})
    if not kept:
        raise TaskError(
            f"tasks.train has no problems left: all {len(distinct)} are held out in "
            "tasks.evaluate. Choose other problems for one of them (source, split, seed)."
        )
    return Tasks(
        train=kept,
        evaluate={task.name: task.problems for task in evaluate},
        loaded=(*train, *evaluate),
        held_out_pairs=tuple(pairs),
        num_train_duplicates=len(everything) - len(distinct),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Coldstart:
    """The problems of a cold start: those of its task that are not held out.

    Example: Coldstart(task=LoadedTask(name="gsm8k", ...), problems=(...))
    """

    task: LoadedTask
    problems: tuple[Problem, ...]

    def summary(self) -> str:
        """Return one line of counts."""
        num_held_out = len(self.task.problems) - len(self.problems)
        also = f", {num_held_out} of them held out: left out" if num_held_out else ""
        return f"cold start: {self.task.summary()}{also}"


def load_coldstart(
    config: ColdstartConfig, held_out: Sequence[Problem], *, data_dir: str | None = None
) -> Coldstart:
    """Load the problems of a cold start and leave the held-out ones out; all must have solutions.

    An error says in a sentence what is wrong.
    """
    task = load_task(config.task, data_dir=data_dir, key="coldstart.task")
    check_solutions(task.problems, config.solution_template)
    left_out = {problem.problem_id for problem, _ in overlap(task.problems, held_out)}
    kept = tuple(p for p in task.problems if p.problem_id not in left_out)
    if not kept:
        raise TaskError(
            f"coldstart.task has no problems left: all {len(task.problems)} are held out in "
            "tasks.evaluate. Choose other problems for it (source, split, seed)."
        )
    return Coldstart(task=task, problems=kept)


def _load(configs: Sequence[TaskConfig], config: TasksConfig, key: str) -> list[LoadedTask]:
    """Load the tasks of one list, whose names must differ (metrics go by them)."""
    loaded = [
        load_task(
            task,
            data_dir=config.data_dir,
            key=f"tasks.{key}.{index}",
            held_out=key == "evaluate",
        )
        for index, task in enumerate(configs)
    ]
    for name, count in Counter(task.name for task in loaded).items():
        if count > 1:
            raise ConfigError(
                f"tasks.{key}: {count} tasks are called {name!r}. Give each a name of its own, "
                f"such as name: {name}-2."
            )
    return loaded


def _warn_of_conflicts(
    train: Sequence[LoadedTask], evaluate: Sequence[LoadedTask], kept: set[str]
) -> None:
    """Warn of questions that two tasks answer differently; each task has warned of its own."""
    tasks = [*evaluate, *train]
    owners = {id(problem): index for index, task in enumerate(tasks) for problem in task.problems}
    conflicts = [
        (first, second)
        for first, second in answer_conflicts(p for task in tasks for p in task.problems)
        if owners[id(first)] != owners[id(second)]
    ]
    if conflicts:
        _log.warning("tasks: %s", conflict_warning(conflicts, kept))


def _check_ids(problems: Sequence[Problem]) -> None:
    """Raise a ConfigError when an id stands for two different problems."""
    questions: dict[str, str] = {}
    for problem in problems:
        if questions.setdefault(problem.problem_id, problem.question) != problem.question:
            raise ConfigError(
                f"tasks.train and tasks.evaluate hold different problems under the id "
                f"{problem.problem_id!r}. Give one of the tasks another name or seed."
            )
