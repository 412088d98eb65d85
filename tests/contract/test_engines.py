"""What the loop may rely on, whatever engine is behind the seam."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from doubles_policies import make_problem
from doubles_runs import half_right, scripted, toy_recipe
from doubles_tinker import on_server

from rloop.algo.objective import Objective
from rloop.engines.base import Engine, Sampled, SampleRequest, TrainingSequence
from rloop.engines.registry import build_engine
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.recipe.engine import LoraConfig
from rloop.types import PolicyRef

PROBLEMS = [make_problem(number, answer=str(number + 1)) for number in range(6)]
SETTINGS = SamplingConfig(max_completion_tokens=16)
OPTIMIZER = OptimizerConfig(learning_rate=1e-3)
SFT = Objective(loss="sft")
RL = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)


def on(**engine: object) -> Callable[[Recipe], Engine]:
    """Build the recipe's engine with other values of its section."""

    def build(recipe: Recipe) -> Engine:
        changed = recipe.engine.model_copy(update=engine)
        return build_engine(recipe.model_copy(update={"engine": changed}))

    return build


ENGINES = {
    "scripted": scripted(half_right),
    "native": build_engine,
    "adapters": on(lora=LoraConfig(rank=2, alpha=4)),
    "tinker": build_engine,
}


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.tinker if kind == "tinker" else ()) for kind in ENGINES
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recipe(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    if kind != "tinker":
        return toy_recipe(tmp_path)
    return on_server(toy_recipe(tmp_path), request.getfixturevalue("tinker_server"))


@pytest.fixture
def temperature(kind: str) -> float:
    """One at which every engine can score; Tinker's servers score at 1."""
    return 1.0 if kind == "tinker" else 0.7


@pytest.fixture
def engine(kind: str, recipe: Recipe) -> Iterator[Engine]:
    engine = ENGINES[kind](recipe)
    yield engine
    engine.close()


@pytest.fixture
def base(engine: Engine, recipe: Recipe, tmp_path: Path) -> PolicyRef:
    return engine.prepare(recipe.policy.path, tmp_path / "base", seed=recipe.seed)


def sample(
    engine: Engine,
    *,
    members: int = 2,
    first: int = 0,
    last: int = 6,
    settings: SamplingConfig = SETTINGS,
) -> list[Sampled]:
    """Return completions of the problems from the first to before the last, in their order."""
    requests = [
        SampleRequest(engine.renderer.prompt(PROBLEMS[number]).ids, seed=100 * number + member)
        for number in range(first, last)
        for member in range(members)
    ]
    found = dict(engine.sample(requests, settings))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def batch(engine: Engine) -> list[TrainingSequence]:
    """Return what the held policy writes, good and bad in turn."""
    return [
        TrainingSequence(
            prompt_ids=engine.renderer.prompt(PROBLEMS[number // 2]).ids,
            completion_ids=one.completion_ids,
            behavior_logprobs=one.behavior_logprobs,
            advantage=1.0 - 2.0 * (number % 2),
        )
        for number, one in enumerate(sample(engine))
    ]


def train(engine: Engine, updates: int = 2) -> list[Mapping[str, float]]:
    """Do RL updates on what the policy writes."""
    return [engine.update(batch(engine), RL, learning_rate=1e-3) for _ in range(updates)]


def digest(folder: Path) -> str:
    # A server keeps each policy under a name of its own.
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "tinker.json")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_every_token_comes_with_its_log_probability(engine: Engine, base: PolicyRef):
    del base
    for one in sample(engine):
        assert len(one.behavior_logprobs) == len(one.completion_ids) <= 16
        assert max(one.behavior_logprobs) <= 0
        assert one.finish_reason in ("stop", "length")


def test_the_same_seed_gives_the_same_completions(
    kind: str, engine: Engine, recipe: Recipe, base: PolicyRef, tmp_path: Path
):
    del base
    other = ENGINES[kind](recipe)
    other.prepare(recipe.policy.path, tmp_path / "again", seed=recipe.seed)
    assert sample(other) == sample(engine)
    other.close()


def test_a_stop_text_ends_a_completion_behind_the_token_that_completes_it(
    engine: Engine, base: PolicyRef
):
    del base
    decode = engine.renderer.decode
    whole = sample(engine)
    text = max((decode(one.completion_ids) for one in whole), key=len)
    stop = text[len(text) // 2 :][:1] or text
    found = sample(engine, settings=SETTINGS.model_copy(update={"stop": (stop,)}))
    assert any(stop in decode(one.completion_ids) for one in found)
    for one, uncut in zip(found, whole, strict=True):
        number = len(one.completion_ids)
        assert one.completion_ids == uncut.completion_ids[:number]
        assert one.behavior_logprobs == pytest.approx(uncut.behavior_logprobs[:number], abs=1e-6)
        assert stop not in decode(one.completion_ids[:-1])
        is_stopped = stop in decode(one.completion_ids)
        assert one.finish_reason == ("stop" if is_stopped else uncut.finish_reason)
        assert is_stopped or number == len(uncut.completion_ids)


def test_a_prompt_sampled_alone_gives_the_same_completions(engine: Engine, base: PolicyRef):
    del base
    together = [one.completion_ids for one in sample(engine)]
    alone = [one.completion_ids for one in sample(engine, first=2, last=3)]
    assert alone == together[4:6]


def test_training_leaves_the_start_policys_files_alone(engine: Engine, base: PolicyRef):
    before = digest(base.path)
    engine.begin(OPTIMIZER, seed=0)
    train(engine)
    assert digest(base.path) == before


def test_training_moves_the_policy_and_loading_takes_it_back(engine: Engine, base: PolicyRef):
    sequences = batch(engine)
    at_first = engine.logprobs(sequences, temperature=1.0)
    engine.begin(OPTIMIZER, seed=0)
    train(engine)
    assert engine.logprobs(sequences, temperature=1.0) != at_first
    engine.load(base)
    assert engine.logprobs(sequences, temperature=1.0) == at_first


def test_the_start_policy_can_be_asked_while_another_is_in_training(
    engine: Engine, base: PolicyRef
):
    del base
    sequences = batch(engine)
    at_first = engine.logprobs(sequences, temperature=1.0)
    engine.begin(OPTIMIZER, seed=0)
    train(engine)
    moved = engine.logprobs(sequences, temperature=1.0)
    for row, expected in zip(
        engine.logprobs(sequences, temperature=1.0, at_start=True), at_first, strict=True
    ):
        assert row == pytest.approx(expected, abs=1e-6)
    assert engine.logprobs(sequences, temperature=1.0) == moved


def test_sampling_and_scoring_between_updates_change_nothing(
    engine: Engine, base: PolicyRef, tmp_path: Path, temperature: float
):
    sequences = batch(engine)
    engine.begin(OPTIMIZER, seed=0)
    for _ in range(3):
        engine.update(sequences, RL, learning_rate=1e-3)
    plain = engine.save_policy(tmp_path / "plain", "plain")
    engine.load(base)
    engine.begin(OPTIMIZER, seed=0)
    for _ in range(3):
        engine.update(sequences, RL, learning_rate=1e-3)
        assert len(sample(engine, last=2)) == 4
        engine.logprobs(sequences, temperature=temperature)
    watched = engine.save_policy(tmp_path / "watched", "watched")
    assert digest(watched.path) == digest(plain.path)


@pytest.mark.parametrize("objective", [RL, SFT], ids=["rl", "sft"])
def test_a_saved_training_continues_to_the_bit(
    kind: str,
    engine: Engine,
    recipe: Recipe,
    base: PolicyRef,
    tmp_path: Path,
    objective: Objective,
):
    sequences = batch(engine)
    engine.begin(OPTIMIZER, seed=7)
    engine.update(sequences, objective, learning_rate=1e-3)
    engine.save_state(tmp_path / "state")
    expected = [engine.update(sequences, objective, learning_rate=5e-4) for _ in range(2)]
    straight = engine.save_policy(tmp_path / "straight", "next")
    other = ENGINES[kind](recipe)
    other.load(base)
    other.begin(OPTIMIZER, seed=7, state=tmp_path / "state")
    resumed = [other.update(sequences, objective, learning_rate=5e-4) for _ in range(2)]
    policy = other.save_policy(tmp_path / "resumed", "next")
    other.close()
    assert resumed == expected
    assert digest(policy.path) == digest(straight.path)


def test_the_restored_policy_can_be_sampled_before_its_next_update(
    engine: Engine, base: PolicyRef, tmp_path: Path
):
    engine.begin(OPTIMIZER, seed=0)
    train(engine)
    engine.save_state(tmp_path / "state")
    expected = sample(engine)
    engine.load(base)
    engine.begin(OPTIMIZER, seed=0, state=tmp_path / "state")
    assert sample(engine) == expected


def test_a_frozen_policy_counts_and_stays(engine: Engine, base: PolicyRef, tmp_path: Path):
    before = sample(engine)
    engine.begin(OptimizerConfig(learning_rate=0.0), seed=0)
    (metrics,) = train(engine, updates=1)
    assert "grad_norm" not in metrics
    assert metrics["loss_tokens_count"] > 0
    assert metrics["trained_sequences_count"] == 0
    assert sample(engine) == before
    engine.save_state(tmp_path / "state")
    engine.load(base)
    engine.begin(OptimizerConfig(learning_rate=0.0), seed=0, state=tmp_path / "state")
    assert sample(engine) == before


def test_a_policy_thinks_of_a_completion_what_it_thought_when_it_wrote_it(
    engine: Engine, base: PolicyRef
):
    del base
    sequences = batch(engine)
    found = engine.logprobs(sequences, temperature=1.0)
    for row, sequence in zip(found, sequences, strict=True):
        assert row == pytest.approx(sequence.behavior_logprobs, abs=1e-5)


def test_logprobs_do_not_depend_on_what_is_scored_beside(
    engine: Engine, base: PolicyRef, temperature: float
):
    del base
    sequences = batch(engine)
    together = engine.logprobs(sequences, temperature=temperature)
    backwards = engine.logprobs(sequences[::-1], temperature=temperature)[::-1]
    alone = [engine.logprobs([one], temperature=temperature)[0] for one in sequences]
    for row, *others in zip(together, backwards, alone, strict=True):
        assert row == pytest.approx(others[0], abs=1e-5)
        assert row == pytest.approx(others[1], abs=1e-5)


def test_logprobs_at_temperature_zero_are_those_at_one(engine: Engine, base: PolicyRef):
    del base
    sequences = batch(engine)
    assert engine.logprobs(sequences, temperature=0.0) == engine.logprobs(
        sequences, temperature=1.0
    )


def test_a_saved_policy_is_held_and_can_be_trained_again(
    engine: Engine, base: PolicyRef, tmp_path: Path
):
    engine.begin(OPTIMIZER, seed=0)
    train(engine)
    policy = engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert policy == PolicyRef(path=tmp_path / "iter-001", name="iter-001")
    assert digest(policy.path) != digest(base.path)
    held = sample(engine)
    engine.load(policy)
    assert sample(engine) == held
    engine.begin(OPTIMIZER, seed=0)
    (metrics,) = train(engine, updates=1)
    assert metrics["grad_norm"] > 0


def test_prompts_that_are_too_long_are_named(engine: Engine, base: PolicyRef, recipe: Recipe):
    del base
    long = replace(PROBLEMS[0], problem_id="toy/long", question="1+" * 2000 + "1=")
    report = engine.renderer.report([*PROBLEMS, long])
    assert list(report.kept) == PROBLEMS
    assert [problem.problem_id for problem, _ in report.too_long] == ["toy/long"]
    assert report.too_long[0][1] > recipe.prompt.max_tokens


def test_an_engine_describes_itself(engine: Engine):
    assert "device" in engine.describe()
