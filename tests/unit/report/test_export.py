"""A policy exported from a scripted run: its card says what the run's own files say."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from doubles_runs import begin, scripted, toy_recipe
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from rloop.cli import main
from rloop.errors import ConfigError, StoreError
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe
from rloop.report.export import best_policy, export_policy, finished_policies
from rloop.report.formatting import percent
from rloop.report.model_card import model_card
from rloop.run_directory import Run, read_run

HOSTILE = 'sums | `x` **y** </td><script>z</script> "quoted": [a](b) # c\n---\n- d'


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    code, found = begin(toy_recipe(folder, evaluate__every=2), folder, scripted())
    assert code == 0
    return found


def evaluation(run_dir, policy) -> dict[str, float]:
    """Return the last evaluate line of a policy, keys without phase and task."""
    lines = [line for line in read_metrics(run_dir) if line["phase"] == "evaluate"]
    (*_, last) = [line for line in lines if line["policy"] == policy]
    return {key.rpartition("/")[2]: value for key, value in last.items() if "/" in key}


def table_rows(card: str) -> list[list[str]]:
    """Return the cells of every row of every table, as a renderer reads them."""
    rows: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(card):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            rows[-1].append("".join(c.content for c in token.children or ()))
    return rows


METRICS = ("avg@4", "maj@4", "pass@4", "cover@0.25", "cover@0.5")


@pytest.mark.parametrize("policy", ["iter-001", "iter-002"])
def test_every_number_of_a_card_is_that_of_the_log(run_dir, tmp_path, policy):
    export_policy(run_dir, tmp_path / "mine", policy)
    card = ModelCard.load(tmp_path / "mine/README.md")
    logged = evaluation(run_dir, policy)
    assert card.data.model_name == "mine"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        name: logged[name] for name in METRICS
    }
    for result in card.data.eval_results:
        assert result.metric_args == {
            "confidence": 0.95,
            "low": logged[f"{result.metric_type}_low"],
            "high": logged[f"{result.metric_type}_high"],
        }
    metric = ""
    for row in table_rows(card.text):
        metric = row[0] or metric
        name = row[1].partition(" ")[0]
        if metric in METRICS:
            line = evaluation(run_dir, name)
            low, high = (100 * line[f"{metric}_{end}"] for end in ("low", "high"))
            assert row[2] == f"{percent(line[metric])} [{low:.1f}, {high:.1f}]"
            ends = [100 * line.get(f"{metric}_diff{end}", 0) for end in ("", "_low", "_high")]
            assert row[3] == ("" if name == "base" else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends))


def test_a_card_ends_with_its_policy(run_dir, tmp_path):
    export_policy(run_dir, tmp_path / "mine", "iter-001")
    text = (tmp_path / "mine/README.md").read_text()
    first = [row[1] for row in table_rows(text) if row[0] in ("avg@4", "pass@4")]
    assert first == ["base", "base"]
    assert "explored-001 (after 4 RL steps, discarded)" in text
    assert "iter-002" not in text
    # 4 steps of 3 prompts x 4 completions, in each of two iterations
    assert ["sums", "RL", "48"] in [[row[0], row[1], row[-2]] for row in table_rows(text)]
    tokens = sum(
        line["explore/sampled_tokens_count"]
        for line in read_metrics(run_dir)
        if line["phase"] == "explore" and line["iteration"] == 1
    )
    assert f"Sampled in RL: {tokens:.0f} tokens in 4 steps" in text


def test_the_last_policy_is_exported_or_the_one_named(run_dir, tmp_path):
    policies = finished_policies(read_run(run_dir))
    assert export_policy(run_dir, tmp_path / "last") == policies["iter-002"]
    assert export_policy(run_dir, tmp_path / "base", "base") == policies["base"]
    text = (tmp_path / "base/README.md").read_text()
    assert "This is the base policy, as the run began with it" in text
    assert [row[:2] for row in table_rows(text) if "@" in row[0]] == [[m, "base"] for m in METRICS]


def test_the_command_says_what_went_where(run_dir, tmp_path, monkeypatch, capsys):
    target = tmp_path / "mine"
    monkeypatch.setattr(sys, "argv", ["rloop", "export", str(run_dir), str(target)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capsys.readouterr().out == (
        f"{run_dir}/policies/iter-002 -> {target}\n"
        f"{target}/README.md is its model card: read it before you share it.\n"
    )


def test_the_recipe_goes_along_with_every_value(run_dir, tmp_path):
    export_policy(run_dir, tmp_path / "mine")
    config = json.loads((run_dir / "config.json").read_text())
    assert yaml.safe_load((tmp_path / "mine/recipe.yaml").read_text()) == config
    assert load_recipe(tmp_path / "mine/recipe.yaml") == Recipe.model_validate(config)


def test_nothing_in_a_recipe_is_markdown_html_or_yaml(tmp_path):
    recipe = toy_recipe(
        tmp_path,
        iterations=1,
        prompt={"template": "```\n# {problem}", "suffix": ' "say"\n```'},
    )
    data = recipe.model_dump(mode="json")
    data["tasks"]["evaluate"][0]["name"] = data["tasks"]["train"][0]["name"] = HOSTILE
    code, run_dir = begin(Recipe.model_validate(data), tmp_path, scripted())
    assert code == 0
    export_policy(run_dir, tmp_path / 'my: "model"')
    card = ModelCard.load(tmp_path / 'my: "model"/README.md')
    assert card.data.model_name == 'my: "model"'
    assert {result.dataset_name for result in card.data.eval_results} == {HOSTILE}
    tokens = MarkdownIt().enable("table").parse(card.text)
    headings = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings == ["toy: iter-001", "Results", "Use it", "Data and verdicts", "Budget",
                        "Limits", "Cite"]  # fmt: skip
    assert [t.info for t in tokens if t.type == "fence"] == ["python", "python", "sh", "bibtex"]
    html = MarkdownIt().enable("table").render(card.text)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;z&lt;/script&gt;") >= 4
    assert " ".join(HOSTILE.split()) in {row[0] for row in table_rows(card.text)}


def test_a_card_of_the_base_model_is_kept_and_its_licence_named(run_dir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    base = "---\nlicense: apache-2.0\n---\n# The base model\n"
    (copy / "policies/base/README.md").write_text(base)
    for policy in ("base", "iter-002"):
        export_policy(copy, tmp_path / policy, policy)
        assert (tmp_path / policy / "README.base.md").read_text() == base
        card = ModelCard.load(tmp_path / policy / "README.md")
        assert card.data.license == "apache-2.0"
        assert "The licence (apache-2.0) is that of the base model." in card.text


def test_a_damaged_card_of_the_base_model_is_kept_all_the_same(run_dir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / "policies/base/README.md").write_text("---\n- license\n---\n")
    export_policy(copy, tmp_path / "mine")
    assert (tmp_path / "mine/README.base.md").exists()
    assert ModelCard.load(tmp_path / "mine/README.md").data.license is None


def test_an_export_that_fails_leaves_nothing(run_dir, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rloop.report.export.shutil.copytree", full)
    with pytest.raises(StoreError, match=r"could not be copied .*No space left on device"):
        export_policy(run_dir, tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_empty_directory_may_be_the_current_one(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_policy(run_dir, Path("."))
    assert ModelCard.load(tmp_path / "README.md").data.model_name == tmp_path.name
    with pytest.raises(ConfigError, match="is not empty"):
        export_policy(run_dir, Path("."))


def test_a_policy_that_is_not_there_and_a_run_without_its_recipe_are_refused(run_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"no policy 'iter-009'; it has base, iter-001, iter-002"):
        export_policy(run_dir, tmp_path / "x", "iter-009")
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / "config.json").unlink()
    with pytest.raises(StoreError, match=r"no config\.json; restore it"):
        export_policy(copy, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"Run with --set keep_explored=true"):
        export_policy(run_dir, tmp_path / "x", "explored-002")
    with pytest.raises(StoreError, match=r"nope is not a run directory"):
        export_policy(tmp_path / "nope", tmp_path / "x")
    with pytest.raises(StoreError, match="is not a run directory"):
        export_policy(tmp_path, tmp_path / "x")


@pytest.mark.parametrize("policy", ["base", "coldstart"])
def test_the_card_of_what_the_loop_has_not_touched_tells_nothing_of_the_loop(run_dir, policy):
    card = model_card(read_run(run_dir), policy, directory="mine", license_name=None)
    assert "fine-tuning" not in card
    assert "2 iterations" not in card
    assert "2 iterations" in model_card(
        read_run(run_dir), "iter-001", directory="mine", license_name=None
    )


def test_the_export_of_an_unfinished_run_says_so(run_dir, tmp_path, capsys):
    export_policy(run_dir, tmp_path / "whole")
    assert capsys.readouterr().err == ""
    copy = shutil.copytree(run_dir, tmp_path / "run")
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["phases"]["2/evaluate/iter-002"]
    kept = {key: manifest[key] for key in ("version", "phases")} | {"in_progress": None}
    (copy / "manifest.json").write_text(json.dumps(kept))
    export_policy(copy, tmp_path / "part", "iter-001")
    assert capsys.readouterr().err == (
        f"{copy} is not finished: iter-001 may not be its last policy.\n"
    )


def test_the_best_policy_has_the_highest_mean_over_tasks_and_is_the_first_of_equals(tmp_path):
    lines = [
        {"policy": "base", "evaluate/a/avg@4": 0.2, "evaluate/b/avg@4": 0.4},  # 0.3
        {"policy": "iter-001", "evaluate/a/avg@4": 0.25, "evaluate/b/avg@4": 0.75},  # 0.5
        {"policy": "iter-002", "evaluate/a/avg@4": 0.5, "evaluate/b/avg@4": 0.5},  # 0.5
        {"policy": "explored-001", "evaluate/a/avg@4": 0.9, "evaluate/b/avg@4": 0.9},  # not kept
    ]
    phases = {}
    for name in ("base", "iter-001", "iter-002"):
        (tmp_path / name).mkdir()
        phases[name] = {"policy": name, "path": name}
    metrics = [{"phase": "evaluate", **line} for line in lines]
    assert best_policy(Run(directory=tmp_path, manifest={"phases": phases}, metrics=metrics)) == (
        "iter-001"
    )
    with pytest.raises(StoreError, match="has been measured"):
        best_policy(Run(directory=tmp_path, manifest={"phases": phases}))
