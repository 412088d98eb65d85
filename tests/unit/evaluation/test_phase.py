"""The evaluation phase on the scripted engine: chunks, what is read back, what is set aside."""

import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import (
    begin,
    interrupted_at,
    killed_at,
    logged,
    scripted,
    toy_recipe,
    trajectories,
    watched,
)
from doubles_scripted import ScriptedEngine
from hypothesis import given
from hypothesis import strategies as st

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.rollout import Rollout
from rloop.errors import StoreError
from rloop.evaluation import phase
from rloop.evaluation.phase import Evaluator, chunks
from rloop.evaluation.tallies import Tally, stored_tallies
from rloop.recipe.config import EvaluateConfig, Recipe, SamplingConfig
from rloop.session.process import resume
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Place, Problem, Verdict

PLACE = Place(run="toy", seed=3, iteration=1, phase="evaluate", policy="it's-1")


def problems(count: int, task: str = "held") -> tuple[Problem, ...]:
    return tuple(
        Problem(
            problem_id=f"{task}/{n}",
            task=task,
            question=f"{task} {n}?",
            answer="1",
            verifier="none",
        )
        for n in range(count)
    )


class Verifier:
    """Says right to "1", finds no answer in "e"."""

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        future: Future[Verdict] = Future()
        kinds = {"1": "correct", "e": "error"}
        answer = None if completion_text == "e" else completion_text
        kind: Any = kinds.get(completion_text, "wrong")
        future.set_result(Verdict(kind=kind, answer=answer))
        return future


class Sampling(ScriptedEngine):
    """Answers from the seed of the trajectory's own stream; remembers what each call asked for."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, lambda problem, member, _: self.answer(problem, member))
        self.calls: list[list[str]] = []
        self.die_at: int | None = None

    def answer(self, problem: Problem, member: int) -> str:
        seed = PLACE.stream_seed(problem.problem_id, member)
        return ("1", "e", "x" * (seed % 20), "1")[seed % 4]

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        asked = (self.renderer.problems[request.prompt_ids] for request in requests)
        self.calls.append(list(dict.fromkeys(problem.problem_id for problem in asked)))
        for index, found in super().sample(requests, settings):
            yield index, found
            # The first problem of the call is then complete.
            if len(self.calls) == self.die_at and index >= 3:
                raise SystemExit("killed")


@pytest.fixture
def engine(tmp_path: Path) -> Sampling:
    return Sampling(toy_recipe(tmp_path))


def evaluator(
    engine: Sampling, folder: Path, *, samples: int = 4, max_batch: int = 1, count: int = 12
) -> Evaluator:
    """Return an evaluator of 12 and 2 problems; by default 4 problems a chunk."""
    folder.mkdir(exist_ok=True)
    sampling = SamplingConfig(max_completion_tokens=16)
    return Evaluator(
        rollout=Rollout(engine=engine, verify=Verifier()),
        tasks={"held": problems(count), "few": problems(2, "few")},
        config=EvaluateConfig(samples=samples, k=(1, samples), sampling=sampling),
        store=TrajectoryStore(folder),
        max_batch=max_batch,
    )


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 64))
def test_chunks_part_the_problems_in_order_into_nearly_equal_parts(count, num_samples, max_batch):
    everything = problems(count)
    parts = list(chunks(everything, num_samples, max_batch))
    sizes = [len(part) for part in parts]
    assert tuple(chain.from_iterable(parts)) == everything
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    target = 16 * max_batch
    # Rounding to a whole number of parts: between 2/3 and 3/2 of the target, by a problem at most.
    if len(parts) > 1:
        assert max(sizes) * num_samples < 1.5 * target + num_samples
    if count * num_samples > 1.5 * target:
        assert min(sizes) * num_samples > target * 2 / 3 - num_samples


def test_a_small_task_is_one_file_and_a_large_one_a_file_a_chunk(engine, tmp_path):
    evaluator(engine, tmp_path).evaluate(PLACE)
    # 12 problems x 4 samples = 48 completions, in chunks of 16 x 1: 3 of 4 problems; 2 x 4 < 16.
    found = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    assert found == [
        "step-000000-it%27s-1-few.parquet",
        "step-000000-it%27s-1-held-000000.parquet",
        "step-000000-it%27s-1-held-000004.parquet",
        "step-000000-it%27s-1-held-000008.parquet",
    ]
    assert [len(call) for call in engine.calls] == [4, 4, 4, 2]


def test_metrics_follow_from_every_sample_not_from_the_last_chunk(engine, tmp_path):
    found = evaluator(engine, tmp_path).evaluate(PLACE)
    answers = [engine.answer(p, m) for p in problems(12) for m in range(4)]
    assert found.metrics["held/avg@4"] == pytest.approx(answers.count("1") / 48)
    assert found.metrics["held/samples_count"] == 48
    assert found.metrics["held/problems_count"] == 12
    assert found.metrics["held/verdict_error_frac"] == answers.count("e") / 48
    # EOS is a token; from 16 letters on the limit of 16 tokens cuts it off.
    assert found.metrics["held/sampled_tokens_count"] == sum(min(len(a) + 1, 16) for a in answers)
    assert found.metrics["held/truncated_frac"] == sum(len(a) > 15 for a in answers) / 48
    assert 0 < found.metrics["held/truncated_frac"] < 1


@pytest.mark.parametrize("die_at", [1, 2, 3, 4])
def test_stored_chunks_are_read_back_and_the_numbers_are_the_same(engine, tmp_path, die_at):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    expected = evaluator(engine, whole).evaluate(PLACE)
    engine.calls, engine.die_at = [], die_at
    with pytest.raises(SystemExit):
        evaluator(engine, torn).evaluate(PLACE)
    engine.calls, engine.die_at = [], None
    told: list[int] = []
    assert evaluator(engine, torn).evaluate(PLACE, on_stored=told.append) == expected
    assert told == [4 * 4 * (die_at - 1)]
    assert [len(call) for call in engine.calls] == [4, 4, 4, 2][die_at - 1 :]
    assert [p.read_bytes() for p in sorted(whole.rglob("*.parquet"))] == [
        p.read_bytes() for p in sorted(torn.rglob("*.parquet"))
    ]


@pytest.mark.parametrize("stop_at", [1, 3, 5, 12, 13])
def test_a_listener_that_stops_it_loses_no_finished_problem(engine, tmp_path, stop_at):
    """Ctrl-C in the middle of a chunk: what is finished is stored, the rest of it comes later."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    expected = evaluator(engine, whole).evaluate(PLACE)
    heard: list[str] = []

    def stop(group: Group) -> None:
        heard.append(group.problem.problem_id)
        if len(heard) == stop_at:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluator(engine, torn).evaluate(PLACE, on_group=stop)
    assert TrajectoryStore(torn).count() == 4 * stop_at
    engine.calls = []
    told: list[int] = []
    found = evaluator(engine, torn).evaluate(PLACE, on_stored=told.append)
    assert (found, told) == (expected, [4 * stop_at])
    assert sum(map(len, engine.calls)) == 14 - stop_at
    assert TrajectoryStore(torn).count() == 4 * 14


def test_of_the_policy_in_training_a_chunk_that_was_stopped_is_not_stored(engine, tmp_path):
    """Its weights of that step come again, and all its problems with them."""

    def stop(_: Group) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluator(engine, tmp_path).evaluate(PLACE, policy_version=2, on_group=stop)
    assert TrajectoryStore(tmp_path).count() == 0


def test_a_complete_evaluation_is_read_without_sampling(engine, tmp_path):
    expected = evaluator(engine, tmp_path).evaluate(PLACE)
    engine.calls = []
    assert evaluator(engine, tmp_path).evaluate(PLACE) == expected
    assert engine.calls == []


def test_progress_counts_what_was_stored_and_each_new_group(engine, tmp_path):
    engine.die_at = 3
    with pytest.raises(SystemExit):
        evaluator(engine, tmp_path).evaluate(PLACE)
    engine.die_at = None
    told: list[Any] = []
    tokens: list[int] = []
    evaluator(engine, tmp_path).evaluate(
        PLACE,
        on_stored=told.append,
        on_completion=tokens.append,
        on_group=lambda group: told.append(group.problem.problem_id),
    )
    assert len(tokens) == 6 * 4
    assert min(tokens) > 0
    assert told == [8 * 4, "held/8", "held/9", "held/10", "held/11", "few/0", "few/1"]


@pytest.mark.parametrize("max_batch", [2, 3, 100])
def test_other_chunks_after_a_crash_keep_every_stored_problem_once(engine, tmp_path, max_batch):
    """Another max_batch after a crash: the cuts move, nothing is lost or doubled."""
    engine.die_at = 3
    with pytest.raises(SystemExit):
        evaluator(engine, tmp_path).evaluate(PLACE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    engine.die_at = None
    found = evaluator(engine, tmp_path, max_batch=max_batch).evaluate(PLACE)
    assert found.metrics["held/samples_count"] == 48
    assert TrajectoryStore(tmp_path).count() == 48 + 8
    assert all(path.read_bytes() == text for path, text in before.items())
    stored = stored_tallies(TrajectoryStore(tmp_path), PLACE)
    assert {tally.samples for those in stored.values() for tally in those.values()} == {4}


def test_another_number_of_samples_is_refused_before_sampling(engine, tmp_path):
    evaluator(engine, tmp_path).evaluate(PLACE)
    engine.calls = []
    with pytest.raises(StoreError, match=r"it's-1 have 4 completions each.* draws 8.*back to 4"):
        evaluator(engine, tmp_path, samples=8).evaluate(PLACE)
    assert engine.calls == []


@pytest.mark.parametrize(
    "elsewhere",
    [{"policy": "it's-2"}, {"iteration": 2}, {"step": 5}],
    ids=["policy", "iteration", "step"],
)
def test_what_is_stored_of_another_place_is_not_read_back(engine, tmp_path, elsewhere):
    evaluator(engine, tmp_path).evaluate(replace(PLACE, **elsewhere))
    engine.calls = []
    evaluator(engine, tmp_path).evaluate(PLACE)
    assert len(engine.calls) == 4


def test_the_policy_in_training_is_sampled_anew_and_its_later_steps_are_set_aside(engine, tmp_path):
    places = [replace(PLACE, step=step) for step in (2, 4, 6)]
    for place in places:
        evaluator(engine, tmp_path).evaluate(place, policy_version=place.step)
    engine.calls = []
    evaluator(engine, tmp_path).evaluate(places[1], policy_version=4)
    assert len(engine.calls) == 4
    store = TrajectoryStore(tmp_path)
    assert [store.count(step=step) for step in (2, 4, 6)] == [56, 56, 0]
    aside = list((tmp_path / "trajectories" / ".superseded").rglob("*.parquet.1"))
    assert len(aside) == 2 * 4


def test_tallies_of_a_stored_evaluation_are_those_it_measured(engine, tmp_path):
    found = evaluator(engine, tmp_path).evaluate(PLACE)
    assert stored_tallies(TrajectoryStore(tmp_path), PLACE) == found.counts
    scores = {tally.majority for tally in found.counts["held"].values()}
    assert len(scores) > 1, "the majority is the same for every problem"


def test_tallies_are_what_the_store_holds(engine, tmp_path):
    evaluator(engine, tmp_path).evaluate(PLACE)
    answers = [engine.answer(problems(1)[0], member) for member in range(4)]
    assert stored_tallies(TrajectoryStore(tmp_path), PLACE)["held"]["held/0"] == Tally(
        samples=4,
        correct=answers.count("1"),
        majority=1.0,  # of 1, e, an overlong one and 1, two voted for 1
        tokens=sum(min(len(a) + 1, 16) for a in answers),
        truncated=sum(len(a) > 15 for a in answers),
        errors=answers.count("e"),
    )


def test_memory_follows_from_a_chunk_not_from_the_evaluation(engine, tmp_path, monkeypatch):
    """Eight times the completions, not half as much again at the peak: only tallies add up."""
    # The table of pass@k is the same for both; they are not what is measured.
    monkeypatch.setattr(phase, "task_metrics", lambda *_, **__: {})

    def peak(count: int) -> int:
        measured = evaluator(engine, tmp_path / str(count), samples=16, max_batch=8, count=count)
        tracemalloc.start()
        measured.evaluate(PLACE)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(8)  # what is imported on first use
    assert peak(128) < 1.5 * peak(16)


@pytest.mark.parametrize("where", [("evaluate", 0, 0), ("evaluate", 1, 2), ("evaluate", 1, 0)])
@pytest.mark.parametrize("stop", ["kill", "interrupt"])
def test_a_run_stopped_inside_an_evaluation_ends_as_an_uninterrupted_one(
    tmp_path, monkeypatch, where, stop
):
    """In the second chunk of the base's, of the policy's in training, of the fine-tuned one's."""
    monkeypatch.setattr(phase, "BATCHES_PER_CHUNK", 1)
    recipe = toy_recipe(tmp_path, iterations=1, evaluate__every=2, explore__checkpoint_every=3)
    engine = recipe.engine.model_copy(update={"max_batch": 8})
    recipe = recipe.model_copy(update={"engine": engine})
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    _, expected = begin(recipe, whole, scripted())
    # With 4 samples and batches of 8 the third problem, from the 9th completion on, is in the
    # second chunk.
    if stop == "kill":
        with pytest.raises(SystemExit):
            begin(recipe, torn, watched(killed_at(*where, completion=12)))
    else:
        assert begin(recipe, torn, watched(interrupted_at(*where, completion=12)))[0] == 130
    assert resume(torn / "run", scripted()) == 0
    assert logged(torn / "run") == logged(expected)
    sql = "select * from trajectories order by iteration, phase, step, policy, problem_id, member"
    assert trajectories(torn / "run", sql) == trajectories(expected, sql)
