import math
from dataclasses import replace

import pytest
from doubles_records import group_at, place_at

from rloop.store.schema import text_hashes, trajectory_table
from rloop.types import Place, stable_hash


def test_sums_and_lengths_are_of_each_row_also_of_an_empty_one():
    place = place_at(1)
    group = group_at(place, "p/0", [("a", True), ("b", False), ("c", True), ("d", False)])
    logprobs = [(-0.5, -0.25), (), (-1.0,), ()]
    rows = [
        replace(
            row,
            completion=replace(
                row.completion, completion_ids=tuple(range(len(values))), behavior_logprobs=values
            ),
        )
        for row, values in zip(group.trajectories, logprobs, strict=True)
    ]
    table = trajectory_table(place, [replace(group, trajectories=tuple(rows))])
    # -0.5 - 0.25 = -0.75
    assert table["behavior_logprob_sum"].to_pylist() == [-0.75, 0.0, -1.0, 0.0]
    assert table["completion_tokens"].to_pylist() == [2, 0, 1, 0]
    assert table["behavior_logprobs"].to_pylist() == [list(values) for values in logprobs]


def test_a_sum_is_that_of_doubles_though_floats_are_stored():
    place, values = place_at(1), (-0.1,) * 10
    group = group_at(place, "p/0", [("a", True)])
    row = group.trajectories[0]
    completion = replace(row.completion, completion_ids=(1,) * 10, behavior_logprobs=values)
    table = trajectory_table(
        place, [replace(group, trajectories=(replace(row, completion=completion),))]
    )
    assert table["behavior_logprob_sum"].to_pylist() == pytest.approx([-1.0], abs=1e-15)
    assert not math.isclose(sum(table["behavior_logprobs"][0].as_py()), -1.0, abs_tol=1e-9)


def test_hashes_do_not_depend_on_the_machine():
    # blake2b of the empty text with 8 bytes is e4a6a0577479b2b4, read as a little-endian number
    assert text_hashes(["", "a", ""]).tolist()[::2] == [0xB4B2797457A0A6E4] * 2


def test_seeds_are_hashes_of_place_problem_and_member_and_stay_what_they_are():
    place = Place(run="r", seed=3, iteration=2, phase="explore", step=7)
    names = [("a/b", 4), ("a", 4), ("", 0)]
    seeds = list(place.stream_seeds(names))
    assert seeds == [stable_hash(3, 2, "explore", 7, *name) for name in names]
    assert seeds[0] == place.stream_seed("a/b", 4) == 17552862667836423715
