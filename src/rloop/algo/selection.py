"""The select phase as a pure function, from everything that exploration sampled to the expert set.

    success    = correct and stopped by itself (a truncated completion is never imitated)
    hard       = success rate of the problem, over ALL its judged trajectories, <= max_success_rate
    different  = the first of a problem's successes with equal text
    kept       = at most per_problem_cap of those, chosen by `prefer`

This module knows no store and no model. The result does not depend on the order of the rows.
Shapes: N candidate trajectories, P problems, K kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np

from rloop.algo.candidates import Candidates, FloatArray, IntArray
from rloop.algo.diversity import farthest_points
from rloop.recipe.config import ExpertConfig
from rloop.types import stable_hash

Outcome = Literal["kept", "too_easy", "not_solved"]
NUM_BINS = 10
BATCH_TOKENS = 2**25
"""Token ids held at once while `prefer: diverse` compares completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReport:
    """Why a problem is in the expert set or not.

    Example: ProblemReport(problem_id="t/0", task="t", outcome="kept", success_rate=0.25,
    num_trajectories=8, num_correct=2, num_successes=2, num_different=2, num_kept=1)
    """

    problem_id: str
    task: str
    outcome: Outcome
    """`not_solved` (no success), `too_easy` (success rate above the limit), else `kept`."""
    success_rate: float
    """num_correct / trajectories without verdict errors; 0 if all were errors."""
    num_trajectories: int
    num_correct: int
    num_successes: int
    """Correct and stopped."""
    num_different: int
    """Successes without duplicates; 0 unless kept."""
    num_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The expert set: its rows, their weights, and how they were selected.

    Example: Selection(rows=[4, 0], weights=[1.0, 1.0], problems=[...],
    counts={"pool_count": 16, ...}, success_rate_histogram=(3, 0, 1, 0, 0, 0, 0, 0, 0, 2))
    """

    rows: IntArray
    """[K] candidate rows by problem_id, then iteration, step, member."""
    weights: FloatArray
    """[K] mean 1."""
    problems: Sequence[ProblemReport]
    """[P] by problem_id."""
    counts: dict[str, int]
    """The funnel in trajectories and in problems."""
    success_rate_histogram: tuple[int, ...]
    """[10] problems by success rate in tenths; the last bin holds 0.9 and above."""


def select_expert_set(candidates: Candidates, config: ExpertConfig, *, seed: int) -> Selection:
    """Choose the expert set by the recipe's `expert`; `seed` decides only `prefer: random`."""
    totals = _Totals.of(candidates)
    limit = config.max_success_rate
    is_hard = (totals.successes > 0) & (totals.rates <= limit)
    index = candidates.problem_index
    success = candidates.correct & candidates.stopped
    hard = _ordered(candidates, np.flatnonzero(success & is_hard[index]))
    different = hard
    if config.dedupe:
        different = _distinct(candidates, hard, keep_last=config.prefer == "newest")
    kept = different
    if config.per_problem_cap is not None:
        kept = _capped(candidates, different, config.prefer, config.per_problem_cap, seed=seed)
    different_by_problem = np.bincount(index[different], minlength=len(is_hard))
    kept_by_problem = np.bincount(index[kept], minlength=len(is_hard))
    problems = _reports(candidates, totals, different_by_problem, kept_by_problem)
    outcomes = [report.outcome for report in problems]
    counts = {
        "pool_count": len(index),
        "truncated_count": int(candidates.truncated.sum()),
        "successes_count": int(success.sum()),
        "hard_count": len(hard),
        "deduplicated_count": len(different),
        "kept_count": len(kept),
        "problems_seen_count": len(problems),
        "problems_not_solved_count": outcomes.count("not_solved"),
        "problems_too_easy_count": outcomes.count("too_easy"),
        "problems_kept_count": outcomes.count("kept"),
    }
    # In integers, because 3 of 10 belongs to the bin that begins at 0.3, which 0.3 / 0.1 misses.
    bins = np.minimum(NUM_BINS * totals.correct // np.maximum(totals.judged, 1), NUM_BINS - 1)
    return Selection(
        rows=kept,
        weights=_weights(candidates, kept, config),
        problems=problems,
        counts=counts,
        success_rate_histogram=tuple(np.bincount(bins, minlength=NUM_BINS).tolist()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Totals:
    """Counts over each problem's trajectories, [P] each."""

    trajectories: IntArray
    judged: IntArray
    correct: IntArray
    successes: IntArray
    rates: FloatArray

    @classmethod
    def of(cls, candidates: Candidates) -> "_Totals":
        index, size = candidates.problem_index, len(candidates.problem_ids)
        trajectories = np.bincount(index, minlength=size)
        assert trajectories.all(), (
            f"{(trajectories == 0).sum()} of {size} problems have no trajectory"
        )
        judged = np.bincount(index[candidates.judged], minlength=size)
        correct = np.bincount(index[candidates.correct], minlength=size)
        successes = np.bincount(index[candidates.correct & candidates.stopped], minlength=size)
        return cls(
            trajectories=trajectories,
            judged=judged,
            correct=correct,
            successes=successes,
            rates=correct / np.maximum(judged, 1),
        )


def _ordered(candidates: Candidates, rows: IntArray) -> IntArray:
    """Return rows sorted by problem_id, iteration, step, member; the other keys only break ties."""
    names = np.asarray(candidates.problem_ids, dtype=object)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(names)] = np.arange(len(names))
    keys = (
        candidates.behavior_logprob_sum,
        candidates.num_tokens,
        candidates.text_hash,
        candidates.member,
        candidates.step,
        candidates.iteration,
        rank[candidates.problem_index],
    )
    return rows[np.lexsort([key[rows] for key in keys])]


def _distinct(candidates: Candidates, rows: IntArray, *, keep_last: bool) -> IntArray:
    """Keep the first (or last) of a problem's rows with the same text, in order."""
    ordered = rows[::-1] if keep_last else rows
    texts, problems = candidates.text_hash[ordered], candidates.problem_index[ordered]
    order = np.lexsort([texts, problems])
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(texts[order]) != 0) | (np.diff(problems[order]) != 0)
    kept = ordered[np.sort(order[is_new])]
    return kept[::-1] if keep_last else kept


def _capped(
    candidates: Candidates, rows: IntArray, prefer: str, cap: int, *, seed: int
) -> IntArray:
    """Keep at most `cap` of each problem's rows, by preference, in order."""
    index = candidates.problem_index[rows]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    blocks = np.split(rows, starts[1:])
    large = [block for block in blocks if len(block) > cap]
    wanted: Iterator[IntArray] = (
        _most_different(candidates, large, cap)
        if prefer == "diverse"
        else (_preferred(candidates, block, prefer, cap, seed=seed) for block in large)
    )
    return np.concatenate(
        [block[np.sort(next(wanted))] if len(block) > cap else block for block in blocks]
    )


def _most_different(
    candidates: Candidates, blocks: Sequence[IntArray], cap: int
) -> Iterator[IntArray]:
    """Yield the positions of `cap` rows in each problem's block; token ids are read in batches."""
    ends = np.cumsum([candidates.num_tokens[block].sum() for block in blocks])
    for _, batch in groupby(zip(ends // BATCH_TOKENS, blocks, strict=True), itemgetter(0)):
        members = [block for _, block in batch]
        completions = candidates.completion_ids(np.concatenate(members))
        start = 0
        for block in members:
            yield np.asarray(farthest_points(completions[start : start + len(block)], cap))
            start += len(block)


def _preferred(
    candidates: Candidates, block: IntArray, prefer: str, cap: int, *, seed: int
) -> IntArray:
    """Return the positions of the `cap` preferred rows in one problem's block."""
    if prefer == "newest":
        return np.arange(len(block))[-cap:]
    if prefer == "shortest":
        return np.argsort(candidates.num_tokens[block], kind="stable")[:cap]
    names = zip(
        candidates.iteration[block], candidates.step[block], candidates.member[block], strict=True
    )
    problem = candidates.problem_ids[candidates.problem_index[block[0]]]
    draws = [stable_hash(seed, "select", problem, *name) for name in names]
    return np.argsort(np.asarray(draws, np.uint64), kind="stable")[:cap]


def _weights(candidates: Candidates, rows: IntArray, config: ExpertConfig) -> FloatArray:
    """Return the weight of each kept row; their mean is 1.

    uniform            w_i = 1
    inverse_frequency  w_i = 1 / (kept rows of i's problem)
    importance         w_i = min(q_median / q_i, weight_cap): the reward, 1, over the behavior
                       probability, truncated. q_i = exp(behavior_logprob_sum_i) is that of the
                       whole completion, not normalised by its length; q_median = exp(median of the
                       sums over all kept rows). each then divided by its mean.
    """
    if config.weight == "uniform" or not len(rows):
        return np.ones(len(rows))
    if config.weight == "inverse_frequency":
        index = candidates.problem_index[rows]
        weights = 1.0 / np.bincount(index)[index]
    else:
        logprobs = candidates.behavior_logprob_sum[rows]
        weights = np.exp(np.minimum(np.median(logprobs) - logprobs, np.log(config.weight_cap)))
    normalised: FloatArray = weights / weights.mean()
    return normalised


def _reports(
    candidates: Candidates, totals: _Totals, num_different: IntArray, num_kept: IntArray
) -> list[ProblemReport]:
    reports = []
    for number in np.argsort(np.asarray(candidates.problem_ids, dtype=object)).tolist():
        is_solved = bool(totals.successes[number])
        outcome: Outcome = "too_easy" if is_solved else "not_solved"
        reports.append(
            ProblemReport(
                problem_id=candidates.problem_ids[number],
                task=candidates.tasks[number],
                outcome="kept" if num_kept[number] else outcome,
                success_rate=float(totals.rates[number]),
                num_trajectories=int(totals.trajectories[number]),
                num_correct=int(totals.correct[number]),
                num_successes=int(totals.successes[number]),
                num_different=int(num_different[number]),
                num_kept=int(num_kept[number]),
            )
        )
    return reports
