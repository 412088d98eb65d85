import re
from dataclasses import replace

import numpy as np
import pytest

from rloop.evaluation.checkpoints import Checkpoint
from rloop.evaluation.overfitting import (
    Overfitting,
    Rewards,
    overfitting_verdict,
    reward_change,
)
from rloop.report.conclusions import overfitting_sentence

RISING_STEPS = {(1, step): 0.2 + 0.004 * step + 0.01 * (step % 2) for step in range(1, 101)}
FLAT_STEPS = {(1, step): 0.4 + 0.01 * (step % 2) for step in range(1, 101)}
RISING = Rewards(by_step=RISING_STEPS, first_steps={})
FLAT = Rewards(by_step=FLAT_STEPS, first_steps={})


def at(step: int, num_solved: int, *, iteration: int = 1, num_problems: int = 100) -> Checkpoint:
    """RL's weights at a step, the base at step 0; the first `num_solved` problems are solved."""
    return Checkpoint(
        task="gsm8k",
        policy=f"explored-{iteration:03d}" if step else "base",
        iteration=iteration if step else 0,
        step=step,
        num_samples=8,
        counts={f"gsm8k/test/{i:03d}": 8 * (i < num_solved) for i in range(num_problems)},
    )


def verdict(rewards, *solved: tuple[int, int], k: int = 8) -> Overfitting:
    return overfitting_verdict(rewards, [at(*each) for each in solved], k, seed=0)


def test_a_fall_while_the_reward_rises_is_overfitting_since_the_best_checkpoint():
    found = verdict(RISING, (0, 60), (20, 90), (60, 88), (100, 70))
    assert found.kind == "overfits"
    assert (found.path[found.best].step, found.values) == (20, (0.6, 0.9, 0.88, 0.7))
    assert found.fall is not None
    assert found.fall.value == pytest.approx(-0.2)
    # steps 21 to 100: the first 20 have the mean 0.2 + 0.004 * 30.5 + 0.005 = 0.327, the last 20
    # 0.2 + 0.004 * 90.5 + 0.005 = 0.567
    assert found.reward is not None
    assert found.reward.before == pytest.approx(0.327)
    assert found.reward.after == pytest.approx(0.567)
    assert re.fullmatch(
        r"Held-out pass@8 on gsm8k fell from 90\.0 % at step 20 to 70\.0 % at step 100 "
        r"\(-20\.0 points \[-29\.\d, -10\.\d\], over 99\.9 % sure\) while the training reward "
        r"rose from 0\.33 to 0\.57: the policy overfits from step 20 on\.",
        overfitting_sentence(found),
    )


def test_a_fall_of_both_is_a_loss_but_not_overfitting():
    found = verdict(FLAT, (0, 60), (20, 90), (100, 70))
    assert found.kind == "falls"
    assert "did not clearly rise meanwhile (0.41 to 0.41, +0.00 [" in overfitting_sentence(found)
    assert overfitting_sentence(found).endswith("a loss, but not overfitting.")


def test_a_fall_over_few_rl_steps_leaves_the_reward_open():
    found = verdict(RISING, (0, 60), (95, 90), (100, 70))
    assert (found.kind, found.reward) == ("falls", None)
    assert "fewer than 6 RL steps lie between" in overfitting_sentence(found)


def test_a_fall_within_chance_holds():
    # 2 of 100 problems lost: an error of about 1.4 points
    found = verdict(RISING, (0, 70), (20, 72), (100, 70))
    assert found.kind == "holds"
    assert overfitting_sentence(found).startswith(
        "Held-out pass@8 on gsm8k went from 70.0 % at the start (base) to 70.0 % at step 100 (+0.0"
    )
    assert "the best was 72.0 % at step 20, a difference (-2.0 points [" in overfitting_sentence(
        found
    )


def test_a_rise_is_said_to_be_one():
    found = verdict(RISING, (0, 40), (50, 60), (100, 80))
    assert found.kind == "rises"
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.4)
    assert overfitting_sentence(found).endswith("over 99.9 % sure); no measurement was higher.")


def test_of_equal_best_checkpoints_the_fall_begins_at_the_latest():
    found = verdict(RISING, (0, 90), (20, 90), (60, 90), (100, 70))
    assert found.path[found.best].step == 60


def test_a_fall_from_the_start_names_the_start():
    assert "from the start (base) on." in overfitting_sentence(
        verdict(RISING, (0, 90), (50, 80), (100, 60))
    )


def test_a_later_iteration_is_named():
    path = [at(0, 60), at(20, 90, iteration=2), at(100, 70, iteration=2)]
    steps = {(2, step): value for (_, step), value in RISING_STEPS.items()}
    rewards = Rewards(by_step=steps, first_steps={})
    assert "overfits from step 20 of iteration 2 on." in (
        overfitting_sentence(overfitting_verdict(rewards, path, 8, seed=0))
    )


def test_rewards_of_other_iterations_do_not_count():
    others = {(2, step): 0.0 for step in range(1, 50)} | {(1, 200): 0.0}
    rewards = Rewards(by_step=RISING_STEPS | others, first_steps={1: (0.9,) * 8})
    path = ((0, 60), (20, 90), (100, 70))
    assert verdict(rewards, *path) == verdict(RISING, *path)


def test_two_measurements_are_too_few_and_the_remedy_is_named():
    found = verdict(RISING, (0, 60), (100, 70))
    assert (found.kind, found.values) == ("too few", ())
    assert overfitting_sentence(found) == (
        "Held-out pass@8 on gsm8k was measured only at the start (base) and step 100, too few "
        "times to say since when it falls: set evaluate.every to 10."  # 100 steps / 10
    )


def test_few_problems_are_too_few():
    path = [at(step, 3, num_problems=7) for step in (0, 50, 100)]
    found = overfitting_verdict(RISING, path, 8, seed=0)
    assert found.kind == "too few"
    assert "has 7 problems that all 3 measurements share, fewer than the 8" in overfitting_sentence(
        found
    )


def test_only_problems_that_all_checkpoints_have_count():
    path = [at(0, 60), at(20, 90, num_problems=90), at(100, 70)]
    found = overfitting_verdict(RISING, path, 8, seed=0)
    assert (found.num_problems, found.values[found.best]) == (90, 1.0)


def test_a_verdict_does_not_depend_on_how_problems_are_ordered():
    path = [at(0, 60), at(20, 90), at(100, 70)]
    turned = [
        Checkpoint(
            task=c.task,
            policy=c.policy,
            iteration=c.iteration,
            step=c.step,
            num_samples=c.num_samples,
            counts=dict(reversed(list(c.counts.items()))),
        )
        for c in path
    ]
    first = overfitting_verdict(RISING, path, 8, seed=0)
    assert overfitting_verdict(RISING, turned, 8, seed=0).fall == first.fall


def test_k_beyond_the_samples_is_refused():
    with pytest.raises(ValueError, match="pass@16 needs at least 16 samples per problem, got 8"):
        verdict(RISING, (0, 60), (20, 90), (100, 70), k=16)


def change(by_step, first: int, last: int):
    rewards = Rewards(by_step=by_step, first_steps={})
    return reward_change(rewards, at(first, 0), at(last, 0), confidence=0.95)


def test_the_change_of_the_reward_equals_a_value_worked_by_hand():
    values = (0.9, 0.1, 0.2, 0.3, 0.0, 0.0, 0.5, 0.6, 0.7)
    found = change({(1, step): value for step, value in enumerate(values, start=1)}, 1, 9)
    assert found is not None
    # after step 1: the first three of eight have the mean 0.2, the last three 0.6, variances 0.01;
    # error sqrt(0.02 / 3) = 0.081650, Welch's df (0.02 / 3)^2 / (2 (0.01 / 3)^2 / 2) = 4,
    # t(0.975; 4) = 2.776445: half = 0.226696
    assert [found.before, found.after] == pytest.approx([0.2, 0.6])
    assert [found.change.low, found.change.high] == pytest.approx([0.173304, 0.626696], abs=1e-5)


def test_a_reward_that_only_wobbles_seldom_seems_to_rise():
    """300 runs of 40 steps of noise: a rise is due in 2.5 %; more than 15 has a chance of 1 %."""
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        steps = {(1, step): 0.5 + 0.05 * rng.standard_normal() for step in range(1, 41)}
        found = change(steps, 0, 40)
        alarms += found is not None and found.change.low > 0
    assert alarms <= 15


def kept(*solved: int) -> list[Checkpoint]:
    """The base and the policies kept after each iteration."""
    path = [at(0, number) for number in solved]
    names = ["base", *(f"iter-{i:03d}" for i in range(1, len(solved)))]
    return [
        replace(c, policy=name, iteration=i)
        for i, (c, name) in enumerate(zip(path, names, strict=True))
    ]


def ramps(*first_steps: float) -> Rewards:
    """Explorations that each rise from 0.15 to 0.40; groups of their first steps, 16 each."""
    steps = {
        (iteration, step): 0.15 + 0.25 * step / 25
        for iteration in range(1, len(first_steps) + 1)
        for step in range(1, 26)
    }
    wobble = [-0.05, 0.05] * 8
    groups = {i: [mean + w for w in wobble] for i, mean in enumerate(first_steps, start=1)}
    return Rewards(by_step=steps, first_steps=groups)


def test_policies_kept_are_not_judged_by_rewards_of_weights_that_were_thrown_away():
    """Every exploration climbs, no policy that is kept begins its exploration any higher."""
    found = overfitting_verdict(ramps(0.15, 0.15, 0.15), kept(90, 88, 80, 70), 8, seed=0)
    assert found.kind == "falls"
    assert found.reward is not None
    assert (found.reward.before, found.reward.after) == pytest.approx((0.15, 0.15))
    assert "the training reward of the policies kept did not clearly rise" in overfitting_sentence(
        found
    )


def test_policies_kept_overfit_when_they_begin_their_explorations_better_and_hold_less():
    found = overfitting_verdict(ramps(0.15, 0.25, 0.35), kept(90, 88, 80, 70), 8, seed=0)
    assert found.kind == "overfits"
    # the base wrote iteration 1's first step, iter-002 that of iteration 3; iter-003 explored none
    assert found.reward is not None
    assert (found.reward.before, found.reward.after) == pytest.approx((0.15, 0.35))
    # two sides of 16 groups +-.05: s^2 = .0025 * 16 / 15, error sqrt(2 s^2 / 16) = .018257,
    # t(30) = 2.042272: half = .037286
    assert found.reward.change.low == pytest.approx(0.2 - 0.037286, abs=1e-5)


def test_rewards_since_the_best_policy_alone_count():
    """iter-001 is the best; iter-001 and iter-002 begin alike, whatever the base earned."""
    found = overfitting_verdict(ramps(0.05, 0.3, 0.3), kept(80, 95, 80, 70), 8, seed=0)
    assert found.reward is not None
    assert found.kind == "falls"
    assert (found.reward.before, found.reward.after) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize(
    "rewards",
    [
        ramps(0.15),  # one exploration: no second policy wrote a first step
        Rewards(by_step=ramps(0.15, 0.25).by_step, first_steps={}),  # they do not compare
        Rewards(by_step={}, first_steps={1: [0.1, 0.2], 2: [0.4, 0.5]}),  # two groups each
    ],
)
def test_without_rewards_that_kept_policies_earned_a_fall_is_not_called_overfitting(rewards):
    found = overfitting_verdict(rewards, kept(90, 80, 70), 8, seed=0)
    assert (found.kind, found.reward) == ("falls", None)
    assert "is not known" in overfitting_sentence(found)
