"""Exports as their readers open them: pandas, datasets and TRL."""

import json
import warnings
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
from doubles_models import tiny_model
from doubles_records import group_at, place_at

from rloop.errors import ConfigError, StoreError
from rloop.policies.random_model import character_tokenizer
from rloop.store.dataset_card import dataset_card
from rloop.store.expert import EXAMPLE_COLUMNS, write_expert_set
from rloop.store.export import Selected, export_trajectories
from rloop.store.trajectories import TrajectoryStore

TOKENIZER = character_tokenizer()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(
        datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache")
    )


def sampled(place, problem_id, completions, *, prompt="1+1="):
    group = group_at(place, problem_id, completions)
    rows = [
        replace(row, completion=replace(row.completion, prompt_text=prompt))
        for row in group.trajectories
    ]
    return replace(group, trajectories=tuple(rows))


@pytest.fixture
def run_dir(tmp_path):
    """Two iterations of two steps with two problems, right and wrong; one held-out problem."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"name": "toy", "prompt": {"template": "{problem}"}})
    )
    store = TrajectoryStore(folder)
    for iteration, step in ((1, 1), (1, 2), (2, 1), (2, 2)):
        place = place_at(step, iteration=iteration)
        groups = [sampled(place, f"sums/{n}", [("2", True), ("3", False)]) for n in (0, 1)]
        store.append(place, groups)
    place = place_at(0, phase="evaluate", policy="iter-001")
    store.append(place, [sampled(place, "held/0", [("2", True)])], part="iter-001-held")
    return folder


def select_experts(run_dir, iteration):
    kept = TrajectoryStore(run_dir).pool([iteration]).take(np.array([0, 2]), EXAMPLE_COLUMNS)
    write_expert_set(run_dir, iteration, trajectories=kept, weights=[0.5, 1.5], problems=[])


def load(folder, name=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets.load_dataset(str(folder), name)


@pytest.mark.parametrize(
    ("select", "iteration", "count"), [("all", None, 17), ("correct", None, 9), ("all", 2, 8)]
)
def test_a_table_holds_the_chosen_trajectories(run_dir, tmp_path, select, iteration, count):
    for suffix in ("parquet", "jsonl", "csv"):
        file = tmp_path / f"all.{suffix}"
        assert export_trajectories(run_dir, file, "table", select, iteration) == count
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert len(frame) == len(pd.read_csv(tmp_path / "all.csv")) == count
    assert len(pd.read_json(tmp_path / "all.jsonl", lines=True)) == count
    assert frame["correct"].sum() == (count if select == "correct" else (count + 1) // 2)


def test_expert_sets_come_with_their_weights(run_dir, tmp_path):
    with pytest.raises(StoreError, match=r"has no expert set: .* Use --select correct"):
        export_trajectories(run_dir, tmp_path / "expert.parquet", "table", "expert")
    for iteration in (1, 2):
        select_experts(run_dir, iteration)
    assert export_trajectories(run_dir, tmp_path / "e.parquet", "table", "expert") == 4
    assert pd.read_parquet(tmp_path / "e.parquet")["weight"].tolist() == [0.5, 1.5] * 2
    assert export_trajectories(run_dir, tmp_path / "trl", "trl", "expert", 2) == 2
    assert load(tmp_path / "trl", "sft")["train"]["weight"] == [0.5, 1.5]
    with pytest.raises(StoreError, match=r"no expert set at .*iter-003\.parquet"):
        export_trajectories(run_dir, tmp_path / "x.parquet", "table", "expert", 3)


def test_datasets_opens_the_folder_with_a_split_for_each_phase(run_dir, tmp_path):
    assert export_trajectories(run_dir, tmp_path / "data", "datasets") == 17
    found = load(tmp_path / "data")
    assert {name: split.num_rows for name, split in found.items()} == {
        "explore": 16,
        "evaluate": 1,
    }
    stored = TrajectoryStore(run_dir).rows(1, "explore", 1).to_pylist()
    assert [found["explore"][i] for i in range(4)] == stored
    card = (tmp_path / "data" / "README.md").read_text()
    assert "run `toy`" in card
    assert "## default, explore: 16 rows" in card
    assert "| `completion_ids` | `list<element: int32>` |" in card


def test_trl_trains_on_the_sampled_tokens_and_on_completions_alone(run_dir, tmp_path):
    trl = pytest.importorskip("trl")
    assert export_trajectories(run_dir, tmp_path / "trl", "trl") == 8
    sft = load(tmp_path / "trl", "sft")["train"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = trl.SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = trl.SFTTrainer(
            tiny_model(), args=arguments, train_dataset=sft, processing_class=TOKENIZER
        )
        prepared = trainer.train_dataset[0]
        trained = trainer.train()
    # "1+1=" is 49 43 49 61, "2" and EOS are 50 0
    assert prepared["input_ids"] == [49, 43, 49, 61, 50, 0]
    assert prepared["labels"] == [-100, -100, -100, -100, 50, 0]
    assert trained.global_step == 1
    assert trained.training_loss > 0


def test_problems_are_rl_prompts_and_held_out_ones_are_the_test_split(run_dir, tmp_path):
    export_trajectories(run_dir, tmp_path / "trl", "trl")
    found = load(tmp_path / "trl", "rl")
    assert found["train"]["problem_id"] == ["sums/0", "sums/1"]
    # 4 groups of one right and one wrong
    assert found["train"][0] == {
        "prompt": "1+1=",
        "solution": "2",
        "task": "sums",
        "problem_id": "sums/0",
        "success_rate": 0.5,
        "num_trajectories": 8,
    }
    assert found["test"]["problem_id"] == ["held/0"]


def test_prompts_of_a_chat_template_become_its_messages(tmp_path):
    run_dir = tmp_path / "run"
    TOKENIZER.save_pretrained(run_dir / "policies" / "base")
    config = {"name": "chat", "prompt": {"template": None, "system": "Be brief."}}
    (run_dir / "config.json").write_text(json.dumps(config))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1, \"please\"\nor Q: 'no'"},
    ]
    prompt = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    place = place_at(1)
    group = sampled(place, "sums/0", [("2", True)], prompt=str(prompt))
    TrajectoryStore(run_dir).append(place, [group])
    export_trajectories(run_dir, tmp_path / "trl", "trl")
    assert load(tmp_path / "trl", "rl")["train"][0]["prompt"] == messages


def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(run_dir, tmp_path):
    def refused(error, pattern, *arguments):
        with pytest.raises(error, match=pattern):
            export_trajectories(run_dir, tmp_path / "new", *arguments)
        assert list(tmp_path.iterdir()) == [run_dir]

    refused(ConfigError, r"new must end in one of .*; for a folder give --format", "table")
    refused(ConfigError, "--select must be correct or expert, not all", "trl", "all")
    refused(StoreError, "has no trajectory of iteration 7 to export", "datasets", "all", 7)
    refused(StoreError, "has no correct trajectory of phase explore of iteration 7", "trl", None, 7)
    (run_dir / "trajectories").rename(run_dir / "elsewhere")
    refused(StoreError, "has no trajectory to export", "datasets")


def test_a_card_names_what_judged_though_the_recipe_leaves_it_and_the_name_to_the_source(run_dir):
    tasks = {"train": [{"name": None, "source": "reasoning_gym:sums", "verifier": None}]}
    verifiers = {"sums": "reasoning_gym/1"}
    text = dataset_card([], {"tasks": tasks}, "", "", verifiers)
    assert "- task: `sums` (`reasoning_gym:sums`, verifier `reasoning_gym/1`)" in text
    judged = Selected(run_dir=run_dir).verifiers()
    stored = TrajectoryStore(run_dir).rows(1, "explore", 1).to_pylist()
    assert {judged[row["task"]] for row in stored} == {row["verifier_version"] for row in stored}
