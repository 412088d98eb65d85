"""Bad input, as a user of the command line meets it: one clear sentence, a code, nothing lost.

Every message goes to standard error; a traceback would come out of `rloop` and fail the test. What
single rooms refuse is tested beside them; here is what reaches the user, and what is kept.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from doubles_runs import begin, scripted, toy_recipe, trajectories, watched, write_problems

from rloop.cli import main
from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.engine import NativeEngine
from rloop.loop.manifest import Manifest
from rloop.policies.random_model import write_random_model
from rloop.recipe.config import SamplingConfig
from rloop.recipe.load import load_recipe
from rloop.session.process import resume, start

SAMPLING = {"max_completion_tokens": 4}
RATE = {"learning_rate": 1e-3}
RECIPE: dict[str, Any] = {
    "name": "small",
    "seed": 0,
    "iterations": 1,
    "policy": {"path": "random:llama-1x32"},
    "prompt": {"template": "{problem}"},
    "explore": {
        "steps": 4,
        "prompts_per_step": 2,
        "group_size": 2,
        "sampling": SAMPLING,
        "optimizer": RATE,
        "checkpoint_every": 2,
    },
    "expert": None,
    "finetune": None,
    "evaluate": {"samples": 2, "k": [1, 2], "sampling": SAMPLING},
    "engine": {"device": "cpu", "dtype": "float32"},
}


def write_recipe(folder: Path) -> Path:
    """Write plain RL on toy sums: a whole run takes a second."""
    tasks = {
        key: [{"source": f"file:{folder / f'{key}.jsonl'}", "name": key, "verifier": "numeric"}]
        for key in ("train", "evaluate")
    }
    write_problems(folder / "train.jsonl", 6)
    write_problems(folder / "evaluate.jsonl", 3, first=50)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "tasks": tasks}))
    return path


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.delenv("RLOOP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path)


@pytest.fixture
def rloop(monkeypatch, capfd):
    """Run a command; returns (exit code, standard error)."""

    def call(*arguments: object, **settings: object) -> tuple[int, str]:
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        words = ["rloop", *map(str, arguments), *(word.replace("__", ".") for word in sets)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capfd.readouterr().err

    return call


GYM = "reasoning_gym:basic_arithmetic"


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("explore.grup_size=4", 2, "explore.grup_size is not a known key. Did you mean explore.gr"),
        ("expert={max_success_rate: 1}", 2, "expert and finetune go together"),
        ("tasks.train.0.source=gsm8", 2, "source 'gsm8' is unknown. Did you mean gsm8k?"),
        ("tasks.train.0.verifier=maths", 2, "'maths' is unknown. Did you mean math?"),
        ("tasks.train.0.verifier=reasoning_gym", 2, "judges problems of reasoning_gym:NAME"),
        ("tasks.train.0.fields={problm: text}", 2, "fields may name problem, answer, solution"),
        ("tasks.train.0={source: 'reasoning_gym:sums', size: 4}", 2, "has no data set 'sums'"),
        (f"tasks.train.0={{source: '{GYM}', size: 4, params: {{terms: 2}}}}", 2, "It knows min_te"),
        (f"tasks.train.0.source={GYM}", 2, "needs a size: `size: 500`"),
        ("tasks.train.0.source=file:absent.jsonl", 1, "no file absent.jsonl: give a path"),
        ("tasks.train.0.fields={problem: text}", 1, "has no column 'text' (fields: problem); it"),
        ("tasks.train.0.filters={level: 5}", 1, "has no column 'level' (filters: level); it has"),
        ("tasks.train.0.filters={id: sum-99}", 1, "none of its 6 rows matches filters"),
        ("tasks.train.0.source=file:empty.jsonl", 1, "has no problems: there are no rows in it"),
        ("tasks.data_dir=/no/such/folder", 1, "tasks.data_dir is '/no/such/folder', which is not"),
        ("tasks.train.0.verifier=python:absent:judge", 1, "No module named 'absent'"),
        ("tasks.train.0.verifier=python:json:judge", 1, "module json has no function 'judge'"),
        ("tasks.train.0.verifier=python:doubles_misbehaving:raises", 1, "raised KeyError: '1'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_line(rloop, recipe, override, code, words):
    (recipe.parent / "empty.jsonl").touch()
    found, told = rloop("check", recipe, "--set", override)
    assert found == code
    assert words in told
    assert told.count("\n") == 1


def test_what_is_no_recipe_names_those_that_are(rloop, recipe):
    assert rloop("run", recipe.parent)[0] == 2
    assert "is a folder, not a recipe. Here are:" in rloop("run", recipe.parent)[1]
    assert "There is no recipe at smal.yaml. Here are: small.yaml." in rloop("run", "smal.yaml")[1]


def test_a_data_folder_from_the_environment_is_named_as_such(rloop, recipe, monkeypatch):
    monkeypatch.setenv("RLOOP_DATA", "/no/such/folder")
    code, told = rloop("check", recipe, tasks__train__0="{source: gsm8k}")
    assert code == 1
    assert "the variable RLOOP_DATA is '/no/such/folder', which is not a folder" in told


def test_biased_ratios_are_warned_of_by_check_and_by_run(rloop, recipe):
    code, told = rloop("check", recipe, explore__sampling__top_p=0.9)
    assert code == 0
    assert "Warning: explore.sampling cuts the distribution (top_p=0.9, top_k=0)" in told
    code, told = rloop("run", recipe, "--out", "run", explore__sampling__top_p=0.9)
    assert code == 0
    assert told.count("Warning: explore.sampling cuts the distribution (top_p=0.9, top_k=0)") == 1


def test_a_start_that_computed_nothing_is_repeated_and_a_run_is_not(rloop, recipe):
    code, told = rloop("run", recipe, "--out", "run", tasks__train__0__source="file:absent.jsonl")
    assert (code, told.count("\n")) == (1, 1)
    code, told = rloop("run", recipe, "--out", "run", policy__path="/no/model")
    assert code == 1
    assert "policy.path '/no/model' does not exist" in told
    code, told = rloop("run", recipe, "--out", "run")
    assert code == 0
    assert "starting over" in told
    code, told = rloop("run", recipe, "--out", "run")
    assert code == 2
    assert "run is not empty. Continue it with `rloop resume run`" in told


def test_a_place_where_no_run_directory_can_be_is_said(rloop, recipe):
    code, told = rloop("run", recipe, "--out", recipe)
    assert code == 2
    assert "(File exists). Choose another --out." in told


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_random_model("llama-1x32", directory, seed=0)
    return directory


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: (m / "tokenizer.json").unlink(), "has no usable tokenizer (there is no tok"),
        (lambda m: (m / "chat_template.jinja").unlink(), "has no chat template. Set prompt.templ"),
        (lambda m: (m / "config.json").unlink(), "has no config.json"),
        (
            lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
            "pytorch_model.bin is a pickle checkpoint, which can run code when it is opened",
        ),
        (lambda m: (m / "model.safetensors").write_bytes(b"\0" * 8), "weights of policy"),
    ],
    ids=["tokenizer", "chat template", "config", "pickle", "weights"],
)
def test_a_model_directory_that_lacks_something_is_refused(rloop, recipe, model, spoil, words):
    spoiled = recipe.parent / "model"
    shutil.copytree(model, spoiled)
    spoil(spoiled)
    told = rloop("run", recipe, "--out", "run", policy__path=spoiled, prompt__template="null")
    assert told[0] == 1
    assert words in told[1]
    assert told[1].count("\n") == 1


def test_prompts_that_are_too_long_are_left_out_and_counted(rloop, recipe):
    rows = [json.loads(line) for line in (recipe.parent / "train.jsonl").read_text().splitlines()]
    rows[4]["problem"] = rows[5]["problem"] = "What is left when nothing is taken from "
    rows[5]["problem"] += "five?"
    (recipe.parent / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, told = rloop("run", recipe, "--out", "run", prompt__max_tokens=8)
    assert code == 0
    assert (
        "2 of 6 problems of tasks.train left out: their prompts are longer than prompt.max" in told
    )
    code, told = rloop("run", recipe, "--out", "run-2", prompt__max_tokens=2)
    assert code == 1
    assert "all 6 prompts are longer than prompt.max_tokens, the shortest has 4 tokens" in told


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises_on_others", "the verifier raised ValueError: cannot read that"),
        ("hangs_on_others", "no verdict within 0.5 s"),
        ("nonsense_on_others", "returned 'nope' (str); it must return True or False, a score"),
    ],
)
@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_a_verifier_that_fails_on_completions_stops_the_run(rloop, recipe, task, name, reason):
    verifier = f"python:doubles_misbehaving:{name}"
    settings = {f"tasks__{task}__0__verifier": verifier, "tasks__verifier_timeout_s": 0.5}
    code, told = rloop("run", recipe, "--out", "run", **settings)
    assert code == 1
    assert "Stopped: " in told
    assert "tasks.max_error_frac=0.1 allows" in told
    assert "Everything so far is kept in run." in told
    kept = trajectories(
        Path("run"), "select distinct reason from trajectories where verdict='error'"
    )
    assert any(reason in row["reason"] for row in kept)


class Dying(NativeEngine):
    """Dies after the third step of exploration, one after a saved point, as a killed process."""

    num_sampled = 0

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        self.num_sampled += 1
        if self.num_sampled == 1 + 3 + 1:  # the base's evaluation, and three steps
            raise SystemExit("killed")
        return super().sample(requests, settings)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in its exploration."""
    folder = tmp_path_factory.mktemp("killed")
    path = write_recipe(folder)
    with pytest.raises(SystemExit, match="killed"):
        start(path, load_recipe(path), folder / "run", Dying)
    return folder / "run"


@pytest.fixture
def torn(killed, recipe):
    """A copy of the killed run elsewhere."""
    return shutil.copytree(killed, recipe.parent / "torn")


def test_a_killed_run_goes_on_from_wherever_it_was_moved(rloop, torn):
    code, told = rloop("resume", torn)
    assert code == 0
    assert "explore of iteration 1 after step 2." in told
    code, told = rloop("export", torn, "out")
    assert (code, told) == (0, "")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


STATE = "state/explored-001-step-000002"
EXPLORED = "trajectories/iteration-1/phase-explore"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: cut(run / "config.json"), "config.json is not a recipe that"),
        (lambda run: (run / "config.json").write_text("{}"), "(name: Field required)"),
        (lambda run: cut(run / "manifest.json"), "manifest.json is not valid JSON"),
        (lambda run: (run / "manifest.json").write_text("[]"), "does not hold a JSON object"),
        (lambda run: (run / "manifest.json").write_text('{"version": 1}'), "lacks its phases"),
        (lambda run: (run / "manifest.json").unlink(), "has trajectories but no manifest.json"),
        (lambda run: cut(run / "environment.json"), "environment.json is not valid JSON"),
        (lambda run: cut(run / "metrics.jsonl"), "fewer than the"),
        (lambda run: (run / "metrics.jsonl").write_text("[]\n"), "complete phases wrote"),
        (lambda run: shutil.rmtree(run / STATE), f"{STATE} is missing or damaged"),
        (lambda run: cut(run / STATE / "learner.safetensors"), f"{STATE} is missing or damaged"),
        (lambda run: shutil.rmtree(run / "policies"), "policies/base has no config.json"),
        (lambda run: cut(run / EXPLORED / "step-000001.parquet"), "is torn or not a parquet file"),
        (lambda run: (run / EXPLORED / "step-000001.parquet").unlink(), "files are missing or cha"),
        (
            lambda run: shutil.rmtree(run / "trajectories"),
            "has only 0 of the 3 problems of evaluate",
        ),
    ],
)
def test_a_damaged_run_is_not_resumed(rloop, torn, spoil, words):
    spoil(torn)
    code, told = rloop("resume", torn)
    assert code == 1
    assert words in told.splitlines()[-1]


def test_the_second_ctrl_c_stops_at_once_and_the_run_can_go_on(tmp_path):
    def press_twice(at: tuple[str, int, int]) -> None:
        """Press Ctrl-C twice while the second step samples."""
        if at == ("explore", 1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    recipe = toy_recipe(tmp_path, iterations=1)
    code, run_dir = begin(recipe, tmp_path, watched(press_twice))
    assert code == 130
    assert Manifest(run_dir).completed()[-1] == "0/evaluate/base"
    assert resume(run_dir, scripted()) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "gsm8k", "--samples", "4", "-k", "1,8"), "pass@8 needs at least 8 samples"),
        (("--task", "gsm8k", "--samples", "0"), "evaluate.samples must be an integer >= 1, got 0"),
        (("--task", "gsm8k", "-k", "few"), 'evaluate.k.0 must be an integer >= 1, got "few"'),
        (("--task", "gsm8", "-k", "1"), "tasks.evaluate.0: source 'gsm8' is unknown. Did you mean"),
        ((), "Name what to evaluate on: --task gsm8k"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(rloop, recipe, model, arguments, words):
    code, told = rloop("eval", model, *arguments)
    assert code == 2
    assert words in told
    assert told.count("\n") == 1
    assert not list(Path().glob("runs/*/trajectories"))


def test_an_evaluation_whose_verifier_fails_keeps_what_was_sampled(rloop, recipe, model):
    settings = {
        "tasks__evaluate__0__verifier": "python:doubles_misbehaving:raises_on_others",
        "evaluate__sampling__max_completion_tokens": 4,
    }
    source = f"file:{recipe.parent / 'evaluate.jsonl'}"
    code, told = rloop(
        "eval", model, "--task", source, "--samples", 2, "-k", 1, "--set", "engine.device=cpu",
        **settings,
    )  # fmt: skip
    assert code == 1
    assert "100% of the verdicts on evaluate were errors" in told.splitlines()[-1]
    kept = trajectories(Path("runs/eval-tiny"), "select count(*) as n from trajectories")
    assert kept == [{"n": 6}]


@pytest.mark.parametrize(
    "words",
    [
        ("store", "sql", "{empty}", "select 1"),
        ("store", "show", "{empty}"),
        ("store", "export", "{empty}", "all.csv"),
        ("report", "{empty}"),
        ("resume", "{empty}"),
        ("export", "{empty}", "model"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_a_folder_that_is_no_run_is_refused_by_every_command(rloop, recipe, words, folder):
    Path("empty").mkdir()
    code, told = rloop(*(word.format(empty=folder) for word in words))
    assert code == 1
    assert told.startswith(folder)
    assert told.count("\n") == 1


def test_places_that_cannot_be_written_are_said_with_the_reason(rloop, torn):
    Path("file").touch()
    code, told = rloop("export", torn, "file")
    assert (code, told.splitlines()[-1]) == (2, "file is a file. Choose another directory.")
    code, told = rloop("export", torn, "file/model")
    assert code == 1
    assert "could not be copied to file/model (Not a directory)" in told
    code, told = rloop("store", "export", torn, "no/folder/all.csv")
    assert code == 1
    assert told == "no/folder/all.csv could not be written: there is no folder no/folder.\n"
    (torn / "report.html").mkdir()
    assert rloop("report", torn) == (1, f"{torn / 'report.html'}: Is a directory.\n")


def test_words_that_are_no_choice_are_usage_errors(rloop, torn):
    for option, choices in (("--verdict", "'wrong'"), ("--phase", "'evaluate'")):
        code, told = rloop("store", "show", torn, option, "nonsense")
        assert code == 2
        assert choices in told
    code, told = rloop("store", "show", torn, "--step", "99")
    assert (code, told) == (0, f"No trajectories in {torn} match these filters.\n")
