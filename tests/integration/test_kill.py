"""Killed at any moment, a run that is resumed ends in the same files, byte for byte."""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doubles_kill import build_native, build_scripted, comparable, in_a_process
from doubles_runs import BuildEngine, toy_recipe

from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
NATIVE = [
    "policy.path=random:llama-1x32",
    "coldstart.epochs=8",
    "coldstart.task.size=64",
    "tasks.evaluate.0.size=4",
    "explore.steps=3",
    "explore.checkpoint_every=1",
    "coldstart.checkpoint_every=3",
    "finetune.checkpoint_every=2",
    "explore.prompts_per_step=4",
    "expert.max_success_rate=1.0",
    "evaluate.every=2",
    "engine.dtype=float32",
    "keep_policies=last",
    "tasks.train.0.verifier=python:doubles_verifiers:is_short",
]


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed, and every moment at which it could have been killed."""

    folder: Path
    recipe: Recipe
    build: BuildEngine
    moments: list[str]
    files: dict[str, Any]

    def numbers(self, pattern: str) -> list[int]:
        """Return the moments that match, as they are counted: from 1."""
        return [n for n, moment in enumerate(self.moments, 1) if re.match(pattern, moment)]

    def check_killed_at(self, numbers: list[int], *, tear: bool = False) -> None:
        """Kill a run at these moments, one in each of its processes; then let it end."""
        run_dir = self.folder / f"killed-{'-'.join(map(str, numbers))}-{tear}" / "run"
        run_dir.parent.mkdir()
        log = run_dir.with_name("log.txt")
        for number in numbers:
            code = in_a_process(log, self.recipe, run_dir, self.build, number, int(tear))
            if code == 0:
                break
            assert code == -9, log.read_text()
        else:
            code = in_a_process(log, self.recipe, run_dir, self.build, None)
        moment = self.moments[numbers[0] - 1]
        assert code == 0, f"killed at {numbers}, {moment}: {log.read_text()}"
        found = comparable(run_dir)
        assert found.keys() == self.files.keys(), f"killed at {numbers}, {moment}"
        different = [name for name in found if found[name] != self.files[name]]
        assert different == [], f"killed at {numbers}, {moment}"


def whole(folder: Path, recipe: Recipe, build: BuildEngine) -> Whole:
    log = folder / "log.txt"
    assert in_a_process(log, recipe, folder / "run", build, None) == 0, log.read_text()
    moments = (folder / "moments.txt").read_text().splitlines()
    return Whole(folder, recipe, build, moments, comparable(folder / "run"))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("scripted")
    changes = {"explore__steps": 4, "explore__checkpoint_every": 2, "evaluate__every": 2}
    # 4 problems x 8 samples are stored in chunks of 16.
    changes |= {"engine__max_batch": 1, "evaluate__samples": 8}
    return whole(folder, toy_recipe(folder, **changes), build_scripted)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    recipe = load_recipe(ROOT / "recipes" / "tiny.yaml", NATIVE)
    return whole(tmp_path_factory.mktemp("native"), recipe, build_native)


@pytest.mark.parametrize("seed", range(24))
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(scripted: Whole, seed: int):
    number = random.Random(seed).randint(1, len(scripted.moments))
    scripted.check_killed_at([number], tear=bool(seed % 2))


@pytest.mark.parametrize("what", ["manifest.json.tmp", "metrics.jsonl", "000003.parquet.tmp"])
def test_a_file_torn_in_the_middle_of_a_write_is_written_again(scripted: Whole, what: str):
    numbers = scripted.numbers(f"fsync .*{what}")
    scripted.check_killed_at([random.Random(what).choice(numbers)], tear=True)


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(scripted: Whole):
    rng = random.Random(0)
    # The longest way to the next saved point, a step's, an evaluation's, is under 110 moments.
    scripted.check_killed_at([rng.randint(110, 170) for _ in range(40)])


PLACES = {
    "a cold start": "mark .*sft of base",
    "sampling": "mark .*submit",
    "a step's file": ".*phase-explore",
    "a saved state": ".* /state/",
    "a selection": ".* /expert/",
    "a fine-tuning": "mark .*sft of (coldstart|iter)",
    "a policy": ".* /policies/.iter",
    "a policy's removal": "os.rename /policies/iter",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_model_killed_in_training_ends_in_the_same_weights(native: Whole, place: str):
    native.check_killed_at([random.Random(place).choice(native.numbers(PLACES[place]))])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    more = ["engine.lora={rank: 4, alpha: 8}", "engine.gradient_checkpointing=true"]
    more += ["engine.dtype=bfloat16", "explore.kl_coef=0.01"]
    recipe = load_recipe(ROOT / "recipes" / "tiny.yaml", [*NATIVE, *more])
    return whole(tmp_path_factory.mktemp("adapted"), recipe, build_native)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a step's file", "a fine-tuning"])
def test_adapters_killed_in_training_end_in_the_same_weights(adapted: Whole, place: str):
    adapted.check_killed_at([random.Random(place).choice(adapted.numbers(PLACES[place]))])


@pytest.mark.soak
def test_a_run_killed_at_each_change_of_a_file_ends_as_if_it_had_not_been(scripted: Whole):
    for number in (*scripted.numbers("(?!mark)"), *scripted.numbers("mark")[::10]):
        scripted.check_killed_at([number])
    for number in scripted.numbers("fsync .*(tmp|metrics)"):
        scripted.check_killed_at([number], tear=True)


@pytest.mark.soak
def test_a_model_killed_at_a_hundred_moments_ends_in_the_same_weights(native: Whole):
    for number in random.Random(0).sample(range(1, len(native.moments) + 1), 100):
        native.check_killed_at([number])
