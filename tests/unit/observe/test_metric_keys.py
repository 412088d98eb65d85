"""Names of evaluation metrics."""

from rloop.observe.metric_keys import count_of, headline, in_order, split_key


def test_a_key_is_a_task_and_a_metric_and_nothing_after_it() -> None:
    assert split_key("gsm8k/avg@8") == ("gsm8k", "avg@8")
    assert split_key("file/of/mine/pass@16") == ("file/of/mine", "pass@16")
    assert split_key("two\nlines/pass@16") == ("two\nlines", "pass@16")
    for other in ("gsm8k/pass@8_low", "gsm8k/pass@8_diff_high", "gsm8k/truncated_frac", "pass@8"):
        assert split_key(other) is None, other


def test_average_first_then_pass_by_number_and_not_by_letter() -> None:
    assert in_order(["pass@16", "pass@4", "avg@16"]) == ["avg@16", "pass@4", "pass@16"]


def test_pass_at_1_stands_only_where_there_is_no_average() -> None:
    assert in_order(["pass@8", "pass@1", "avg@8"]) == ["avg@8", "pass@8"]
    assert in_order(["pass@8", "pass@1"]) == ["pass@1", "pass@8"]


def test_headline_is_the_average_and_the_largest_k_once_each() -> None:
    assert headline(["avg@16", "pass@4", "pass@16"]) == ["avg@16", "pass@16"]
    assert headline(["avg@1"]) == ["avg@1"]
    assert headline([]) == []
    assert count_of("pass@16") == 16
