"""How the workers are started, and what is said of one that ended."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs TRL (extra trl)")

from accelerate.commands.launch import launch_command_parser
from doubles_policies import InstantVerify
from doubles_runs import toy_recipe
from doubles_trl import on_trl
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from rloop.config_trl import LaunchConfig
from rloop.engines import registry
from rloop.engines.registry import build_engine, help_run
from rloop.engines.trl import board
from rloop.engines.trl.launch import (
    check_world,
    failure,
    free_port,
    launch_arguments,
    needs_launcher,
)
from rloop.engines.trl.launcher import first_failure, main, reason, silence
from rloop.engines.trl.pauses import step_metrics
from rloop.errors import ConfigError, EngineError, EngineUnavailable


@pytest.mark.parametrize("preset", ["cpu", "multi_gpu", "fsdp2", "zero3"])
def test_accelerate_knows_the_options_of_every_preset(preset):
    config = LaunchConfig(processes=4, machines=2, machine_rank=1, port=29500, preset=preset)
    found = launch_command_parser().parse_args([*launch_arguments(config), "script.py"])
    assert (found.num_processes, found.num_machines, found.machine_rank) == (4, 2, 1)
    assert (found.main_process_ip, found.main_process_port) == ("127.0.0.1", 29500)
    assert found.use_fsdp == (preset == "fsdp2")
    assert found.use_deepspeed == (preset == "zero3")


def test_a_file_of_accelerates_takes_the_place_of_the_preset():
    found = launch_arguments(LaunchConfig(preset="fsdp2", config_file="mine.yaml"))
    assert found[:2] == ["--config_file", "mine.yaml"]
    assert "--use_fsdp" not in found


def test_one_process_needs_no_launcher_unless_it_shards():
    assert not needs_launcher(LaunchConfig())
    assert needs_launcher(LaunchConfig(processes=2))
    assert needs_launcher(LaunchConfig(preset="zero3"))
    assert needs_launcher(LaunchConfig(config_file="mine.yaml"))


def test_a_users_launcher_must_start_what_the_recipe_says(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_world(LaunchConfig(processes=2))
    with pytest.raises(ConfigError, match=r"Add --set engine\.trl\.launch\.processes=2"):
        check_world(LaunchConfig())


def test_only_the_first_process_holds_the_run(monkeypatch, tmp_path):
    recipe = on_trl(toy_recipe(tmp_path))
    assert not help_run(toy_recipe(tmp_path))
    assert not help_run(recipe)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert not help_run(recipe)


@pytest.mark.parametrize(
    ("package", "engine", "remedy"),
    [
        ("trl", {}, "pip install 'rloop-rl[trl]'"),
        ("peft", {"lora": {"rank": 1, "alpha": 1.0}}, "pip install 'rloop-rl[peft]'"),
        ("deepspeed", {"trl": {"launch": {"preset": "zero3"}}}, "pip install deepspeed"),
        ("vllm", {}, "pip install 'trl[vllm]'"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path, package, engine, remedy):
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == package else name)
    sampler = "vllm" if package == "vllm" else "native"
    recipe = toy_recipe(tmp_path, engine={"name": "trl", **engine}, explore__sampler=sampler)
    with pytest.raises(EngineUnavailable) as raised:
        registry.build_engine(recipe, InstantVerify())
    assert remedy in str(raised.value)


def failed(exitcode: int, message: object = "") -> ProcessFailure:
    found = ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file="none")
    if message:
        found.message = message  # type: ignore[assignment]
    return found


CLOSED = {"message": "RuntimeError: Connection closed by peer [127.0.0.1]:17283", "extraInfo": {}}
OWN = {"message": "ValueError: no such layer\nat line 3", "extraInfo": {}}


@pytest.mark.parametrize(
    ("failures", "rank", "words"),
    [
        ({0: failed(-15), 1: failed(-9)}, 1, "was ended by SIGKILL (often: out of memory)"),
        ({0: failed(1, CLOSED), 1: failed(-11)}, 1, "was ended by SIGSEGV"),
        ({0: failed(1, CLOSED), 2: failed(1, OWN), 1: failed(-15)}, 2, "no such layer)"),
    ],
)
def test_the_worker_that_ended_first_is_named_not_those_that_followed(failures, rank, words):
    found, first = first_failure(failures)
    assert found == rank
    assert words in reason(first)


def test_an_error_of_a_worker_is_its_first_line():
    assert reason(failed(1, OWN)) == "failed with exit code 1 (ValueError: no such layer)"


def test_what_a_worker_says_of_a_silent_one_is_the_cause_itself():
    said = "worker rank 1 on far has not been heard of for 3 s"
    assert silence(failed(1, {"message": f"Silence: {said}"})) == said
    assert silence(failed(1, OWN)) == ""


def test_launchers_agree_on_the_cause_that_one_of_them_knows(monkeypatch):
    """The first machine only saw a connection close; the second one knows why."""
    monkeypatch.setattr(board, "AGREE_S", 5.0)
    port, machines = free_port(), 2
    near, far = (
        board.Place(address="127.0.0.1", port=port, machines=machines, rank=rank)
        for rank in range(machines)
    )
    with ThreadPoolExecutor() as pool:
        first = pool.submit(board.agree, near, "closed by peer", is_cause=False)
        second = pool.submit(board.agree, far, "rank 1 was ended by SIGKILL", is_cause=True)
    assert first.result() == second.result() == "rank 1 was ended by SIGKILL"


def test_a_cause_is_told_again_when_the_workers_store_gives_way_to_the_launchers(monkeypatch):
    monkeypatch.setattr(board, "AGREE_S", 5.0)
    port = free_port()
    near, far = (
        board.Place(address="127.0.0.1", port=port, machines=2, rank=rank) for rank in (0, 1)
    )
    workers = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(board.agree, far, "told to stop", is_cause=True)
        time.sleep(0.3)
        del workers
        first = pool.submit(board.agree, near, "closed by peer", is_cause=False)
    assert first.result() == second.result() == "told to stop"


def test_a_launcher_that_reaches_nobody_says_what_it_saw(monkeypatch):
    monkeypatch.setattr(board, "AGREE_S", 0.5)
    alone = board.Place(address="127.0.0.1", port=free_port(), machines=2, rank=1)
    assert board.agree(alone, "closed by peer", is_cause=False) == "closed by peer"


def test_a_launcher_that_cannot_start_says_why(tmp_path: Path):
    note = tmp_path / "failure.txt"
    with pytest.raises(FileNotFoundError):
        main(note, ["--config_file", str(tmp_path / "none.yaml"), "script.py"])
    assert "accelerate launch failed (FileNotFoundError" in failure(tmp_path)
    assert str(tmp_path / "workers.log") in failure(tmp_path)
    note.unlink()
    assert "worker rank 1 closed" in failure(tmp_path, "worker rank 1 closed its connection")
    assert signal.Signals(9).name not in failure(tmp_path)


def test_an_option_that_trl_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = on_trl(
        toy_recipe(tmp_path), trl={"extra": {"grpo": {"temprature": 1.0}}, "launch": {}}
    )
    with pytest.raises(ConfigError, match=r"grpo\.temprature is not a known key"):
        build_engine(recipe, InstantVerify())
    # Where its files cannot be read as they are known to be, TRL itself refuses it.
    monkeypatch.setattr("rloop.engines.trl.options.option_names", lambda name: frozenset())
    engine = build_engine(recipe, InstantVerify())
    with pytest.raises(ConfigError, match=r"engine\.trl\.extra\.grpo: .*'temprature'"):
        engine.describe()
    engine.close()


def test_a_policy_is_in_training_or_not(tmp_path: Path):
    engine = build_engine(on_trl(toy_recipe(tmp_path)), InstantVerify())
    with pytest.raises(EngineError, match="No policy is in training"):
        engine.save_policy(tmp_path / "none", "none")
    # The failure ended the worker; the next command begins another.
    assert engine.describe()["device"] == "cpu"
    engine.close()


def test_a_steps_numbers_are_means_and_the_largest_gap():
    name = "sampling/sampling_logp_difference"
    updates = [
        {"loss": 1.0, f"{name}/max": 0.5, "entropy": 2.0},
        {"loss": 3.0, f"{name}/max": 0.25},
    ]
    assert step_metrics(updates) == {"loss_mean": 2.0, "entropy_mean": 2.0, "gap_max": 0.5}
