"""The problems of a run: loaded, judged against their own references, and parted by what fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from rloop.config import Recipe
from rloop.engines.base import PromptReport
from rloop.errors import TaskError
from rloop.tasks.collection import load_coldstart, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.sources import load_task
from rloop.types import Problem, stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProblems:
    """What a run explores, is measured on, and cold-starts from, with the counts on the way."""

    train: tuple[Problem, ...]
    evaluate: Mapping[str, tuple[Problem, ...]]
    coldstart: tuple[Problem, ...]
    notes: tuple[str, ...]

    def digest(self) -> str:
        """Return a hash of every problem, so that a resumed run can tell that they are the same."""
        held_out = chain.from_iterable(self.evaluate.values())
        parts = [
            f"{p.problem_id}\x1e{p.question}\x1e{p.answer}"
            for p in chain(self.train, held_out, self.coldstart)
        ]
        return f"{stable_hash(*parts):016x}"

    def fitting(self, fit: Callable[[Sequence[Problem]], PromptReport]) -> "RunProblems":
        """Return the problems whose prompts fit; the others are counted in the notes."""
        notes = list(self.notes)

        def part(name: str, problems: Sequence[Problem]) -> tuple[Problem, ...]:
            report = fit(problems)
            if report.too_long:
                problem, length = report.too_long[0]
                notes.append(
                    f"{len(report.too_long)} of {len(problems)} problems of {name} left out: their "
                    f"prompts are longer than prompt.max_tokens, such as {problem.problem_id} with "
                    f"{length} tokens"
                )
            if problems and not report.kept:
                shortest = min(length for _, length in report.too_long)
                raise TaskError(
                    f"No problem of {name} is left: all {len(problems)} prompts are longer than "
                    f"prompt.max_tokens, the shortest has {shortest} tokens. Raise it: --set "
                    f"prompt.max_tokens={shortest}."
                )
            return report.kept

        return RunProblems(
            train=part("tasks.train", self.train),
            evaluate={
                name: part(f"tasks.evaluate ({name})", problems)
                for name, problems in self.evaluate.items()
            },
            coldstart=part("coldstart.task", self.coldstart),
            notes=tuple(notes),
        )


def load_problems(recipe: Recipe, pool: VerifierPool) -> RunProblems:
    """Load every task of the recipe and judge the reference answers."""
    tasks = load_tasks(recipe.tasks)
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
    return RunProblems(
        train=tuple(p for p in tasks.train if p.problem_id in kept),
        evaluate={
            name: tuple(p for p in problems if p.problem_id in kept)
            for name, problems in tasks.evaluate.items()
        },
        coldstart=tuple(p for p in coldstart if p.problem_id in kept),
        notes=tuple(notes),
    )


def load_held_out(recipe: Recipe, pool: VerifierPool) -> RunProblems:
    """Load the held-out tasks alone, those problems whose own references are judged correct."""
    found, notes = {}, []
    for index, config in enumerate(recipe.tasks.evaluate):
        key = f"tasks.evaluate.{index}"
        task = load_task(config, data_dir=recipe.tasks.data_dir, key=key, held_out=True)
        report = check_references(task.problems, pool, policy=recipe.tasks.bad_references)
        found[task.name] = report.kept
        notes += [task.summary(), report.summary()]
    return RunProblems(train=(), evaluate=found, coldstart=(), notes=tuple(notes))
