"""How similar the completions of different steps and policies are, on the problems they share.

RL steps draw different problems, so two steps rarely share one. Steps are therefore pooled into
bins of neighbouring steps of one iteration, long enough that each problem comes once, at most 12
bins in all. The cost does not grow with the run, and the sample is not random: a bin with many
tokens is narrowed to its middle steps (40 million tokens in all bins); compared are the 64 problems
that most bins have, the first group of each problem in a bin, and the first 8 members of a group.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rloop.algo.diversity import ngram_hashes
from rloop.evaluation.checkpoints import Checkpoint, evenly_spaced
from rloop.evaluation.exploration import Cell, Survey, read_groups
from rloop.evaluation.ngrams import Floats, Tokens, jaccard_matrix, mean_of_pairs
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName, stable_hash

MAX_BINS = 12
MAX_PROBLEMS = 64
MAX_TOKENS = 40_000_000
"""Most tokens of the steps that bins read."""


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
