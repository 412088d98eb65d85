"""rloop from Python: what `import rloop` gives, and what a run says."""

import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import rloop
from rloop.errors import ConfigError, DegenerateRun, StoreError

ROOT = Path(__file__).parents[2]
RECIPE = {
    "policy": {"path": "random:llama-2x64"},
    "tasks": {"train": [{"source": "file:sums.csv"}]},
    "prompt": {"template": "{problem}="},
    "explore": {
        "steps": 2,
        "prompts_per_step": 4,
        "group_size": 4,
        "sampling": {"max_completion_tokens": 4},
        "optimizer": {"learning_rate": 1e-3},
    },
    "expert": None,
    "evaluate": {"samples": 2, "k": [1, 2]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of plain RL from a dict, in one iteration."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = [f"{a} + {b},{a + b}" for a in range(2, 6) for b in range(2, 6)]
        Path("sums.csv").write_text("\n".join(["question,answer", *lines]))
        yield rloop.train(RECIPE, iterations=1, overrides={"seed": 3})


def test_a_run_from_a_dict_lies_where_its_name_says_with_the_recipe_as_given(run):
    assert run.directory == Path("runs/run")
    assert run.is_complete
    assert run.record().config["seed"] == 3
    assert "random:llama-2x64" in (run.directory / "recipe.yaml").read_text()


def test_policies_are_directories_by_name(run):
    assert list(run.policies()) == ["base", "explored-001"]
    assert run.policy() == run.policies()["explored-001"]
    assert (run.policy("base") / "config.json").is_file()
    with pytest.raises(ConfigError, match="it has base, explored-001"):
        run.policy("iter-007")


def test_metrics_are_the_lines_of_the_log(run):
    assert [line["step"] for line in run.metrics("explore")] == [1, 2]
    assert len(run.metrics()) > 2
    assert "evaluate/sums/pass@2" in run.metrics("evaluate")[0]
    with pytest.raises(ConfigError, match="explore"):
        run.metrics("xplore")


def test_trajectories_are_a_table_of_every_completion(run):
    # 2 steps x 4 prompts x 4 completions; 5 held-out problems x 2 samples x 2 policies
    assert run.trajectories().num_rows == 32 + 20
    texts = run.trajectories(["step", "completion_text"], phase="explore", iteration=1)
    assert (texts.num_rows, texts.column_names) == (32, ["step", "completion_text"])
    counted = run.sql("select step, count(*) as n from trajectories where step > 0 group by step")
    assert {"step": 1, "n": 16} in counted.to_pylist()
    with pytest.raises(StoreError, match="nothing_here"):
        run.trajectories(["nothing_here"])
    with pytest.raises(ConfigError, match="explore"):
        run.trajectories(phase="xplore")


def test_a_report_is_a_page_and_a_notebook_shows_a_table(run):
    assert run.report().read_text().startswith("<!DOCTYPE html>")
    assert "explored-001" in run._repr_html_()
    assert repr(run) == "rloop.Run('runs/run')"


def test_a_complete_run_is_given_more(run):
    more = rloop.resume(run.directory, overrides={"iterations": 2})
    assert [line["iteration"] for line in more.metrics("explore")] == [1, 1, 2, 2]


def test_a_run_may_start_in_a_thread(run):
    del run
    found: list[rloop.Run] = []
    changes = {"explore.steps": 1, "iterations": 1, "evaluate.temperatures": []}
    thread = threading.Thread(
        target=lambda: found.append(rloop.train(RECIPE, overrides=changes, out="threaded"))
    )
    thread.start()
    thread.join()
    assert [one.is_complete for one in found] == [True]


def test_a_run_that_is_there_is_not_run_again(run):
    with pytest.raises(ConfigError, match="rloop resume"):
        rloop.train(RECIPE, out=run.directory)


def test_nothing_to_learn_from_is_an_error_that_names_what_was_kept(run):
    changes = {"explore.sampling.max_completion_tokens": 1, "explore.max_dead_steps": 1}
    given = {**RECIPE, "tasks": {"train": [unanswerable()]}}
    with pytest.raises(DegenerateRun, match=r"rloop\.Run\('dead'\)"):
        rloop.train(given, overrides=changes, out="dead")
    assert rloop.Run("dead").metrics("explore")


def unanswerable():
    """Answers that no completion of one token can be."""
    Path("hard.csv").write_text("question,answer\n2 + 3,123456\n4 + 5,234567\n")
    return {"source": "file:hard.csv"}


def test_a_recipe_and_a_model_are_one_too_many():
    with pytest.raises(ConfigError, match="not both"):
        rloop.train("tiny", model="random:llama")
    with pytest.raises(StoreError, match="not a run directory"):
        rloop.Run("nowhere")


def test_importing_rloop_imports_nothing_heavy():
    code = "import sys, rloop; rloop.train; print([n for n in sys.modules if n == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == rloop.__version__
