"""Which problems come next: epochs, weights, and continuing a saved order."""

from collections import Counter

import numpy as np
from doubles_policies import make_problem

from rloop.algo.order import ProblemOrder
from rloop.types import Place, Problem, stable_hash

PROBLEMS = [make_problem(number) for number in range(10)]
PLACE = Place(run="test", seed=3, iteration=1, phase="explore")


def ids(problems: list[Problem]) -> list[str]:
    return [problem.problem_id for problem in problems]


def test_every_problem_comes_once_an_epoch_in_an_order_of_its_own():
    order = ProblemOrder(PROBLEMS, PLACE)
    first, second = ids(order.draw(10)), ids(order.draw(10))
    assert sorted(first) == sorted(second) == ids(PROBLEMS)
    assert first != second


def test_a_saved_order_continues():
    straight, resumed = ProblemOrder(PROBLEMS, PLACE), ProblemOrder(PROBLEMS, PLACE)
    straight.draw(7)
    resumed.drawn = straight.drawn
    assert ids(straight.draw(8)) == ids(resumed.draw(8))


def test_a_draw_excludes_and_never_repeats():
    order = ProblemOrder(PROBLEMS, PLACE)
    excluded = set(ids(PROBLEMS[:6]))
    assert sorted(ids(order.draw(9, exclude=excluded))) == ids(PROBLEMS[6:])
    assert order.draw(3, exclude=ids(PROBLEMS)) == []


def test_weights_decide_how_often_a_problem_comes():
    """Weight 9 against 1 each: about 1/2 of 400 draws; 5 standard deviations are 50."""
    weights = dict.fromkeys(ids(PROBLEMS), 1.0) | {PROBLEMS[0].problem_id: 9.0}
    order = ProblemOrder(PROBLEMS, PLACE, weights)
    counts = Counter(ids([order.draw(1)[0] for _ in range(400)]))
    assert abs(counts[PROBLEMS[0].problem_id] - 200) < 50


def test_weighted_draws_are_those_of_numpys_choice():
    weights = {id_: 1.0 + number for number, id_ in enumerate(ids(PROBLEMS))}
    order = ProblemOrder(PROBLEMS, PLACE, weights)
    p = np.arange(1, 11) / 55
    seeds = [stable_hash(3, 1, "explore", "order", number) for number in range(50)]
    expected = [int(np.random.default_rng(seed).choice(10, p=p)) for seed in seeds]
    assert [ids(order.draw(1))[0] for _ in range(50)] == [ids(PROBLEMS)[i] for i in expected]
