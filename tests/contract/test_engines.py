"""What the loop may rely on, whatever engine is behind the seam."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doubles_policies import InstantVerify, make_problem
from doubles_runs import half_right, scripted, toy_recipe

from rloop.config import Recipe, SamplingConfig
from rloop.config_engine import LoraConfig
from rloop.engines.base import LIVE, Engine, ExploreStep, Verify
from rloop.engines.registry import build_engine
from rloop.types import Example, Group, Place, PolicyRef, Trajectory

if TYPE_CHECKING:
    from doubles_trl import Pair

PROBLEMS = [make_problem(number, answer=str(number + 1)) for number in range(6)]


def on(**engine: object) -> Callable[[Recipe, Verify], Engine]:
    """Build the recipe's engine with other values of its section."""

    def build(recipe: Recipe, verify: Verify) -> Engine:
        changed = recipe.engine.model_copy(update=engine)
        return build_engine(recipe.model_copy(update={"engine": changed}), verify)

    return build


def on_trl_pair(recipe: Recipe, verify: Verify) -> Engine:
    """Build the TRL engine on the two processes that all these tests share."""
    from doubles_trl import Pair

    if not PAIRS:
        PAIRS.append(Pair())
    return PAIRS[0].build(recipe, verify)


PAIRS: "list[Pair]" = []
ENGINES = {
    "scripted": scripted(half_right),
    "native": build_engine,
    "adapters": on(lora=LoraConfig(rank=2, alpha=4)),
    "trl": on(name="trl"),
    "trl-pair": on_trl_pair,
}


@pytest.fixture(scope="module", autouse=True)
def _pairs() -> Iterator[None]:
    yield
    for pair in PAIRS:
        pair.close()


@pytest.fixture(params=list(ENGINES))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("trl"):
        pytest.importorskip("trl", reason="needs TRL (extra trl)")
    return str(request.param)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return toy_recipe(tmp_path)


@pytest.fixture
def engine(kind: str, recipe: Recipe) -> Iterator[Engine]:
    engine = ENGINES[kind](recipe, InstantVerify())
    yield engine
    engine.close()


@pytest.fixture
def base(engine: Engine, recipe: Recipe, tmp_path: Path) -> PolicyRef:
    return engine.prepare(recipe.policy.path, tmp_path / "base", seed=recipe.seed)


PLACE = Place(run="toy", seed=0, iteration=1, phase="explore", policy="explored-001")
HELD_OUT = Place(run="toy", seed=0, iteration=1, phase="evaluate", policy="iter-001")


def explore(engine: Engine, start: PolicyRef, steps: int = 4) -> list[ExploreStep]:
    return list(engine.explore(start, PROBLEMS, PLACE, num_steps=steps))


def written(groups: list[Group] | tuple[Group, ...]) -> dict[tuple[str, int], tuple[int, ...]]:
    return {
        (t.problem.problem_id, t.member): t.completion.completion_ids
        for group in groups
        for t in group.trajectories
    }


def every_trajectory(steps: list[ExploreStep]) -> list[Trajectory]:
    return [t for step in steps for group in step.groups for t in group.trajectories]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_exploration_yields_every_step_whole(engine: Engine, base: PolicyRef):
    steps = explore(engine, base)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert [len(group.trajectories) for group in step.groups] == [4, 4, 4]
        assert len({group.problem.problem_id for group in step.groups}) == 3
        tokens = sum(len(t.completion.completion_ids) for t in every_trajectory([step]))
        assert step.metrics["sampled_tokens_count"] == tokens
        rewards = [t.reward for t in every_trajectory([step])]
        assert step.metrics["reward_mean"] == pytest.approx(sum(rewards) / len(rewards))


def test_a_trajectory_says_where_it_comes_from(engine: Engine, base: PolicyRef):
    for step in explore(engine, base, steps=2):
        for group in step.groups:
            assert [t.member for t in group.trajectories] == [0, 1, 2, 3]
            for t in group.trajectories:
                assert t.place == replace(PLACE, step=step.step)
                assert t.group_id.endswith(t.problem.problem_id)
                assert len(t.completion.behavior_logprobs) == len(t.completion.completion_ids)
                assert max(t.completion.behavior_logprobs) <= 0
                assert t.reward == float(t.verdict.is_correct)


def test_exploration_leaves_the_start_policy_alone(engine: Engine, base: PolicyRef):
    before = digest(base.path)
    explore(engine, base)
    assert digest(base.path) == before


def test_the_same_seed_gives_the_same_trajectories(
    kind: str, engine: Engine, recipe: Recipe, base: PolicyRef, tmp_path: Path
):
    other = ENGINES[kind](recipe, InstantVerify())
    again = other.prepare(recipe.policy.path, tmp_path / "again", seed=recipe.seed)
    first, second = explore(engine, base), explore(other, again)
    other.close()
    assert [written(step.groups) for step in first] == [written(step.groups) for step in second]


def test_sampling_answers_every_problem_once_and_judged(engine: Engine, base: PolicyRef):
    groups = list(engine.sample(base, PROBLEMS, 3, HELD_OUT))
    assert sorted(group.problem.problem_id for group in groups) == [
        problem.problem_id for problem in PROBLEMS
    ]
    for group in groups:
        assert [t.member for t in group.trajectories] == [0, 1, 2]
        assert all(t.verdict.verifier_version == "test/1" for t in group.trajectories)
        assert all(t.place == HELD_OUT for t in group.trajectories)


def test_other_sampling_settings_than_the_recipes_are_followed(engine: Engine, base: PolicyRef):
    settings = SamplingConfig(max_completion_tokens=3, temperature=0.5)
    (group,) = engine.sample(base, PROBLEMS[:1], 3, HELD_OUT, settings)
    assert {t.temperature for t in group.trajectories} == {0.5}


def test_a_problem_sampled_alone_gives_the_same_completions(engine: Engine, base: PolicyRef):
    together = written(list(engine.sample(base, PROBLEMS, 3, HELD_OUT)))
    alone = written(list(engine.sample(base, PROBLEMS[2:3], 3, HELD_OUT)))
    assert alone.items() <= together.items()


def test_the_policy_in_training_can_be_sampled_between_steps(engine: Engine, base: PolicyRef):
    plain = [written(step.groups) for step in explore(engine, base)]
    watched = []
    for step in engine.explore(base, PROBLEMS, PLACE, num_steps=4):
        watched.append(written(step.groups))
        assert len(list(engine.sample(LIVE, PROBLEMS[:2], 2, HELD_OUT))) == 2
    assert watched == plain


def test_a_saved_exploration_continues_to_the_bit(
    kind: str, engine: Engine, recipe: Recipe, base: PolicyRef, tmp_path: Path
):
    straight = explore(engine, base)
    steps = engine.explore(base, PROBLEMS, PLACE, num_steps=4)
    next(steps)
    next(steps)
    engine.save_state(tmp_path / "state")
    other = ENGINES[kind](recipe, InstantVerify())
    resumed = list(
        other.explore(base, PROBLEMS, PLACE, num_steps=4, resume_from=tmp_path / "state")
    )
    other.close()
    assert [step.step for step in resumed] == [3, 4]
    expected = [written(step.groups) for step in straight[2:]]
    assert [written(step.groups) for step in resumed] == expected


def test_the_restored_policy_can_be_sampled_before_its_next_step(
    engine: Engine, base: PolicyRef, tmp_path: Path
):
    steps = engine.explore(base, PROBLEMS, PLACE, num_steps=4)
    next(steps)
    next(steps)
    expected = written(list(engine.sample(LIVE, PROBLEMS, 2, HELD_OUT)))
    engine.save_state(tmp_path / "state")
    engine.explore(base, PROBLEMS, PLACE, num_steps=4, resume_from=tmp_path / "state")
    assert written(list(engine.sample(LIVE, PROBLEMS, 2, HELD_OUT))) == expected


def sampled(engine: Engine, base: PolicyRef) -> tuple[list[Example], list[tuple[float, ...]]]:
    """Return what the policy wrote in the first step, and what the sampler thought of it."""
    trajectories = every_trajectory(explore(engine, base, steps=1))
    examples = [
        Example(
            problem_id=t.problem.problem_id,
            prompt_ids=t.completion.prompt_ids,
            completion_ids=t.completion.completion_ids,
        )
        for t in trajectories
    ]
    return examples, [t.completion.behavior_logprobs for t in trajectories]


def test_a_policy_thinks_of_a_completion_what_it_thought_when_it_wrote_it(
    engine: Engine, base: PolicyRef
):
    examples, behavior = sampled(engine, base)
    found = engine.logprobs(base, examples, temperature=1.0)
    assert [len(row) for row in found] == [len(e.completion_ids) for e in examples]
    for row, expected in zip(found, behavior, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_logprobs_do_not_depend_on_what_is_scored_beside(engine: Engine, base: PolicyRef):
    examples, _ = sampled(engine, base)
    together = engine.logprobs(base, examples, temperature=0.7)
    backwards = engine.logprobs(base, examples[::-1], temperature=0.7)[::-1]
    alone = [engine.logprobs(base, [e], temperature=0.7)[0] for e in examples]
    for row, *others in zip(together, backwards, alone, strict=True):
        assert row == pytest.approx(others[0], abs=1e-5)
        assert row == pytest.approx(others[1], abs=1e-5)


def test_logprobs_at_temperature_zero_are_those_at_one(engine: Engine, base: PolicyRef):
    examples, _ = sampled(engine, base)
    assert engine.logprobs(base, examples, temperature=0.0) == engine.logprobs(
        base, examples, temperature=1.0
    )


def test_the_policy_in_training_can_be_asked_for_logprobs_between_steps(
    engine: Engine, base: PolicyRef
):
    examples, _ = sampled(engine, base)
    plain = [written(step.groups) for step in explore(engine, base)]
    watched, seen = [], []
    for step in engine.explore(base, PROBLEMS, PLACE, num_steps=4):
        watched.append(written(step.groups))
        seen.append(engine.logprobs(LIVE, examples, temperature=1.0))
    assert watched == plain
    assert seen[-1] != engine.logprobs(base, examples, temperature=1.0)


def test_fine_tuning_makes_a_policy_that_can_be_started_from(
    engine: Engine, base: PolicyRef, tmp_path: Path
):
    examples = [
        Example(problem_id="toy/0", prompt_ids=(5, 6), completion_ids=(7, 2)) for _ in range(8)
    ]
    place = Place(run="toy", seed=0, iteration=1, phase="finetune", policy="iter-001")
    updates = list(engine.fine_tune(base, examples, place))
    assert [update.step for update in updates] == list(range(1, updates[0].num_steps + 1))
    assert all("loss_mean" in update.metrics for update in updates)
    policy = engine.save_policy(tmp_path / "iter-001", "iter-001")
    assert policy == PolicyRef(path=tmp_path / "iter-001", name="iter-001")
    assert len(explore(engine, policy, steps=1)) == 1
    assert digest(policy.path) != digest(base.path)


EXAMPLES = [
    Example(problem_id=f"toy/{n}", prompt_ids=(5, 6 + n), completion_ids=(7 + n, 8, 2))
    for n in range(6)
]
TUNE = Place(run="toy", seed=0, iteration=1, phase="finetune", policy="iter-001")


def test_a_saved_fine_tuning_continues_to_the_bit(
    kind: str, engine: Engine, recipe: Recipe, base: PolicyRef, tmp_path: Path
):
    updates = engine.fine_tune(base, EXAMPLES, TUNE)
    next(updates)
    engine.save_state(tmp_path / "state")
    expected = [(update.step, update.metrics["loss_mean"]) for update in updates]
    straight = engine.save_policy(tmp_path / "straight", "iter-001")
    other = ENGINES[kind](recipe, InstantVerify())
    resumed = [
        (update.step, update.metrics["loss_mean"])
        for update in other.fine_tune(base, EXAMPLES, TUNE, resume_from=tmp_path / "state")
    ]
    policy = other.save_policy(tmp_path / "resumed", "iter-001")
    other.close()
    assert expected
    assert expected[0][0] == 2
    assert resumed == expected
    assert digest(policy.path) == digest(straight.path)


def test_a_fine_tuning_has_begun_when_it_was_asked_for(engine: Engine, base: PolicyRef):
    expected = written(list(engine.sample(base, PROBLEMS[:2], 2, HELD_OUT)))
    updates = engine.fine_tune(base, EXAMPLES, TUNE)
    assert written(list(engine.sample(LIVE, PROBLEMS[:2], 2, HELD_OUT))) == expected
    assert next(updates).step == 1


def test_a_fine_tuning_saved_after_its_last_update_is_only_written(
    engine: Engine, base: PolicyRef, tmp_path: Path
):
    assert list(engine.fine_tune(base, EXAMPLES, TUNE))
    engine.save_state(tmp_path / "state")
    straight = engine.save_policy(tmp_path / "straight", "iter-001")
    assert list(engine.fine_tune(base, EXAMPLES, TUNE, resume_from=tmp_path / "state")) == []
    policy = engine.save_policy(tmp_path / "resumed", "iter-001")
    assert digest(policy.path) == digest(straight.path)


def test_prompts_that_are_too_long_are_named(engine: Engine, base: PolicyRef, recipe: Recipe):
    long = replace(PROBLEMS[0], problem_id="toy/long", question="1+" * 2000 + "1=")
    report = engine.fit_prompts(base, [*PROBLEMS, long])
    assert list(report.kept) == PROBLEMS
    assert [problem.problem_id for problem, _ in report.too_long] == ["toy/long"]
    assert report.too_long[0][1] > recipe.prompt.max_tokens


def test_nothing_skipped_is_nothing_to_save(engine: Engine, base: PolicyRef, tmp_path: Path):
    assert engine.save_skipped(tmp_path / "none", PLACE) is None
    explore(engine, base, steps=2)
    assert engine.save_skipped(tmp_path / "none", PLACE) is None
    assert not list(tmp_path.glob("none*"))


def test_an_engine_describes_itself(engine: Engine):
    assert "device" in engine.describe()
