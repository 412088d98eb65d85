"""examples/with_trl.py on two processes: what rloop has of a run that TRL trains."""

import json
from pathlib import Path

import numpy as np
import pytest
from doubles_ranks import launch
from safetensors.numpy import load_file

from rloop.engines.base import TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.session.process import read_resolved
from rloop.store.expert import stream_examples
from rloop.store.trajectories import TrajectoryStore
from rloop.store.verify import verify_run
from rloop.types import PolicyRef

pytest.importorskip("trl", reason="TRL is not installed: pip install 'rloop-rl[trl]'")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ITERATIONS, STEPS, PROMPTS, GROUP = 2, 2, 8, 8


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fine-tuning has rate 0, so that it gives back the policy that it began at."""
    folder = tmp_path_factory.mktemp("trl")
    given = ["engine.dtype=float32", f"explore.steps={STEPS}", "finetune.optimizer.learning_rate=0"]
    example = str(ROOT / "examples" / "with_trl.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        launcher = launch([example, str(ROOT / "recipes" / "tiny.yaml"), *given])
    said = launcher.communicate()[0]
    assert launcher.returncode == 0, said
    return folder / "runs" / "tiny-trl"


def test_every_sampled_completion_is_stored_once(run_dir: Path):
    groups = TrajectoryStore(run_dir).query(
        "select iteration, step, problem_id, count(*) as rows, count(distinct member) as members "
        "from trajectories where phase = 'explore' group by all"
    )
    assert groups["rows"].to_pylist() == groups["members"].to_pylist() == [GROUP] * len(groups)
    assert len(groups) == ITERATIONS * STEPS * PROMPTS


def test_the_expert_set_is_successes_of_its_iteration(run_dir: Path):
    for iteration in (1, 2):
        kept = [row for part in stream_examples(run_dir, iteration) for row in part.to_pylist()]
        assert kept
        assert {row["iteration"] for row in kept} == {iteration}
        assert {(row["correct"], row["phase"]) for row in kept} == {(True, "explore")}


def test_fine_tuning_begins_where_the_iteration_began_and_not_at_rls_weights(run_dir: Path):
    names = ("base", "coldstart", "iter-001", "iter-002")
    paths = [run_dir / "policies" / name / "model.safetensors" for name in names]
    base, coldstart, *later = (load_file(path) for path in paths)
    assert any(not np.array_equal(base[name], coldstart[name]) for name in base)
    for weights in later:
        assert all(np.array_equal(weights[name], coldstart[name]) for name in coldstart)


@pytest.mark.parametrize("iteration", [1, 2])
def test_rl_begins_at_the_start_policy_and_samples_what_it_has_become(
    run_dir: Path, iteration: int
):
    engine = NativeEngine(read_resolved(run_dir / "config.json"))
    engine.load(PolicyRef(path=run_dir / "policies" / "coldstart", name="coldstart"))
    largest = []
    for step in (1, 2):
        rows = TrajectoryStore(run_dir).rows(iteration, "explore", step).to_pylist()
        sequences = [
            TrainingSequence(prompt_ids=row["prompt_ids"], completion_ids=row["completion_ids"])
            for row in rows
        ]
        found = engine.logprobs(sequences, temperature=1.0)
        stored = [row["behavior_logprobs"] for row in rows]
        gaps = [np.abs(np.subtract(a, b)).max() for a, b in zip(found, stored, strict=True)]
        largest.append(max(gaps))
    assert largest[0] < 1e-4  # no update lies between
    assert largest[1] > 1e-2  # one of rate 1e-3 does


def test_the_run_directory_is_sound_and_its_report_is_complete(run_dir: Path):
    assert verify_run(run_dir).is_sound
    assert "Complete." in (run_dir / "report.html").read_text()
    policies = [
        json.loads(line)["policy"]
        for line in (run_dir / "metrics.jsonl").read_text().splitlines()
        if "evaluate/sums-heldout/pass@8" in line
    ]
    assert policies == ["base", "coldstart", "iter-001", "iter-002"]
