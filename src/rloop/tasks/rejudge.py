"""Stored trajectories judged again: rows become problems, problems go to a verifier.

A problem's task is loaded again for what rows do not have (a reasoning-gym entry, metadata); its
reference is the row's, the one that the run had. Knows nothing of files of the store.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rloop.errors import TaskError
from rloop.recipe.config import TasksConfig
from rloop.tasks.load import load_task
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.verifiers.answers import text_to_judge
from rloop.tasks.verifiers.python import PREFIX
from rloop.tasks.verifiers.registry import OF_SOURCES
from rloop.types import Problem, Verdict

COLUMNS = (
    *("problem_id", "task", "question", "prompt_text", "completion_text", "reference"),
    "verifier_version",
)
"""What `verdicts` needs of a row."""


class Rejudge:
    """The problems of a recipe's tasks, and a verifier for them: their own, or another one."""

    def __init__(self, tasks: TasksConfig, verifier: str | None, pool: VerifierPool) -> None:
        """Load the tasks and judge their references; one that is out of reach becomes a note.

        TaskError when the verifier judges no reference correct.
        """
        self._verifier = verifier
        self._pool = pool
        self._problems: dict[str, Problem] = {}
        self._out_of_reach: list[str] = []
        self._reworded: set[str] = set()
        self._unknown: set[str] = set()
        for key, configs in (("train", tasks.train), ("evaluate", tasks.evaluate)):
            for index, config in enumerate(configs):
                place = f"tasks.{key}.{index}"
                try:
                    loaded = load_task(
                        config, data_dir=tasks.data_dir, key=place, held_out=key == "evaluate"
                    )
                except TaskError as error:
                    self._out_of_reach.append(str(error))
                    continue
                for problem in loaded.problems:
                    name = verifier or problem.verifier
                    self._problems[problem.problem_id] = replace(problem, verifier=name)
        for problem in self._problems.values():
            _check_entry(problem)
        self._references = check_references(list(self._problems.values()), pool, policy="drop")

    def verdicts(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Return the verdict of every row, in order; each has `COLUMNS`.

        TaskError when a problem cannot be judged by what is known of it.
        """
        pairs = [
            (
                self._problem(row),
                text_to_judge(str(row["prompt_text"]), str(row["completion_text"])),
            )
            for row in rows
        ]
        return self._pool.verify(pairs)

    def notes(self) -> Iterator[str]:
        """Yield what is to be known of the problems that were judged."""
        report = self._references
        if self._problems:
            yield f"{len(report.kept)} of {len(self._problems)} references are judged correct."
        for problem, verdict in report.bad[:3]:
            yield f"Not {problem.problem_id}: {problem.answer!r:.60} is {verdict.kind}."
        yield from self._out_of_reach
        if self._unknown:
            yield (
                f"{len(self._unknown)} problems are no longer in the recipe's tasks, such as "
                f"{min(self._unknown)}: judged by what the store has of them."
            )
        if self._reworded:
            yield (
                f"{len(self._reworded)} problems now have a different reference in their "
                f"task, such as {min(self._reworded)}: judged by the one that the run had."
            )

    def _problem(self, row: Mapping[str, Any]) -> Problem:
        """Return a row's problem, with the reference that the run had."""
        found = self._problems.get(str(row["problem_id"])) or self._from_store(row)
        is_same = found.answer == row["reference"]
        _check_entry(found, is_same=is_same)
        if is_same:
            return found
        self._reworded.add(found.problem_id)
        return replace(found, answer=str(row["reference"]))

    def _from_store(self, row: Mapping[str, Any]) -> Problem:
        self._unknown.add(str(row["problem_id"]))
        version = str(row["verifier_version"])
        name = version if version.startswith(PREFIX) else version.partition("/")[0]
        return Problem(
            problem_id=str(row["problem_id"]),
            task=str(row["task"]),
            question=str(row["question"] or row["prompt_text"]),
            answer=str(row["reference"]),
            verifier=self._verifier or name,
        )


def _check_entry(problem: Problem, *, is_same: bool = True) -> None:
    """Raise TaskError for a problem of a generator or an environment that is another one now."""
    if problem.verifier in OF_SOURCES and not ("dataset" in problem.metadata and is_same):
        raise TaskError(
            f"{problem.problem_id} cannot be judged by {problem.verifier}: its task does not give "
            "the problem that the run had, which the verifier needs. Install the packages of the "
            "run's environment.json, or choose another --verifier."
        )
