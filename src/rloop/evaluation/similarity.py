"""How different completions are: inside an RL step, between steps, and between policies.

Compared are the sets of token 4-grams of a problem's completions. The cost does not grow with the
run, and what is read is not random:

- Inside a step: at most 64 steps, evenly spaced over the run, including the first and the last; at
  most 16 problems of a step, evenly spaced by name. Distinct answers are counted over all
  trajectories of the step.
- Between steps: RL steps draw different problems, so two steps rarely share one. Steps are
  therefore pooled into bins of neighbouring steps of one iteration, long enough that each problem
  comes once, at most 12 bins in all. A bin with many tokens is narrowed to its middle steps (40
  million tokens in all bins); compared are the 64 problems that most bins have, and the first group
  of each problem in a bin.

Of a group the first 8 members count. Only token ids are read, and only from the files that are
needed.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.algo.diversity import Hashes, ngram_hashes
from rloop.evaluation.checkpoints import Checkpoint, evenly_spaced
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName, stable_hash

Tokens = NDArray[np.int32]
"""[T] token ids of a completion."""
Floats = NDArray[np.float64]
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
MAX_BINS = 12
MAX_PROBLEMS = 64
MAX_TOKENS = 40_000_000
"""Most tokens of the steps that bins read."""
_CHUNK = 4096
"""Distinct n-grams in one matrix product; limits its memory."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """How similar the completions of several policies are, on the problems they share.

    Example: Similarity(labels=("1: 1-8", "1: 9-16"), similarity=array([[0.4, 0.3], [0.3, 0.5]]),
    num_shared=array([[16, 9], [9, 16]]))
    """

    labels: tuple[str, ...]
    """[C] `iteration: first step-last step` for bins, the checkpoint's label for checkpoints."""
    similarity: Floats
    """[C, C] Jaccard similarity of token 4-grams, mean over pairs of different completions of a
    problem and over problems. Policies differ where it is below the diagonal's. NaN without a
    pair."""
    num_shared: NDArray[np.int64]
    """[C, C] number of problems in the mean."""


def step_similarity(store: TrajectoryStore, survey: Survey) -> Similarity:
    """Return how similar bins of neighbouring RL steps are, over the run and its iterations.

    Without an exploration there are no bins. `num_shared` is 0 if bins share no problem, as in a
    run that sees each problem once; `checkpoint_similarity` compares policies then.
    """
    bins = _bins(survey)
    cells: list[dict[str, Cell]] = []
    for steps in bins:
        found: dict[str, Cell] = {}
        for step in steps:
            for row in range(survey.starts[step], survey.starts[step + 1]):
                name = survey.problem_ids[row]
                found.setdefault(name, (survey.places[step], name))
        cells.append(found)
    return _similarity(store, "explore", [_bin_label(survey, steps) for steps in bins], cells)


def checkpoint_similarity(store: TrajectoryStore, checkpoints: Sequence[Checkpoint]) -> Similarity:
    """Return how similar the evaluated policies are, on the held-out problems they share.

    Cost grows with the checkpoints: `checkpoints.spread_checkpoints` chooses a bounded number.
    """
    cells = [
        {name: ((c.iteration, c.step, c.policy), name) for name in c.counts} for c in checkpoints
    ]
    return _similarity(store, "evaluate", [c.label for c in checkpoints], cells)


def _bins(survey: Survey) -> list[Sequence[int]]:
    """Return the steps of each bin: equal parts of an iteration, narrowed to their middle.

    A part has at least as many groups as the iteration has problems (an epoch), so that parts share
    problems.
    """
    iterations = sorted({iteration for iteration, _, _ in survey.places})
    chosen = evenly_spaced(iterations, MAX_BINS)
    bins: list[Sequence[int]] = []
    for iteration in chosen:
        steps = [i for i, place in enumerate(survey.places) if place[0] == iteration]
        names = survey.problem_ids[survey.starts[steps[0]] : survey.starts[steps[-1] + 1]]
        num_bins = min(MAX_BINS // len(chosen), len(steps), len(names) // len(set(names)))
        bins += [part.tolist() for part in np.array_split(np.array(steps), num_bins)]
    return [_narrowed(survey, steps, MAX_TOKENS // len(bins)) for steps in bins]


def _narrowed(survey: Survey, steps: Sequence[int], max_tokens: int) -> Sequence[int]:
    """Return the middle steps with at most `max_tokens` tokens together, at least one."""
    first, last = survey.starts[steps[0]], survey.starts[steps[-1] + 1]
    mean_tokens = int(survey.num_tokens[first:last].sum()) / len(steps)
    count = min(len(steps), max(1, int(max_tokens / max(1.0, mean_tokens))))
    begin = (len(steps) - count) // 2
    return steps[begin : begin + count]


def _bin_label(survey: Survey, steps: Sequence[int]) -> str:
    iteration, first, _ = survey.places[steps[0]]
    last = survey.places[steps[-1]][1]
    return f"{iteration}: {first}" if first == last else f"{iteration}: {first}-{last}"


def _similarity(
    store: TrajectoryStore,
    phase: PhaseName,
    labels: Sequence[str],
    cells: Sequence[Mapping[str, Cell]],
) -> Similarity:
    """Return the similarity of columns, each with a cell for some of the problems."""
    chosen = _most_shared(cells)
    wanted = [column[name] for column in cells for name in chosen if name in column]
    groups = read_groups(store, phase, wanted)
    total = np.zeros((len(cells), len(cells)))
    num_shared = np.zeros((len(cells), len(cells)), np.int64)
    for name in chosen:
        having = [i for i, column in enumerate(cells) if name in column]
        found = _column_means([groups[cells[i][name]] for i in having])
        place = np.ix_(having, having)
        total[place] += np.nan_to_num(found)
        num_shared[place] += ~np.isnan(found)
    mean = np.divide(total, num_shared, out=np.full(total.shape, np.nan), where=num_shared > 0)
    return Similarity(labels=tuple(labels), similarity=mean, num_shared=num_shared)


def _most_shared(cells: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Return the problems that most columns have; ties go to the smallest hash."""
    counts = Counter(chain.from_iterable(cells))
    least = sorted(counts.values(), reverse=True)[:MAX_PROBLEMS][-1:]
    # A run may have millions of problems, so only those that can be chosen are hashed.
    candidates = [name for name, count in counts.items() if count >= least[0]]
    candidates.sort(key=lambda name: (-counts[name], stable_hash(name)))
    return candidates[:MAX_PROBLEMS]


def _column_means(groups: Sequence[Sequence[Tokens]]) -> Floats:
    """Return the mean Jaccard similarity of one problem's completions between columns [C, C].

    On the diagonal it is over pairs of different completions; NaN for a single one.
    """
    ends = np.cumsum([0, *map(len, groups)])
    pairs = jaccard_matrix(*ngram_hashes([ids for group in groups for ids in group]))
    means = np.empty((len(groups), len(groups)))
    for a in range(len(groups)):
        for b in range(len(groups)):
            block = pairs[ends[a] : ends[a + 1], ends[b] : ends[b + 1]]
            means[a, b] = mean_of_pairs(block) if a == b else block.mean()
    return means


def jaccard_matrix(owners: NDArray[np.int64], hashes: Hashes) -> Floats:
    """Return |a and b| / |a or b| of the n-gram sets of every two completions [R, R].

    The arguments are those that `algo.diversity.ngram_hashes` returns.
    """
    num_rows = int(owners[-1]) + 1
    names, grams = np.unique(hashes, return_inverse=True)
    pairs = np.unique(grams * num_rows + owners)
    grams, owners = np.divmod(pairs, num_rows)
    sizes = np.bincount(owners, minlength=num_rows)
    is_shared = np.bincount(grams, minlength=len(names))[grams] > 1
    shared = _shared_counts(grams[is_shared], owners[is_shared], num_rows)
    np.fill_diagonal(shared, sizes)
    return shared / (sizes[:, None] + sizes - shared)


def mean_of_pairs(matrix: Floats) -> float:
    """Return the mean over pairs of different rows of a symmetric matrix; NaN for a single row."""
    above = matrix[np.triu_indices(len(matrix), k=1)]
    return float(above.mean()) if len(above) else float("nan")


def _shared_counts(grams: NDArray[np.int64], owners: NDArray[np.int64], num_rows: int) -> Floats:
    """Return how many n-grams every two rows share [R, R], from distinct pairs sorted by n-gram."""
    columns = np.unique(grams, return_inverse=True)[1]
    total = np.zeros((num_rows, num_rows))
    last = int(columns[-1]) + 1 if len(columns) else 0
    for start in range(0, last, _CHUNK):
        low, high = np.searchsorted(columns, [start, start + _CHUNK])
        has = np.zeros((num_rows, _CHUNK), np.float32)
        has[owners[low:high], columns[low:high] - start] = 1.0
        total += has @ has.T
    return total
