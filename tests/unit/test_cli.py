"""The command line: exit codes, where words go, and what each command passes on."""

import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import yaml

from rloop import __version__
from rloop.cli import main
from rloop.loop.manifest import Manifest
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Completion, Group, Place, Problem, Trajectory, Verdict

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rloop(monkeypatch, capsys):
    """Run a command; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return end.value.code or 0, told.out, told.err

    return call


def trajectory(place, member, kind):
    problem = Problem(
        problem_id="sums/train/0", task="sums", question="1+1=", answer="2", verifier="numeric"
    )
    completion = Completion(
        prompt_text="1+1=",
        prompt_ids=(1, 2),
        completion_text="two\nlines" if kind == "wrong" else "2",
        completion_ids=(3, 0),
        behavior_logprobs=(-0.5, -0.25),
        finish_reason="stop",
    )
    return Trajectory(
        place=place,
        problem=problem,
        group_id="1/explore/3/sums/train/0",
        member=member,
        policy_version=0,
        completion=completion,
        verdict=Verdict(kind=kind, answer="2" if kind == "correct" else None, reason="as it is"),
        reward=float(kind == "correct"),
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        template_version="t",
    )


@pytest.fixture
def run_dir(tmp_path):
    """A run directory with one step of two trajectories and two policies."""
    run_dir = tmp_path / "run"
    place = Place(run="small", seed=0, iteration=1, phase="explore", step=3, policy="explored-001")
    rows = tuple(trajectory(place, i, kind) for i, kind in enumerate(("correct", "wrong")))
    TrajectoryStore(run_dir).append(place, [Group(problem=rows[0].problem, trajectories=rows)])
    manifest = Manifest(run_dir)
    for name in ("base", "iter-001"):
        policy = run_dir / "policies" / name
        policy.mkdir(parents=True)
        (policy / "config.json").write_text(json.dumps({"name": name}))
        manifest.complete(f"1/{name}", {"policy": name, "path": str(policy)})
    return run_dir


def test_an_unknown_option_exits_2_and_says_so_on_standard_error(rloop):
    code, out, err = rloop("run", "--stepz", "3")
    assert (code, out) == (2, "")
    assert "--stepz" in err


def test_the_name_that_another_tool_has_for_a_command_is_answered(rloop):
    code, _, err = rloop("train", "recipe.yaml")
    assert code == 2
    assert "Did you mean 'run'?" in err


def test_config_lists_every_key_as_json(rloop):
    code, out, _ = rloop("config", "--json")
    rows = {row["key"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["explore.group_size"]["type"] == "an integer >= 1"
    assert rows["explore.clip_high"]["default"] == "0.28"


def test_config_lists_one_section_and_names_the_nearest(rloop):
    code, out, _ = rloop("config", "explore.sampling", "--json")
    keys = [row["key"] for row in json.loads(out)]
    assert code == 0
    assert keys[0] == "explore.sampling"
    assert all(key.startswith("explore.sampling") for key in keys)
    code, _, err = rloop("config", "explre")
    assert code == 2
    assert "Did you mean explore?" in err


def test_the_version_is_that_of_the_package(rloop):
    assert rloop("--version") == (0, f"rloop {__version__}\n", "")


def test_a_packaged_recipe_is_found_by_its_name(rloop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, listed, _ = rloop("recipes")
    assert {"demo", "tiny"} <= {line.split()[0] for line in listed.splitlines() if line.strip()}
    code, out, _ = rloop("run", "tiny", "--print-recipe", "--set", "explore.steps=3")
    assert code == 0
    assert yaml.safe_load(out)["explore"]["steps"] == 3
    assert list(tmp_path.iterdir()) == []
    assert "rloop comes with: demo" in rloop("run", "tinny")[2]


ONE_LINE = ["--model", "random:llama-2x64", "--data", "sums.csv"]
SUMS = "question,answer\n" + "".join(f"{n} + 1,{n + 1}\n" for n in range(2, 9))


def test_new_writes_what_run_prints_and_check_accepts_it(rloop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.csv").write_text(SUMS)
    code, printed, _ = rloop("run", *ONE_LINE, "--print-recipe")
    assert (code, sorted(p.name for p in tmp_path.iterdir())) == (0, ["sums.csv"])
    assert rloop("new", "mine.yaml", *ONE_LINE)[0] == 0
    assert Path("mine.yaml").read_text() == printed
    assert rloop("new", "mine.yaml", *ONE_LINE)[0] == 2
    assert rloop("new", "deep/mine.yaml", *ONE_LINE)[0] == 0
    assert rloop("check", "deep/mine.yaml")[0] == 0


def test_one_line_runs_on_a_file_of_ones_own(rloop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.csv").write_text(SUMS)
    short = ["iterations=1", "explore.steps=1", "explore.sampling.max_completion_tokens=4"]
    short += ["evaluate.sampling.max_completion_tokens=4", "evaluate.samples=2", "evaluate.k=[1]"]
    values = [
        part for value in (*short, "expert=null", "finetune=null") for part in ("--set", value)
    ]
    code, _, err = rloop("run", *ONE_LINE, *values, "--out", "run")
    assert code == 0
    recipe = Path("run/recipe.yaml").read_text()
    assert recipe in err
    assert yaml.safe_load(recipe)["explore"]["steps"] == 1
    code, out, _ = rloop(
        "eval", "run/policies/explored-001", "--task", "reasoning_gym:chain_sum", "--limit", "2",
        "--samples", "2", "-k", "1", "--set", "evaluate.sampling.max_completion_tokens=4",
        "--out", "measured", "--json",
    )  # fmt: skip
    assert code == 0
    assert {row["task"] for row in json.loads(out)} == {"chain_sum"}
    stored = rloop("store", "sql", "measured", "select count(*) as n from trajectories", "--json")
    assert json.loads(stored[1]) == [{"n": 4}]  # 2 problems x 2


def test_a_recipe_and_a_model_are_one_too_many(rloop):
    code, _, err = rloop("run", "tiny", "--model", "random:llama")
    assert code == 2
    assert "not both" in err


def test_doctor_names_threads_devices_and_the_command_for_what_is_missing(rloop, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("rloop.check.doctor.find_spec", lambda name: None)
    code, out, _ = rloop("doctor", "--json")
    found = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert found["OMP_NUM_THREADS"]["value"] == "1"
    assert found["cpu"]["topic"] == "devices"
    assert found["wandb (sinks: [wandb])"]["remedy"] == "pip install 'rloop-rl[wandb]'"


def test_more_threads_than_cores_is_a_finding(rloop, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    _, out, _ = rloop("doctor")
    assert "unset OMP_NUM_THREADS" in out


def test_store_sql_answers_as_table_and_as_json(rloop, run_dir):
    query = "select step, avg(reward) as reward from trajectories group by step"
    code, out, _ = rloop("store", "sql", run_dir, query, "--json")
    assert code == 0
    assert json.loads(out) == [{"step": 3, "reward": 0.5}]
    assert rloop("store", "sql", run_dir, query)[1].split()[-2:] == ["3", "0.5"]


def test_store_sql_that_cannot_be_exits_1(rloop, run_dir):
    code, out, err = rloop("store", "sql", run_dir, "select nothing_here from trajectories")
    assert (code, out) == (1, "")
    assert "nothing_here" in err


def test_store_show_filters_and_prints_prompt_and_completion(rloop, run_dir):
    code, out, _ = rloop("store", "show", run_dir, "--verdict", "wrong", "--step", "3")
    assert code == 0
    assert out.splitlines() == [
        "1/explore step 3, explored-001, sums/train/0 #1",
        "wrong: answer None, reference 2, reward 0.0 (as it is), 2 tokens, stop",
        "  prompt:     1+1=",
        "  completion: two",
        "              lines",
        "",
    ]
    assert rloop("store", "show", run_dir, "--step", "4")[1] == ""
    assert rloop("store", "show", run_dir, "--problem", "it's")[1] == ""


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_store_export_writes_every_trajectory_once(rloop, run_dir, tmp_path, suffix):
    file = tmp_path / f"all.{suffix}"
    code, out, _ = rloop("store", "export", run_dir, file)
    assert (code, out) == (0, f"2 trajectories -> {file}\n")
    readers = {"parquet": "read_parquet", "jsonl": "read_json", "csv": "read_csv"}
    query = f"select sum(reward), count(*) from {readers[suffix]}('{file}')"
    rows = duckdb.execute(query).fetchall()
    assert rows == [(1.0, 2)]
    code, _, err = rloop("store", "export", run_dir, file)
    assert code == 2
    assert f"{file} exists" in err


def test_store_export_keeps_token_ids(rloop, run_dir, tmp_path):
    rloop("store", "export", run_dir, tmp_path / "all.parquet")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert rows[0]["completion_ids"] == [3, 0]


def test_store_export_to_an_unknown_form_lists_the_known_ones(rloop, run_dir, tmp_path):
    code, _, err = rloop("store", "export", run_dir, tmp_path / "all.xlsx")
    assert code == 2
    assert ".parquet, .csv, .jsonl" in err


def test_a_table_shows_the_first_of_a_long_list_and_json_all(capsys):
    from rloop.cli.tables import print_json
    from rloop.text import format_value

    assert format_value([40, 70, 81, 7]) == "[40, 70, 81, ... 4 in all]"
    assert format_value([40, 70, 81]) == "[40, 70, 81]"
    assert format_value(12_800) == "12,800"
    assert format_value(2**60) == "1152921504606846976"  # a seed
    print_json([{"ids": list(range(9))}])
    assert json.loads(capsys.readouterr().out) == [{"ids": list(range(9))}]
