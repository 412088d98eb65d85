"""Relative paths of a recipe start where it lies, else where the command is."""

import pytest

from rloop.recipe.load import load_recipe

TEXT = """
policy: {path: models/small}
tasks:
  train: [{source: "file:sums.csv"}, {source: gsm8k}]
  data_dir: data
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe in a folder below the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "r.yaml").write_text(TEXT)
    return folder / "r.yaml"


def paths(recipe, *overrides):
    found = load_recipe(recipe, overrides)
    return [found.policy.path, found.tasks.train[0].source, found.tasks.data_dir]


def test_what_lies_beside_the_recipe_is_found_from_anywhere(recipe):
    for name in ("models/small", "data"):
        (recipe.parent / name).mkdir(parents=True)
    (recipe.parent / "sums.csv").touch()
    folder = recipe.parent
    expected = [f"{folder}/models/small", f"file:{folder}/sums.csv", f"{folder}/data"]
    assert paths(recipe) == expected
    assert load_recipe(recipe).tasks.train[1].source == "gsm8k"


def test_what_does_not_lie_there_stays_as_written(recipe, tmp_path):
    (tmp_path / "sums.csv").touch()
    assert paths(recipe) == ["models/small", "file:sums.csv", "data"]


def test_where_both_exist_the_recipes_counts_and_it_is_said(recipe, tmp_path, caplog):
    (tmp_path / "sums.csv").touch()
    (recipe.parent / "sums.csv").touch()
    assert paths(recipe)[1] == f"file:{recipe.parent}/sums.csv"
    assert "sums.csv exists in " in caplog.text


def test_an_override_starts_at_the_current_directory(recipe):
    (recipe.parent / "other").mkdir()
    assert paths(recipe, "policy.path=other")[0] == "other"


def test_the_recipe_that_a_run_keeps_is_read_as_it_is(recipe):
    (recipe.parent / "sums.csv").touch()
    kept = recipe.rename(recipe.with_name("config.json"))
    assert paths(kept)[1] == "file:sums.csv"
