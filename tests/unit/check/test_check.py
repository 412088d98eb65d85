"""`rloop check`: problems counted, references judged, warnings where the machine is too small."""

import json
import re
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from rloop.check.recipe import check_recipe
from rloop.errors import ConfigError, EngineUnavailable, RLoopError, TaskError
from rloop.recipe.config import Recipe


@pytest.fixture
def values(tmp_path):
    """A recipe on two files: five training problems, one twice and one held out; two held out."""

    def write(name, sums):
        rows = [{"id": str(i), "problem": f"{s}=", "answer": str(a)} for i, (s, a) in sums]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"source": f"file:{path}", "name": name, "verifier": "numeric"}

    train = [("1+1", 2), ("1+2", 3), ("1+1", 2), ("2+2", 4), ("5+5", 10)]
    rate = {"learning_rate": 1e-6}
    return {
        "name": "small",
        "seed": 0,
        "iterations": 1,
        "policy": {"path": "random:llama"},
        "tasks": {
            "train": [write("train", enumerate(train))],
            "evaluate": [write("held-out", enumerate([("5+5", 10), ("7+7", 14)]))],
        },
        "explore": {
            "steps": 3,
            "prompts_per_step": 2,
            "group_size": 4,
            "sampling": {"max_completion_tokens": 10},
            "optimizer": rate,
        },
        "expert": {"max_success_rate": 0.5},
        "finetune": {"epochs": 1, "batch_size": 4, "optimizer": rate},
        "evaluate": {
            "samples": 4,
            "k": [4],
            "temperatures": [],
            "sampling": {"max_completion_tokens": 10},
        },
    }


def test_duplicates_overlap_and_references_are_counted(values, tmp_path):
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    text = "\n".join(report.problems)
    assert "train/train: 5 read, 1 duplicates removed, 4 taken" in text
    assert "left out of training because held-out holds them out: 1 of train" in text
    assert "in all 3 problems to train on, 2 held out" in text
    assert "5 of 5 reference answers judged correct" in text
    named = {row.name: row.value for row in report.demands}
    # 3 steps x 2 prompts / 3 problems; 2 held-out problems x 4 samples
    assert named["passes over the training problems"] == 2.0
    assert named["completions per evaluation"] == 8


def test_a_reference_that_is_not_judged_correct_stops_or_is_left_out(values, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text().replace('"answer": "4"', r'"answer": "\\frac{1}{4"'))
    with pytest.raises(TaskError, match="1 of 5 problems are not judged as they should be"):
        check_recipe(Recipe.model_validate(values), tmp_path)
    values["tasks"]["bad_references"] = "drop"
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    named = {row.name: row.value for row in report.demands}
    assert named["passes over the training problems"] == 3.0  # 6 prompts / 2 problems


def unreachable(name, config, split):
    raise TaskError(f"hub:{name} cannot be read") from ConnectionError("no network")


def test_a_hub_out_of_reach_is_a_warning_and_the_rest_is_multiplied_out(
    values, tmp_path, monkeypatch
):
    monkeypatch.setattr("rloop.tasks.sources.read_hub_rows", unreachable)
    values["tasks"]["train"].append({"source": "hub:some/set", "name": "far"})
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    named = {row.name: row.value for row in report.demands}
    assert "tasks.train.1: hub:some/set cannot be read; not counted below." in report.warnings
    assert "passes over the training problems" not in named
    assert named["completions per evaluation"] == 8  # 2 held-out problems x 4 samples
    assert "6 of 6 reference answers judged correct" in report.problems  # 4 in train, 2 held out


def test_a_task_that_is_wrong_is_no_matter_of_reach(values, tmp_path):
    values["tasks"]["train"].append({"source": "file:absent.jsonl", "name": "far"})
    with pytest.raises(TaskError, match=r"absent\.jsonl"):
        check_recipe(Recipe.model_validate(values), tmp_path)


def test_a_model_that_is_not_here_is_said_so(values, tmp_path):
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert report.warnings == (
        "random:llama is tiny and made at the start; its memory is not estimated.",
    )
    values["policy"]["path"] = "nobody/no-such-model-here"
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert "the files of nobody/no-such-model-here are not on this machine" in report.warnings[0]


@pytest.mark.parametrize("path", ["./nope", "../no/model", "/tmp/no-model-here", "a/b/c", "nope"])
def test_a_path_that_is_nothing_here_is_refused_as_the_run_would(values, tmp_path, path):
    values["policy"]["path"] = path
    with pytest.raises(ConfigError, match=r"^policy.path '.*' does not exist. Give a Hugging Face"):
        check_recipe(Recipe.model_validate(values), tmp_path)


def test_a_sampler_that_is_not_installed_is_a_warning(values, tmp_path, monkeypatch):
    values["explore"]["sampler"] = "vllm"
    monkeypatch.setattr("rloop.check.recipe.find_spec", lambda _: None)
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert report.warnings[0].startswith("explore.sampler is vllm, which is not installed here")
    monkeypatch.setattr("rloop.check.recipe.find_spec", lambda _: object())
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert not any("vllm" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("name", "content"),
    [("m.gguf", b"nope"), ("m/config.json", b"{"), ("m/model.safetensors", b"")],
)
def test_a_model_whose_files_are_damaged_is_a_warning(values, tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    (path.parent / "config.json").write_text("{}")
    path.write_bytes(content)
    values["policy"]["path"] = str(path if path.suffix == ".gguf" else path.parent)
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert f"the size of {values['policy']['path']} is unknown" in report.warnings[0]


def test_what_the_recipe_itself_warns_of_comes_first(values, tmp_path):
    values["explore"]["sampling"]["top_p"] = 0.9
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert "top_p=0.9" in report.warnings[0]


def test_a_cold_start_leaves_held_out_problems_out_and_needs_solutions(values, tmp_path):
    rate = {"learning_rate": 1e-3}
    task = {"source": values["tasks"]["train"][0]["source"], "name": "c", "verifier": "numeric"}
    values["coldstart"] = {"task": task, "epochs": 1, "batch_size": 2, "optimizer": rate}
    with pytest.raises(TaskError, match=r"coldstart\.task: 4 of 4 problems have no solution"):
        check_recipe(Recipe.model_validate(values), tmp_path)
    values["coldstart"]["solution_template"] = "{answer}"
    report = check_recipe(Recipe.model_validate(values), tmp_path)
    assert "4 taken, 1 of them held out: left out" in "\n".join(report.problems)  # 5+5


def test_too_little_disk_is_a_warning_with_both_numbers(values, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000))
    report = check_recipe(Recipe.model_validate(values), tmp_path / "not" / "yet")
    # 12 bytes x 480 tokens + 1,000 x 48 completions: (24 explored + 3 x 8 evaluated) of 10 tokens
    assert report.warnings[0] == (
        f"The run may write 53.8 kB, and {tmp_path} has 1 kB for it. A full disk stops it cleanly; "
        "`rloop resume` goes on when there is space."
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("random:lama", "random:lama is not known. Give random:llama"),
        ("package:llm-smollm3", "no such Python package is installed"),
        ("no-such-folder", "'no-such-folder' does not exist. Give a Hugging Face directory"),
    ],
)
def test_a_model_that_a_run_would_refuse_is_refused(values, tmp_path, path, words):
    values["policy"]["path"] = path
    with pytest.raises(RLoopError, match=re.escape(words)):
        check_recipe(Recipe.model_validate(values), tmp_path)


def test_a_device_that_is_not_here_is_refused(values, tmp_path):
    values["engine"] = {"device": "cuda:99"}
    with pytest.raises(EngineUnavailable, match=r"engine.device is 'cuda:99'.*CUDA devices here"):
        check_recipe(Recipe.model_validate(values), tmp_path)
    values["engine"] = {"device": "mps"}
    with pytest.raises(EngineUnavailable, match=r"'mps', and this machine has no Apple GPU"):
        check_recipe(Recipe.model_validate(values), tmp_path)


def test_groups_of_greedy_completions_are_refused(values):
    values["explore"]["sampling"]["temperature"] = 0
    with pytest.raises(ValidationError, match=r"explore.sampling.temperature=0 makes"):
        Recipe.model_validate(values)
