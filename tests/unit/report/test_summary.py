import json
from typing import Any

import pytest

from rloop.observe.metric_keys import flatten
from rloop.report.summary import describe_method, describe_state, early_stops, facts
from rloop.run_directory import read_run


@pytest.fixture
def config(finished_run) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((finished_run / "config.json").read_text())
    return config


def test_rloop_is_told_in_short_sentences(config) -> None:
    assert describe_method(config) == (
        "RLoop: 2 iterations. Each is 20 RL steps (16 prompts x 8 completions, loss dapo), then "
        "2 epochs of fine-tuning. Fine-tuning starts from the weights that the iteration began "
        "with and learns from the correct completions. Problems solved more than 75 % of the time "
        "are left out, at most 4 completions a problem are kept."
    )


@pytest.mark.parametrize(
    ("init", "learning_rate", "name"),
    [
        ("iteration_start", 1e-6, "RLoop"),
        ("base", 1e-6, "RLoop, fine-tuned from the base"),
        ("explored", 1e-6, "RLoop without the reset"),
        ("iteration_start", 0, "RAFT"),
        ("base", 0, "ReST-EM"),
    ],
)
def test_switches_name_the_method(config, init: str, learning_rate: float, name: str) -> None:
    config["finetune"]["init"] = init
    config["explore"]["optimizer"]["learning_rate"] = learning_rate
    assert describe_method(config).startswith(f"{name}: 2 iterations")


def test_plain_rl_and_a_cold_start_are_told(config) -> None:
    config |= {"expert": None, "finetune": None, "iterations": 1}
    assert describe_method(config).startswith("Plain RL: 1 iteration. It is 20 RL steps (")
    config["finetune"] = {"epochs": 1, "init": "base"}
    config["coldstart"] = {"epochs": 1}
    assert describe_method(config).startswith("A cold start on worked solutions comes first. RLoop")


def test_replay_is_told(config) -> None:
    config |= {"expert": None, "finetune": None}
    config["explore"] |= {"replay_per_group": 2}
    text = describe_method(config)
    assert text.startswith("RL with replay: 2 iterations. Each is ")
    assert (
        "Each starts from the base; from the second on, 2 stored successes join each group." in text
    )
    assert text.endswith("the RL weights are the result.")


def test_an_early_stop_is_told_with_its_reason(build_run) -> None:
    run_dir = build_run()
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["phases"]["2/explore"] = {"steps": 14, "early_stop": "entropy 0.04 is below 0.05"}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    assert early_stops(read_run(run_dir)) == [
        "Exploration 2 ended early at step 14: entropy 0.04 is below 0.05."
    ]


def test_a_finished_run_is_complete_and_its_facts_are_listed(finished_run) -> None:
    record = read_run(finished_run)
    assert describe_state(record) == "Complete."
    listed = dict(facts(record))
    assert listed["Sampled in RL"] == "160 k tokens in 40 steps"  # 40 x 4000
    assert (listed["Model"], listed["Device"]) == ("package:smollm2", "cpu (x86_64, 2 cores)")
    assert (listed["Commit"], listed["Versions"]) == ("cdf72f9", "rloop 0.1.0, torch 2.13.0")


def test_nested_values_get_dotted_keys_and_a_plain_list_stays_one() -> None:
    nested = {"a": {"b": 1, "c": None}, "d": [2, 3], "e": [{"f": 4}], "g": {}}
    assert flatten(nested) == {"a.b": 1, "a.c": None, "d": [2, 3], "e.0.f": 4, "g": {}}
