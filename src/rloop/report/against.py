"""The last policies of other runs, to stand beside a run's own where problems are the same."""

from collections.abc import Sequence

from rloop.errors import StoreError
from rloop.evaluation.checkpoints import Checkpoint, read_checkpoints
from rloop.report.held_out import HeldOut, held_out_tasks
from rloop.report.run_record import RunRecord
from rloop.store.trajectories import TrajectoryStore


def last_policies(
    record: RunRecord, tasks: Sequence[HeldOut], against: Sequence[RunRecord]
) -> dict[str, list[tuple[str, Checkpoint]]]:
    """Return by task each other run's last kept policy, under the run's name.

    StoreError for a run that was measured on other tasks or other problems.
    """
    found: dict[str, list[tuple[str, Checkpoint]]] = {held.task: [] for held in tasks}
    for other in against:
        theirs = held_out_tasks(other, read_checkpoints(TrajectoryStore(other.directory)))
        _check_same_tasks(tasks, theirs, other)
        name = _name(other, [record, *against])
        for held in theirs:
            found[held.task].append((name, held.line[-1]))
    return found


def _name(record: RunRecord, runs: Sequence[RunRecord]) -> str:
    """Return a run's name; that of its folder where another of the runs has the same."""
    names = [run.name for run in runs]
    is_unique = names.count(record.name) == 1
    return record.name if is_unique else record.directory.resolve().name


def _check_same_tasks(
    tasks: Sequence[HeldOut], theirs: Sequence[HeldOut], record: RunRecord
) -> None:
    here, there = _problems(tasks), _problems(theirs)
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
        f"{record.directory} cannot be drawn against this run: {said}. Name a run of the same "
        "held-out tasks."
    )


def _problems(tasks: Sequence[HeldOut]) -> dict[str, set[str]]:
    return {held.task: set(held.line[-1].counts) for held in tasks}
