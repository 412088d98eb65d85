"""What `rloop store verify` proves, and how a run goes on without what is torn."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles_kill import comparable
from doubles_runs import begin, half_right, logged, scripted, toy_recipe, watched

from rloop.errors import ConfigError, EngineError, StoreError
from rloop.observe.run_log import read_metrics
from rloop.report.export import best_policy
from rloop.run_directory import read_run
from rloop.session.process import resume
from rloop.session.quarantine import quarantine
from rloop.store.records import read_record, write_record
from rloop.store.verify import verify_run
from rloop.types import Problem

EXPLORED = "trajectories/iteration-1/phase-explore/step-000003.parquet"
BASE = "trajectories/iteration-0/phase-evaluate/step-000000-base-held.parquet"
KEPT = "trajectories/iteration-2/phase-evaluate/step-000000-iter-002-held.parquet"
EXPERT = "expert/iter-002.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete run of two iterations, with evaluations inside exploration."""
    folder = tmp_path_factory.mktemp("whole")
    code, run_dir = begin(toy_recipe(folder, evaluate__every=2), folder, scripted())
    assert code == 0
    return run_dir


@pytest.fixture
def run_dir(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def told(run_dir: Path) -> str:
    return "\n".join(verify_run(run_dir).lines())


def edit(path: Path, change_it: Callable[[dict[str, Any]], object]) -> None:
    data = read_record(path)
    change_it(data)
    write_record(path, data)


def test_a_whole_run_is_sound_and_the_counts_are_those_of_the_run(whole):
    found = verify_run(whole)
    assert found.is_sound, found.lines()
    checked = {kind: count for kind, count, wrong in found.rows()}
    # 2 x 4 steps x 3 prompts x 4 completions = 96; evaluations of base, explored-00i at steps 2
    # and 4, iter-00i: 1 + 2 x 3 = 7, of 4 problems x 4 samples: 112
    assert checked["rows"] == 96 + 112
    assert checked["trajectory files"] == 8 + 7
    # config, manifest, environment, events, metrics
    assert checked["small files"] == 5


def rewrite(run_dir: Path, name: str, old: str, new: str) -> None:
    path = run_dir / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_missing_step_is_found(run_dir):
    (run_dir / EXPLORED.replace("3.parquet", "1.parquet")).unlink()
    # 4 steps x 3 prompts x 4 completions, and 3 steps of them
    words = "manifest.json: 1/explore: 48 trajectories, 36 are stored; steps without any: 1"
    assert words in told(run_dir)
    edit(run_dir / "manifest.json", forget_after("1/explore"))
    with pytest.raises(StoreError, match=r"holds 36 trajectories .* but 48 were sampled"):
        resume(run_dir, scripted())


REWARD = ('"explore/reward_mean":0.5', '"explore/reward_mean":0.6')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / BASE).unlink(), "base (iteration 0, step 0) on held: 16 samples, 0 ar"),
        (lambda run: cut(run / EXPERT), "expert/iter-002.parquet: it is torn or not a parquet"),
        (lambda run: rewrite(run, "metrics.jsonl", *REWARD), "metrics.jsonl: it has changed"),
        (lambda run: rewrite(run, "events.jsonl", "{", "["), "events.jsonl: it, line 1, is not v"),
        (lambda run: rewrite(run, "config.json", "{", "["), "config.json: it is not valid JSON"),
        (
            lambda run: (run / EXPLORED).rename((run / EXPLORED).with_name("three.parquet")),
            "three.parquet: its name",
        ),
    ],
)
def test_what_is_damaged_or_missing_is_named(run_dir, spoil, words):
    spoil(run_dir)
    assert words in told(run_dir)


def test_torn_weights_are_found_without_torch(run_dir):
    """A header of 16 bytes that names 8 bytes of data; 4 of them are there."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path = run_dir / "policies/iter-001/model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert verify_run(run_dir).is_sound
    path.write_bytes(path.read_bytes()[:-4])
    assert "policies/iter-001/model.safetensors: it is torn or missing" in told(run_dir)


def test_what_is_left_over_is_listed_and_no_fault(run_dir):
    (run_dir / "trajectories/iteration-1/phase-explore/step-000009.parquet.tmp").write_text("x")
    aside = run_dir / "trajectories/.superseded/iteration-1/phase-explore/step-000004.parquet.1"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(bytes(7))
    found = verify_run(run_dir)
    assert found.is_sound
    assert found.leftovers == [
        "trajectories/.superseded: 1 files, 7 bytes; superseded by a resume",
        "trajectories/iteration-1/phase-explore/step-000009.parquet.tmp: left by a crash; delete "
        "it when no run is active",
    ]


def test_no_run_is_no_sound_run(tmp_path):
    with pytest.raises(StoreError, match="is not a run directory"):
        verify_run(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def put_away(run_dir: Path) -> list[str]:
    return quarantine(run_dir, verify_run(run_dir).issues)


def test_a_torn_step_stops_resume_and_is_never_dropped_in_silence(run_dir):
    cut(run_dir / EXPLORED)
    with pytest.raises(StoreError, match=r"step-000003\.parquet is torn .* --quarantine`"):
        resume(run_dir, scripted())
    assert (run_dir / EXPLORED).exists()


def test_a_torn_step_is_moved_away_and_the_run_is_sound_without_it(run_dir):
    cut(run_dir / EXPLORED)
    torn = (run_dir / EXPLORED).read_bytes()
    assert put_away(run_dir) == [
        f"{EXPLORED}: these trajectories are lost; the run continues without them."
    ]
    assert (run_dir / f".damaged/{EXPLORED}").read_bytes() == torn
    found = verify_run(run_dir)
    assert found.is_sound, found.lines()
    assert found.leftovers == [f".damaged: 1 files, {len(torn):,} bytes; moved away as damaged"]
    assert resume(run_dir, scripted()) == 0


def test_a_step_lost_before_selection_leaves_the_others_to_select_from(run_dir, capsys):
    """The run stops after its first exploration; one of four steps is torn, three are selected."""
    edit(run_dir / "manifest.json", forget_after("1/explore"))
    for name in ("expert", "trajectories/iteration-2"):
        shutil.rmtree(run_dir / name)
    keep_log(run_dir, lambda line: line["iteration"] == 0 or line["policy"] == "explored-001")
    cut(run_dir / EXPLORED)
    put_away(run_dir)
    assert resume(run_dir, scripted()) == 0
    assert "select: 36 trajectories" in capsys.readouterr().err
    assert verify_run(run_dir).is_sound, told(run_dir)


def forget_after(last: str) -> Callable[[dict[str, Any]], None]:
    def forget(manifest: dict[str, Any]) -> None:
        keys = list(manifest["phases"])
        for key in keys[keys.index(last) + 1 :]:
            del manifest["phases"][key]
        del manifest["metrics"]

    return forget


def keep_log(run_dir: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if is_kept(json.loads(line))]
    (run_dir / "metrics.jsonl").write_text("".join(kept))


@pytest.mark.parametrize("name", [BASE, KEPT, EXPERT])
def test_what_can_be_made_again_is_made_again_the_same(run_dir, whole, name):
    cut(run_dir / name)
    (said,) = put_away(run_dir)
    assert said.startswith(f"{name}: `rloop resume` ")
    assert resume(run_dir, scripted()) == 0
    assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    assert verify_run(run_dir).is_sound, told(run_dir)


def test_an_evaluation_inside_exploration_is_lost_and_its_numbers_stay(run_dir):
    name = "trajectories/iteration-1/phase-evaluate/step-000002-explored-001-held.parquet"
    cut(run_dir / name)
    (said,) = put_away(run_dir)
    assert said.startswith(f"{name}: these samples are lost")
    assert verify_run(run_dir).is_sound, told(run_dir)
    assert resume(run_dir, scripted()) == 0


def test_a_damaged_log_keeps_the_lines_that_can_be_read(run_dir):
    path = run_dir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{torn\n", *lines[4:]]))
    (said,) = put_away(run_dir)
    count = len(lines)
    assert said.startswith(f"metrics.jsonl: {count - 1} of {count} lines can be read")
    assert len(read_metrics(run_dir)) == count - 1
    assert resume(run_dir, scripted()) == 0
    assert (run_dir / ".damaged/metrics.jsonl").exists()


def breaks(at: tuple[str, int, int]) -> None:
    """Fail in the fourth RL step; the saved point is after the second."""
    if at == ("explore", 1, 4):
        raise EngineError("the fourth step is one too many.")


def test_a_step_torn_after_the_saved_point_is_sampled_again_the_same(tmp_path):
    recipe = toy_recipe(tmp_path, iterations=1)
    folders = [tmp_path / name for name in ("broken", "whole")]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(EngineError, match="one too many"):
        begin(recipe, folders[0], watched(breaks))
    _, whole = begin(recipe, folders[1], scripted())
    run_dir = folders[0] / "run"
    assert verify_run(run_dir).is_sound, told(run_dir)
    cut(run_dir / EXPLORED)
    assert put_away(run_dir) == [f"{EXPLORED}: `rloop resume` samples it again."]
    assert resume(run_dir, scripted()) == 0
    found = comparable(run_dir).items()
    there = {name: data for name, data in found if not name.startswith(".damaged")}
    assert there == comparable(whole)
    assert verify_run(run_dir).is_sound


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ["base", "iter-003"]),
        ({"finetune__init": "explored"}, ["base", "explored-003", "iter-003"]),
        ({"expert": None, "finetune": None}, ["base", "explored-003"]),
    ],
)
def test_keeping_the_last_policies_changes_nothing_but_the_policies(tmp_path, changes, kept):
    runs = []
    for keep in ("all", "last"):
        folder = tmp_path / keep
        folder.mkdir()
        recipe = toy_recipe(tmp_path, keep_policies=keep, iterations=3, **changes)
        runs.append(begin(recipe, folder, scripted())[1])
    assert sorted(path.name for path in (runs[1] / "policies").iterdir()) == kept
    assert logged(runs[0]) == logged(runs[1])
    assert verify_run(runs[1]).is_sound, told(runs[1])
    assert resume(runs[1], scripted()) == 0


def worse_with_updates(problem: Problem, member: int, updates: int) -> str:
    """Answer held-out problems best shortly after the base, which has none right."""
    if problem.task == "held":
        return problem.answer if updates and member < 4 - updates // 8 else "no idea"
    return half_right(problem, member, updates)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ["base", "iter-001", "iter-003"]),
        ({"best_by": "held/pass@1"}, ["base", "iter-001", "iter-003"]),
        ({"expert": None, "finetune": None}, ["base", "explored-001", "explored-003"]),
    ],
)
def test_keeping_the_best_policy_keeps_the_last_too(tmp_path, changes, kept):
    recipe = toy_recipe(tmp_path, keep_policies="best", iterations=3, evaluate__k=[1, 4], **changes)
    code, run_dir = begin(recipe, tmp_path, scripted(worse_with_updates))
    assert code == 0
    assert sorted(path.name for path in (run_dir / "policies").iterdir()) == kept
    assert best_policy(read_run(run_dir)) == kept[1]
    assert verify_run(run_dir).is_sound, told(run_dir)
    assert resume(run_dir, scripted(worse_with_updates), overrides=["iterations=4"]) == 0
    assert (run_dir / "policies" / kept[1]).is_dir()


def test_a_measure_that_evaluations_do_not_give_ends_a_run_before_it_begins(tmp_path):
    recipe = toy_recipe(tmp_path, best_by="hold/pass@3")
    with pytest.raises(ConfigError, match=r"best_by is 'hold/pass@3'.* of all tasks or .*held/avg"):
        begin(recipe, tmp_path, scripted())


def test_a_policy_that_was_leaving_when_the_run_was_killed_leaves_on_resume(tmp_path):
    recipe = toy_recipe(tmp_path, keep_policies="last")
    _, run_dir = begin(recipe, tmp_path, scripted())
    leaving = run_dir / "policies/.iter-001.old"
    leaving.mkdir()
    (leaving / "half").write_text("")
    assert resume(run_dir, scripted()) == 0
    assert sorted(path.name for path in (run_dir / "policies").iterdir()) == ["base", "iter-002"]
