"""A chat template that writes today's date: the run's first day holds for all of it."""

import json

import pytest
from doubles_policies import chat_tokenizer, write_policy
from doubles_runs import begin, toy_recipe, trajectories

from rloop.engines.registry import build_engine
from rloop.recipe.config import Recipe
from rloop.recipe.load import evaluation_recipe
from rloop.session import process, sweep
from rloop.session.process import resume, start

DATED = (
    "{{ strftime_now('%d %b') + '\n' }}{% for m in messages %}Q:{{ m.content + '\n' }}{% endfor %}"
)
PROMPTS = (
    "select distinct split_part(prompt_text, chr(10), 1) as day, template_version as version "
    "from trajectories"
)


def set_day(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    for module in (process, sweep):
        monkeypatch.setattr(module, "today", lambda: day)


def test_resume_and_evaluation_see_the_day_on_which_the_run_began(tmp_path, monkeypatch, capsys):
    policy = write_policy(tmp_path / "base", chat_tokenizer(template=DATED), num_rows=100)
    small = {"explore__steps": 1, "iterations": 1, "prompt": {}}
    recipe = toy_recipe(tmp_path, policy={"path": str(policy)}, **small)
    set_day(monkeypatch, "2026-11-30")
    code, run_dir = begin(recipe, tmp_path, build_engine)
    assert code in (0, 1)
    assert capsys.readouterr().err.count("First prompt:\n  | 30 Nov\n  | Q:") == 1
    set_day(monkeypatch, "2026-12-01")
    assert resume(run_dir, build_engine, overrides=["iterations=2"]) in (0, 1)
    assert json.loads((run_dir / "config.json").read_text())["prompt"]["date"] == "2026-11-30"
    (found,) = trajectories(run_dir, PROMPTS)
    assert found["day"] == "30 Nov"

    measured = evaluation_recipe(run_dir / "config.json", [f"policy.path={policy}"])
    folder = tmp_path / "eval"
    assert start(folder, measured, folder, build_engine, is_evaluation=True) == 0
    assert trajectories(tmp_path / "eval", PROMPTS) == [found]


def test_the_runs_of_a_sweep_see_one_day(tmp_path, monkeypatch):
    recipe: Recipe = toy_recipe(tmp_path)
    set_day(monkeypatch, "2026-11-30")
    (first, second) = sweep.plan_sweep(recipe, "rloop", "2", tmp_path / "sweep")
    assert first.recipe.prompt.date == second.recipe.prompt.date == "2026-11-30"
    first.directory.mkdir(parents=True)
    (first.directory / "config.json").write_text(first.recipe.model_dump_json())
    set_day(monkeypatch, "2026-12-01")
    again = sweep.plan_sweep(recipe, "rloop", "2", tmp_path / "sweep")
    assert [run.recipe.prompt.date for run in again] == ["2026-11-30", "2026-11-30"]
