"""The problems of a run: loaded, tested against their own references, and filtered by prompt
length."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from rloop.errors import TaskError
from rloop.policies.prompts import Section, check_context
from rloop.recipe.checks import check_best_by
from rloop.recipe.config import Recipe
from rloop.tasks.load import load_coldstart, load_task, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.rewards import check_rewards
from rloop.types import Problem, PromptReport, stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProblems:
    """Training, held-out and cold-start problems of a run, with the counts of what was left out."""

    train: tuple[Problem, ...]
    evaluate: Mapping[str, tuple[Problem, ...]]
    coldstart: tuple[Problem, ...]
    notes: tuple[str, ...]
    first_prompt: str = ""
    """The prompt of the first problem; empty until the prompt lengths are known."""
    warnings: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return a hash of all problems, by which a resumed run can tell that they are the same."""
        held_out = chain.from_iterable(self.evaluate.values())
        parts = [
            f"{p.problem_id}\x1e{p.question}\x1e{p.answer}"
            for p in chain(self.train, held_out, self.coldstart)
        ]
        return f"{stable_hash(*parts):016x}"

    def fitting(
        self, fit: Callable[[Sequence[Problem]], PromptReport], recipe: Recipe
    ) -> "RunProblems":
        """Return the problems whose prompts fit; the others are counted in the notes.

        Raises TaskError if none fits, and ConfigError if the longest prompt and a completion exceed
        the policy's context.
        """
        notes = list(self.notes)
        reports: list[PromptReport] = []

        def part(
            name: str, problems: Sequence[Problem], section: Section | None
        ) -> tuple[Problem, ...]:
            if not problems:
                return ()
            report = fit(problems)
            reports.append(report)
            if report.too_long:
                notes.append(_too_long(name, report))
            if report.longest is None:
                raise _none_left(name, report)
            if section and report.context:
                problem, length = report.longest
                check_context(recipe, section, problem.problem_id, length, report.context)
            return report.kept

        train = part("tasks.train", self.train, "explore")
        evaluate = {
            name: part(f"tasks.evaluate ({name})", problems, "evaluate")
            for name, problems in self.evaluate.items()
        }
        coldstart = part("coldstart.task", self.coldstart, None)
        return replace(
            self,
            train=train,
            evaluate=evaluate,
            coldstart=coldstart,
            notes=tuple(notes),
            first_prompt=next((report.first for report in reports), ""),
            warnings=tuple(dict.fromkeys(w for report in reports for w in report.warnings)),
        )


def _too_long(name: str, report: PromptReport) -> str:
    problem, length = report.too_long[0]
    total = len(report.too_long) + len(report.kept)
    return (
        f"{len(report.too_long)} of {total} problems of {name} left out: their prompts are longer "
        f"than prompt.max_tokens, such as {problem.problem_id} with {length} tokens"
    )


def _none_left(name: str, report: PromptReport) -> TaskError:
    shortest = min(length for _, length in report.too_long)
    return TaskError(
        f"No problem of {name} is left: all {len(report.too_long)} prompts are longer than "
        f"prompt.max_tokens, the shortest has {shortest} tokens. Raise it: --set "
        f"prompt.max_tokens={shortest}."
    )


def load_problems(recipe: Recipe, pool: VerifierPool) -> RunProblems:
    """Load every task of the recipe and judge the reference answers."""
    tasks = load_tasks(recipe.tasks)
    check_best_by(recipe, tasks.evaluate)
    notes = tasks.summary()
    held_out = [problem for problems in tasks.evaluate.values() for problem in problems]
    coldstart: tuple[Problem, ...] = ()
    if recipe.coldstart is not None:
        loaded = load_coldstart(recipe.coldstart, held_out, data_dir=recipe.tasks.data_dir)
        coldstart = loaded.problems
        notes.append(loaded.summary())
    everything = [*tasks.train, *held_out, *coldstart]
    report = check_references(everything, pool, policy=recipe.tasks.bad_references)
    notes.append(report.summary())
    kept = {problem.problem_id for problem in report.kept}
    train = tuple(p for p in tasks.train if p.problem_id in kept)
    check_rewards(recipe.rewards, train, pool)
    return RunProblems(
        train=train,
        evaluate={
            name: tuple(p for p in problems if p.problem_id in kept)
            for name, problems in tasks.evaluate.items()
        },
        coldstart=tuple(p for p in coldstart if p.problem_id in kept),
        notes=tuple(notes),
    )


def load_held_out(recipe: Recipe, pool: VerifierPool) -> RunProblems:
    """Load only the held-out tasks, and of these the problems whose own references are judged
    correct.

    If the recipe names none, these are the problems of the training tasks that its run holds out.
    """
    found: dict[str, tuple[Problem, ...]] = {}
    notes: list[str] = []
    if not recipe.tasks.evaluate:
        tasks = load_tasks(recipe.tasks)
        notes = tasks.summary()
        for name, problems in tasks.evaluate.items():
            report = check_references(problems, pool, policy=recipe.tasks.bad_references)
            found[name] = report.kept
    for index, config in enumerate(recipe.tasks.evaluate):
        key = f"tasks.evaluate.{index}"
        task = load_task(config, data_dir=recipe.tasks.data_dir, key=key, held_out=True)
        report = check_references(task.problems, pool, policy=recipe.tasks.bad_references)
        found[task.name] = report.kept
        notes += [task.summary(), report.summary()]
    return RunProblems(train=(), evaluate=found, coldstart=(), notes=tuple(notes))
