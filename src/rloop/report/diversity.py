"""How different what RL sampled is: within a step, and between stretches of steps, as rows."""

from collections.abc import Callable, Sequence
from math import isnan

from rloop.evaluation.checkpoints import MAX_CHECKPOINTS, spread_checkpoints
from rloop.evaluation.exploration import StepDiversity, Survey
from rloop.evaluation.similarity import Similarity, checkpoint_similarity, step_similarity
from rloop.report.held_out import HeldOut
from rloop.report.run_record import Row
from rloop.report.timeline import Timeline
from rloop.store.trajectories import TrajectoryStore


def diversity_rows(
    timeline: Timeline, steps: Sequence[StepDiversity], measure: Callable[[StepDiversity], float]
) -> list[Row]:
    """Return a measure of each sampled RL step: x, iteration, step, value; without NaN."""
    rows = [timeline.place(one.iteration, one.step) | {"value": measure(one)} for one in steps]
    return [row for row in rows if not isnan(row["value"])]


def similarity_rows(
    store: TrajectoryStore, survey: Survey, tasks: Sequence[HeldOut]
) -> tuple[list[Row], str]:
    """Return the similarity of stretches of RL steps, or of policies: a, b, value, said; of what.

    Stretches that share no problem cannot be compared; then policies are, on the problems of the
    first held-out task. No rows for fewer than two of either.
    """
    found = step_similarity(store, survey) if survey.places else None
    if found is not None and _is_comparable(found):
        return _rows(found), "RL steps"
    if not tasks:
        return [], ""
    chosen = spread_checkpoints(tasks[0].checkpoints, MAX_CHECKPOINTS)
    found = checkpoint_similarity(store, [tasks[0].checkpoints[index] for index in chosen])
    return (_rows(found) if _is_comparable(found) else []), "policies"


def _is_comparable(found: Similarity) -> bool:
    """Whether any two different columns share a problem."""
    return bool(found.num_shared.sum() > found.num_shared.trace())


def _rows(found: Similarity) -> list[Row]:
    return [
        {
            "a": a,
            "b": b,
            "value": None if isnan(value) else value,
            "said": f"{value:.3f} over {found.num_shared[i, j]} problems",
        }
        for i, a in enumerate(found.labels)
        for j, b in enumerate(found.labels)
        for value in [float(found.similarity[i, j])]
    ]
