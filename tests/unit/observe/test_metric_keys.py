"""Names of evaluation metrics."""

from rloop.observe.metric_keys import best_policy, headline, in_order, split_key


def test_a_key_is_a_task_and_a_metric_and_nothing_after_it() -> None:
    assert split_key("gsm8k/avg@8") == ("gsm8k", "avg@8")
    assert split_key("file/of/mine/pass@16") == ("file/of/mine", "pass@16")
    assert split_key("two\nlines/pass@16") == ("two\nlines", "pass@16")
    for other in ("gsm8k/pass@8_low", "gsm8k/pass@8_diff_high", "gsm8k/truncated_frac", "pass@8"):
        assert split_key(other) is None, other


def test_average_and_majority_come_before_pass_and_cover_by_number_and_not_by_letter() -> None:
    ordered = ["avg@16", "maj@16", "pass@4", "pass@16", "cover@0.25", "cover@0.5", "cover@1"]
    assert in_order(sorted(ordered)) == ordered
    assert [split_key(f"gsm8k/{metric}") for metric in ordered] == [("gsm8k", m) for m in ordered]


def test_pass_at_1_stands_only_where_there_is_no_average() -> None:
    assert in_order(["pass@8", "pass@1", "avg@8"]) == ["avg@8", "pass@8"]
    assert in_order(["pass@8", "pass@1"]) == ["pass@1", "pass@8"]


def test_headline_is_the_average_and_the_largest_k_once_each() -> None:
    ordered = ["avg@16", "maj@16", "pass@4", "pass@16", "cover@0.5"]
    assert headline(ordered) == ["avg@16", "pass@16"]
    assert headline(["avg@1"]) == ["avg@1"]
    assert headline([]) == []


def test_the_best_policy_is_that_of_the_measure_which_the_recipe_names() -> None:
    lines = [
        {"policy": "base", "evaluate/a/avg@4": 0.9, "evaluate/b/avg@4": None},
        {"policy": "iter-001", "evaluate/a/avg@4": 0.3, "evaluate/b/avg@4": 0.5},  # 0.4
        {"policy": "iter-002", "evaluate/a/avg@4": 0.6, "evaluate/b/avg@4": 0.2},  # 0.4
        {"policy": "gone", "evaluate/a/avg@4": 1.0, "evaluate/b/avg@4": 1.0},
    ]
    lines[2] |= {"evaluate/a/pass@1": 0.6, "evaluate/a/pass@16": 0.9}
    lines[1] |= {"evaluate/a/pass@1": 0.7, "evaluate/a/pass@16": 0.8}
    there = ["iter-001", "iter-002"]
    assert best_policy(lines, there, "avg") == "iter-001"  # the first of equals
    assert best_policy(lines, there, "a/avg") == "iter-002"
    assert best_policy(lines, there, "pass@1") == "iter-001"
    assert best_policy(lines, there, "a/pass@16") == "iter-002"
    assert best_policy(lines, ["base", *there], "b/avg") == "iter-001"
    assert best_policy(lines, [], "avg") is None
