"""A run that is resumed may get more budget; anything that would change what is done is refused."""

import json
from pathlib import Path

import pytest
from doubles_kill import comparable, files
from doubles_runs import begin, scripted, toy_recipe

from rloop.disk import write_text
from rloop.errors import ConfigError
from rloop.loop.manifest import Manifest
from rloop.recipe.load import resolved_json
from rloop.session.process import resume
from rloop.session.resume import differences, told


def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    return tmp_path / "here", tmp_path / "there"


def same_but_recipes(run_dir: Path, other: Path) -> None:
    """Check that two runs hold the same; only the manifest tells of a recipe before."""
    here, there = comparable(run_dir), comparable(other)
    recipes = [found["manifest.json"].pop("recipes") for found in (here, there)]
    assert here == there
    assert recipes[0][-1]["recipe"] == recipes[1][-1]["recipe"]


def test_differences_are_told_by_the_keys_of_the_command_line(tmp_path: Path):
    old = toy_recipe(tmp_path)
    new = toy_recipe(tmp_path, iterations=3, evaluate__k=[1, 2], coldstart=None)
    found = differences(old, new)
    assert told(found) == "iterations: 2 -> 3; evaluate.k: [1, 4] -> [1, 2]"
    assert differences(old, old) == {}


def test_a_finished_run_given_more_iterations_equals_one_that_had_them_from_the_start(
    tmp_path: Path,
):
    here, there = folders(tmp_path)
    _, run_dir = begin(toy_recipe(tmp_path, iterations=1), here, scripted())
    assert resume(run_dir, scripted(), overrides=["iterations=2"]) == 0
    _, whole = begin(toy_recipe(tmp_path, iterations=2), there, scripted())
    same_but_recipes(run_dir, whole)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("iterations=1", "iterations: 2 -> 1"),
        ("explore.steps=9", "explore.steps: 4 -> 9"),
        ("explore.optimizer.learning_rate=0.5", "learning_rate: 0.001 -> 0.5"),
        ("tasks.max_error_frac=0.01", "tasks.max_error_frac: 0.1 -> 0.01"),
        ("tasks.train.0.size=3", "tasks.train.0.size: None -> 3"),
        ("finetune=null", "finetune: {'epochs': 2"),
    ],
)
def test_what_would_change_the_past_is_refused_with_the_difference(
    finished: Path, override: str, difference: str
):
    before = files(finished)
    overrides = [override, *(["expert=null"] if override == "finetune=null" else [])]
    with pytest.raises(ConfigError, match="changed recipe") as caught:
        resume(finished, scripted(), overrides=overrides)
    assert difference in str(caught.value)
    assert "rloop run RECIPE --out DIR" in str(caught.value)
    assert files(finished) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    return begin(toy_recipe(folder), folder, scripted())[1]


def test_a_recipe_file_is_compared_whole(tmp_path: Path, finished: Path):
    recipe = json.loads((finished / "config.json").read_text())
    path = tmp_path / "other.yaml"
    path.write_text(json.dumps({**recipe, "seed": 7, "name": "other"}))
    with pytest.raises(ConfigError, match=r"name: 'toy' -> 'other'\n  seed: 0 -> 7\n"):
        resume(finished, scripted(), path)


def test_an_edited_config_is_refused_with_the_difference(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path, iterations=1), tmp_path, scripted())
    config = run_dir / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"iterations": 1', '"iterations": 2'))
    with pytest.raises(ConfigError, match=r"was edited.*iterations: 1 -> 2.*--set iterations=3"):
        resume(run_dir, scripted())
    config.write_text(text)
    assert resume(run_dir, scripted()) == 0


def test_a_change_that_was_recorded_but_not_written_is_finished(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path, iterations=1), tmp_path, scripted())
    behind = (run_dir / "config.json").read_text()
    assert resume(run_dir, scripted(), overrides=["iterations=2"]) == 0
    write_text(run_dir / "config.json", behind)  # as if killed between the two
    assert resume(run_dir, scripted()) == 0
    expected = toy_recipe(tmp_path, iterations=2).dated(json.loads(behind)["prompt"]["date"])
    assert (run_dir / "config.json").read_text() == resolved_json(expected)


def test_a_run_from_before_recipes_were_recorded_goes_on(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path, iterations=1), tmp_path, scripted())
    manifest = json.loads((run_dir / "manifest.json").read_text())
    del manifest["recipes"]
    manifest.pop("digest", None)
    write_text(run_dir / "manifest.json", json.dumps(manifest))
    assert resume(run_dir, scripted()) == 0
    assert len(Manifest(run_dir).recipes) == 1


def test_a_run_keeps_its_date_whatever_day_it_is_resumed_on(tmp_path: Path):
    old, new = toy_recipe(tmp_path).dated("2026-11-30"), toy_recipe(tmp_path)
    assert differences(old, new) == differences(new, old) == {}
    assert differences(old, new.dated("2026-12-01")) == {
        "prompt.date": ("2026-11-30", "2026-12-01")
    }
