"""The tasks of a recipe: what is trained on, what is held out, and what was left out and why."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import ColdstartConfig, TaskConfig, TasksConfig
from rloop.tasks.benchmarks import check_folder, check_source
from rloop.tasks.duplicates import (
    answer_conflicts,
    conflict_warning,
    conflicts_between,
    drop_duplicates,
    overlap,
)
from rloop.tasks.gym import MIN_DRAWS, generate_rows
from rloop.tasks.readers import Row
from rloop.tasks.references import check_solutions
from rloop.tasks.rows import (
    Columns,
    check_filters,
    find_columns,
    fits,
    row_keys,
    to_problem,
    with_verifier,
)
from rloop.tasks.sources import Source, read_source
from rloop.tasks.split import choose, hold_out
from rloop.tasks.verifiers.registry import OF_SOURCES, check_verifier_name
from rloop.types import Problem

_GENERATED = Columns(problem="problem", answer="answer", id="id")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTask:
    """The problems of one task and what became of the others.

    Example: LoadedTask(name="gsm8k", split="train", problems=(...), num_read=7473,
    num_filtered=0, num_duplicates=0, num_wanted=None)
    """

    name: str
    split: str
    problems: tuple[Problem, ...]
    num_read: int
    """Rows in the source, or generated until there were enough."""
    num_filtered: int
    """Left out by `filters`."""
    num_duplicates: int
    """Left out because the same problem came before."""
    num_wanted: int | None
    """The recipe's `size`."""
    num_unclear: int = 0
    """Left out because the benchmark gives no answer, or several."""
    num_replaced_ids: int = 0
    """Rows whose id was missing, or another row's; the row's number stands in."""
    columns: str = ""
    """Which columns hold problem and answer, where they have not rloop's own names."""

    def summary(self) -> str:
        """Return one line for `rloop check`."""
        parts = [f"{self.num_read} read"]
        parts += [self.columns] if self.columns else []
        parts += [f"{self.num_unclear} without one clear answer left out"] * bool(self.num_unclear)
        parts += [f"{self.num_filtered} left out by filters"] if self.num_filtered else []
        parts += [f"{self.num_duplicates} duplicates removed"] if self.num_duplicates else []
        parts += [
            f"{self.num_replaced_ids} ids missing or repeated, replaced by the row's number"
        ] * bool(self.num_replaced_ids)
        parts += [f"{len(self.problems)} taken"]
        if self.num_wanted is not None and len(self.problems) < self.num_wanted:
            parts[-1] += f" of the {self.num_wanted} asked for"
        return f"{self.name}/{self.split}: {', '.join(parts)}"


def load_task(
    config: TaskConfig, *, data_dir: str | None = None, key: str = "", held_out: bool = False
) -> LoadedTask:
    """Read or generate the problems of one task; an error says in a sentence what is wrong.

    It is a ConfigError where the recipe can never be right, a TaskError where files or the hub do
    not give what it asks for; `key` (`tasks.train.0`) stands in front. `held_out` makes `test` the
    default split of benchmarks that have one. Relative paths are taken from the current directory;
    `data_dir`, else the variable RLOOP_DATA, holds benchmark files. Filters come first, then
    duplicates go, then `size` problems are chosen by `seed`: a smaller size takes a subset of what
    a larger one takes.
    """
    try:
        loaded = _load_task(config, data_dir, held_out=held_out)
    except (ConfigError, TaskError) as error:
        if not key:
            raise
        raise type(error)(f"{key}: {error}") from error
    limit_s = config.verifier_timeout_s
    problems = tuple(replace(p, verifier_timeout_s=limit_s) for p in loaded.problems)
    return replace(loaded, problems=problems)


def _load_task(config: TaskConfig, data_dir: str | None, *, held_out: bool) -> LoadedTask:
    kind, _, place = config.source.partition(":")
    if config.verifier is not None:
        check_verifier_name(config.verifier)
    if data_dir is not None:
        check_folder(data_dir, "tasks.data_dir")
    check_source(config.source)
    if kind == "reasoning_gym":
        return _generate(place, config)
    for name, own in OF_SOURCES.items():
        if config.verifier == name and kind != own:
            raise ConfigError(
                f"verifier {name} judges problems of {own}:NAME only, not those of {config.source}"
            )
    source = read_source(config, data_dir, held_out=held_out)
    rows = [row for row in source.rows if row is not None]
    if not rows:
        without = " with one clear answer" if source.rows else ""
        raise TaskError(f"{config.source} has no problems: there are no rows{without} in it")
    columns = find_columns(rows, source.fields, config.source)
    keys, num_replaced = row_keys(source.rows, columns)
    check_filters(rows, config.filters, config.source)
    problems = [
        _problem(row, columns, index=index, key=keys[index], source=source, config=config)
        for index, row in enumerate(source.rows)
        if row is not None and fits(row, config.filters)
    ]
    if not problems:
        raise TaskError(
            f"{config.source} has no problems left: none of its {len(rows)} rows matches "
            f"filters {config.filters}"
        )
    if not (config.verifier or source.verifier):
        problems = with_verifier(problems)
    distinct = drop_duplicates(problems, set())
    _warn(config.source, problems, distinct)
    return LoadedTask(
        name=config.name or source.name,
        split=source.split,
        problems=tuple(choose(distinct, config.size, config.seed)),
        num_read=len(source.rows),
        num_filtered=len(rows) - len(problems),
        num_duplicates=len(problems) - len(distinct),
        num_wanted=config.size,
        num_unclear=len(source.rows) - len(rows),
        num_replaced_ids=num_replaced,
        columns=columns.summary(),
    )


def _warn(source: str, problems: Sequence[Problem], distinct: Sequence[Problem]) -> None:
    """Warn of equal questions with different answers, and of messages that no prompt will have."""
    if conflicts := answer_conflicts(problems):
        kept = {problem.problem_id for problem in distinct}
        _log.warning("%s: %s", source, conflict_warning(conflicts, kept))
    for name, remedy in (
        ("system_message", "put it into prompt.system if the policy is to see it"),
        ("other_messages", "write one question without them if it needs them"),
    ):
        found = [problem for problem in problems if name in problem.metadata]
        if found:
            _log.warning(
                "%s: %d of %d prompts hold more messages than the user's last, kept as metadata "
                "`%s` and not part of the question, such as %s with %.80r; %s.",
                source,
                len(found),
                len(problems),
                name,
                found[0].problem_id,
                found[0].metadata[name],
                remedy,
            )


def _generate(dataset: str, config: TaskConfig) -> LoadedTask:
    """Generate until there are `size` distinct problems, or many draws give nothing new."""
    split = config.split or "train"
    source = Source(name=dataset, split=split, rows=[], fields={}, verifier="reasoning_gym")
    size = config.size or 0
    patience = max(MIN_DRAWS, size)
    problems: list[Problem] = []
    seen: set[str | tuple[str, str]] = set()
    num_read = num_filtered = num_idle = 0
    for index, row in enumerate(generate_rows(dataset, config, split)):
        num_read += 1
        filterable = {**row["entry"], **row}
        check_filters([filterable], config.filters, config.source)
        new: list[Problem] = []
        if fits(filterable, config.filters):
            problem = _problem(
                row, _GENERATED, index=index, key=row["id"], source=source, config=config
            )
            new = drop_duplicates([problem], seen)
        else:
            num_filtered += 1
        problems += new
        num_idle = 0 if new else num_idle + 1
        if len(problems) == size or num_idle == patience:
            break
    if not problems:
        raise TaskError(f"no problem of {num_read} from {config.source} passes filters: relax them")
    return LoadedTask(
        name=config.name or dataset,
        split=split,
        problems=tuple(problems),
        num_read=num_read,
        num_filtered=num_filtered,
        num_duplicates=num_read - num_filtered - len(problems),
        num_wanted=config.size,
    )


def _problem(
    row: Row, columns: Columns, *, index: int, key: str, source: Source, config: TaskConfig
) -> Problem:
    place = f"{config.name or source.name}/{source.split}"
    verifier = config.verifier or source.verifier
    return to_problem(row, columns, index=index, key=key, place=place, verifier=verifier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """The problems of a run.

    Example: Tasks(train=(...), evaluate={"gsm8k": (...)}, loaded=(...), ...)
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
                f"removed because an earlier training task has them: {self.num_train_duplicates}"
            )
        for names, count in sorted(
            Counter((a.task, b.task) for a, b in self.held_out_pairs).items()
        ):
            is_split = names[0] == names[1]
            why = (
                "held out"
                if is_split
                else f"left out of training because {names[1]} holds them out"
            )
            lines.append(f"{why}: {count} of {names[0]}")
        held_out = sum(len(problems) for problems in self.evaluate.values())
        lines.append(f"in all {len(self.train)} problems to train on, {held_out} held out")
        return lines


def load_tasks(config: TasksConfig) -> Tasks:
    """Load every task; training loses duplicates and what is held out, a part of it if need be."""
    train = _load(config.train, config, "train")
    evaluate = _load(config.evaluate, config, "evaluate")
    everything = [problem for task in train for problem in task.problems]
    distinct = drop_duplicates(everything, set())
    measured = {t.name: t.problems for t in evaluate} or hold_out(distinct, config.train[0].seed)
    held_out = [problem for problems in measured.values() for problem in problems]
    _check_ids([*everything, *held_out])
    pairs = overlap(distinct, held_out)
    left_out = {problem.problem_id for problem, _ in pairs}
    kept = tuple(problem for problem in distinct if problem.problem_id not in left_out)
    if conflicts := conflicts_between([task.problems for task in (*evaluate, *train)]):
        stay = {problem.problem_id for problem in (*kept, *held_out)}
        _log.warning("tasks: %s", conflict_warning(conflicts, stay))
    if not kept:
        raise TaskError(
            f"tasks.train has no problems left: all {len(distinct)} are held out in "
            "tasks.evaluate. Choose other problems for one of them (source, split, seed)."
        )
    return Tasks(
        train=kept,
        evaluate=measured,
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
    """Load a cold start's problems, the held-out ones left out; all must have solutions."""
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
                f"tasks.{key}: {count} tasks are called {name!r}. Give each its own name, "
                f"such as name: {name}-2."
            )
    return loaded


def _check_ids(problems: Sequence[Problem]) -> None:
    """Raise a ConfigError when an id stands for two different problems."""
    questions: dict[str, str] = {}
    for problem in problems:
        if questions.setdefault(problem.problem_id, problem.question) != problem.question:
            raise ConfigError(
                f"tasks.train and tasks.evaluate hold different problems under the id "
                f"{problem.problem_id!r}. Give one of the tasks another name or seed."
            )
