"""How different the completions of one RL step are, and which groups are read to measure it.

Measured on a sample whose size does not grow with the run and that is not random: at most 64 steps,
evenly spaced over the run, including the first and the last; at most 16 problems of a step, evenly
spaced by name; and the first 8 members of a group. Distinct answers are counted over all
trajectories of the step. Only token ids are read, and only from the files that are needed.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.algo.diversity import ngram_hashes
from rloop.evaluation.checkpoints import evenly_spaced
from rloop.evaluation.ngrams import Tokens, jaccard_matrix, mean_of_pairs
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName

MAX_STEPS = 64
MAX_STEP_PROBLEMS = 16
MAX_MEMBERS = 8

_SURVEY = """
    select iteration, step, policy, problem_id, num_rows, num_answers, num_tokens
    from groups
    where phase = 'explore' order by all
"""

Place = tuple[int, int, str]
"""(iteration, step, policy)."""
Cell = tuple[Place, str]
"""A place and a problem_id, which identify one group of trajectories."""
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Which problems each RL step had, without their tokens; rows by step, then problem_id.

    Example: Survey(places=[(1, 1, "explored-001"), (1, 2, "explored-001")],
    starts=array([0, 2, 3]), problem_ids=["sums/train/0", "sums/train/7", "sums/train/0"],
    num_completions=array([8, 8, 8]), num_answers=array([3, 1, 2]),
    num_tokens=array([912, 870, 455]))
    """

    places: Sequence[Place]
    """[S] RL steps, in order."""
    starts: IntArray
    """[S + 1] first row of each step, and the number of rows."""
    problem_ids: Sequence[str]
    num_completions: IntArray
    num_answers: IntArray
    """Distinct final answers of the problem in the step; completions without an answer do not
    count."""
    num_tokens: IntArray


def survey_exploration(store: TrajectoryStore) -> Survey:
    """Return which problems each RL step had, in one pass over small columns."""
    table = store.query(_SURVEY)
    columns = [table[name].to_numpy() for name in ("iteration", "step")]
    is_first = np.ones(table.num_rows, bool)
    is_first[1:] = np.any([values[1:] != values[:-1] for values in columns], axis=0)
    firsts = np.flatnonzero(is_first)
    head = table.select(["iteration", "step", "policy"]).take(firsts).to_pylist()
    return Survey(
        places=[(row["iteration"], row["step"], row["policy"]) for row in head],
        starts=np.append(firsts, table.num_rows),
        problem_ids=table["problem_id"].to_pylist(),
        num_completions=table["num_rows"].to_numpy(),
        num_answers=table["num_answers"].to_numpy(),
        num_tokens=table["num_tokens"].to_numpy(),
    )


def step_diversity(store: TrajectoryStore, survey: Survey) -> list[dict[str, Any]]:
    """Return how different the completions of each sampled RL step are, in order.

    Keys: iteration, step, diversity (1 - mean pairwise Jaccard similarity of token 4-grams within a
    problem, a mean over problems; NaN where no problem has two completions), and distinct_answers
    (distinct final answers of a problem, a mean over all problems of the step).
    """
    steps = evenly_spaced(range(len(survey.places)), MAX_STEPS)
    cells = {step: _step_cells(survey, step) for step in steps}
    groups = read_groups(store, "explore", list(chain.from_iterable(cells.values())))
    return [_diversity(survey, step, [groups[cell] for cell in cells[step]]) for step in steps]


def read_groups(
    store: TrajectoryStore, phase: PhaseName, cells: Sequence[Cell]
) -> dict[Cell, list[Tokens]]:
    """Return the token ids of the first members of each group, in member order.

    The cells are those of groups in the store.
    """
    wanted = [(*place, name) for place, name in cells]
    if not wanted:
        return {}
    steps: dict[int, set[int]] = defaultdict(set)
    for iteration, step, _, _ in wanted:
        steps[iteration].add(step)
    # The join picks the rows; these plain conditions let the reader skip files.
    places = " or ".join(
        f"iteration = {iteration} and step in ({', '.join(map(str, sorted(found)))})"
        for iteration, found in steps.items()
    )
    values = ", ".join(
        f"({iteration}, {step}, {_quoted(policy)}, {_quoted(name)})"
        for iteration, step, policy, name in wanted
    )
    table = store.query(
        "select iteration, step, policy, problem_id, completion_ids from trajectories "
        f"semi join (values {values}) as wanted (iteration, step, policy, problem_id) "
        "using (iteration, step, policy, problem_id) "
        f"where phase = '{phase}' and member < {MAX_MEMBERS} and ({places}) order by member"
    )
    lists = table["completion_ids"].combine_chunks()
    ends = np.cumsum(lists.value_lengths().to_numpy())
    ids = np.split(lists.flatten().to_numpy(), ends[:-1])
    groups: dict[Cell, list[Tokens]] = defaultdict(list)
    places_of = table.select(["iteration", "step", "policy", "problem_id"]).to_pylist()
    for row, tokens in zip(places_of, ids, strict=True):
        key = (row["iteration"], row["step"], row["policy"]), row["problem_id"]
        groups[key].append(tokens)
    return dict(groups)


def _step_cells(survey: Survey, step: int) -> list[Cell]:
    """Return the sampled problems of a step that have at least two completions."""
    rows = range(survey.starts[step], survey.starts[step + 1])
    usable = [row for row in rows if survey.num_completions[row] >= 2]
    chosen = evenly_spaced(usable, MAX_STEP_PROBLEMS)
    return [(survey.places[step], survey.problem_ids[row]) for row in chosen]


def _diversity(survey: Survey, step: int, groups: Sequence[Sequence[Tokens]]) -> dict[str, Any]:
    iteration, number, _ = survey.places[step]
    answers = survey.num_answers[survey.starts[step] : survey.starts[step + 1]]
    similar = [mean_of_pairs(jaccard_matrix(*ngram_hashes(group))) for group in groups]
    return {
        "iteration": iteration,
        "step": number,
        "diversity": 1.0 - float(np.mean(similar)) if similar else float("nan"),
        "distinct_answers": float(answers.mean()),
    }


def _quoted(text: str) -> str:
    """Return text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
