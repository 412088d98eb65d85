"""Held-out problems by checkpoint: the policies that a page compares, and what was lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rloop.errors import StoreError
from rloop.evaluation.checkpoints import Checkpoint, read_checkpoints
from rloop.run_directory import Row, Run
from rloop.store.trajectories import TrajectoryStore
from rloop.text import visible

MAX_LOST = 8
MAX_PROMPT = 160
"""Characters of a prompt in the list of forgotten problems, its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One held-out task of a run, measured at its checkpoints.

    Example: HeldOut(task="sums", checkpoints=(base, explored, iter_1), line=(base, iter_1),
    has_reference=True)
    """

    task: str
    checkpoints: tuple[Checkpoint, ...]
    """In the order of training, up to the last policy kept."""
    line: tuple[Checkpoint, ...]
    """The reference policy first, then the policies that the run goes on with."""
    has_reference: bool
    """Whether the line begins with the policy that the others are compared with."""

    @property
    def reference(self) -> Checkpoint:
        """Where the loop began; the only policy of an evaluation by itself."""
        return self.line[0]

    @property
    def outcome(self) -> Checkpoint | None:
        """The last policy kept; None until there is one after the reference."""
        return self.line[-1] if self.has_reference and len(self.line) > 1 else None


def held_out_tasks(run: Run, checkpoints: Iterable[Checkpoint]) -> list[HeldOut]:
    """Return each task with the checkpoints that the page compares, in the order of the log."""
    by_task: dict[str, list[Checkpoint]] = {task: [] for task in run.tasks}
    for checkpoint in checkpoints:
        by_task.setdefault(checkpoint.task, []).append(checkpoint)
    return [_held_out(run, task, found) for task, found in by_task.items() if found]


def read_held_out(run: Run) -> list[HeldOut]:
    """Return the same from the run's store."""
    return held_out_tasks(run, read_checkpoints(TrajectoryStore(run.directory)))


def lost_problems(held: HeldOut, store: TrajectoryStore) -> list[Row]:
    """Return the problems that the reference solved most often and the outcome never does.

    Keys: problem_id, prompt, and in counts the correct of n samples of each policy of the line.
    """
    outcome = held.outcome
    if outcome is None:
        return []
    known = held.reference.counts
    lost = [name for name, number in outcome.counts.items() if not number and known.get(name)]
    lost = sorted(lost, key=lambda name: (-known[name], name))[:MAX_LOST]
    if not lost:
        return []
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in lost)
    found = store.query(
        "select problem_id, any_value(coalesce(question, prompt_text)) as prompt from trajectories "
        f"where phase = 'evaluate' and iteration = {outcome.iteration} and problem_id in ({quoted})"
        " group by problem_id"
    )
    prompts = {row["problem_id"]: row["prompt"].strip() for row in found.to_pylist()}
    return [
        {
            "problem_id": visible(name),
            "prompt": visible(_end(prompts.get(name, ""))),
            "counts": [f"{c.counts.get(name, 0)}/{c.num_samples}" for c in held.line],
        }
        for name in lost
    ]


def last_policies(
    run: Run, tasks: Sequence[HeldOut], against: Sequence[Run]
) -> dict[str, list[tuple[str, Checkpoint]]]:
    """Return by task each other run's last kept policy, under the run's name.

    StoreError for a run that was measured on other tasks or other problems.
    """
    found: dict[str, list[tuple[str, Checkpoint]]] = {held.task: [] for held in tasks}
    names = [one.name for one in (run, *against)]
    for other in against:
        theirs = read_held_out(other)
        _check_same_tasks(tasks, theirs, other)
        is_unique = names.count(other.name) == 1
        for held in theirs:
            name = other.name if is_unique else other.directory.resolve().name
            found[held.task].append((name, held.line[-1]))
    return found


def _check_same_tasks(tasks: Sequence[HeldOut], theirs: Sequence[HeldOut], run: Run) -> None:
    here, there = ({held.task: set(held.line[-1].counts) for held in x} for x in (tasks, theirs))
    if here == there:
        return
    if here.keys() != there.keys():
        said = f"measured on {', '.join(there) or 'nothing'}, not on {', '.join(here) or 'nothing'}"
    else:
        task = next(task for task in here if here[task] != there[task])
        said = (
            f"{task} has {len(there[task])} problems there and {len(here[task])} here, "
            f"{len(here[task] & there[task])} of them the same"
        )
    raise StoreError(
        f"{run.directory} cannot be drawn against this run: {said}. Name a run with the "
        "same held-out tasks."
    )


def _held_out(run: Run, task: str, found: Sequence[Checkpoint]) -> HeldOut:
    last_explored = {c.policy: c for c in found if not c.is_kept}
    line = [
        c
        for c in found
        if run.goes_on(
            c.policy, is_explored=not c.is_kept, is_last=c is last_explored.get(c.policy)
        )
    ]
    line = line or [found[-1]]
    last = list(found).index(line[-1])
    return HeldOut(
        task=task,
        checkpoints=tuple(found[: last + 1]),
        line=tuple(line),
        has_reference=line[0].policy == run.reference,
    )


def _end(text: str) -> str:
    return text if len(text) <= MAX_PROMPT else f"[...] {text[-MAX_PROMPT:]}"
