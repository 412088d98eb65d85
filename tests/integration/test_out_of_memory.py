"""A run whose memory runs out: it goes on by itself once, and after that as the error says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_runs import begin, toy_recipe, with_mixed_groups

from rloop.engines.native import learner
from rloop.engines.native.logprobs import completion_logprobs
from rloop.engines.native.sampler import Batch
from rloop.engines.registry import build_engine
from rloop.errors import EngineError
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.session.process import resume

REAL = completion_logprobs, Batch._decode


def failing(real: Callable[..., Any], *calls: int) -> Callable[..., Any]:
    """Return the function, out of memory on the calls named."""
    count = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*args, **kwargs)

    return call


def said(capsys: Any) -> str:
    return " ".join(capsys.readouterr().err.split())


def small(folder: Path) -> Recipe:
    changes: dict[str, Any] = {
        "iterations": 1,
        "explore__steps": 2,
        "explore__sampling": {"max_completion_tokens": 16},
        "expert": None,
        "finetune": None,
    }
    return with_mixed_groups(toy_recipe(folder, **changes))


@pytest.fixture
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    code, run_dir = begin(small(folder), folder, build_engine)
    assert code == 0
    return run_dir


def check_same_numbers(run_dir: Path, expected: Path) -> None:
    """Compare all that was logged, times apart, up to rounding."""
    for line, other in zip(read_metrics(run_dir), read_metrics(expected), strict=True):
        # A step whose completions were recalled has no speed of sampling.
        keys = [key for key in line if "/" in key and not key.endswith("_s")]
        assert keys == [key for key in other if "/" in key and not key.endswith("_s")]
        assert [line[key] for key in keys] == pytest.approx(
            [other[key] for key in keys], rel=1e-3, abs=1e-5
        )


def test_it_goes_on_by_itself_with_the_same_numbers(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(learner, "completion_logprobs", failing(REAL[0], 1))
    decode = failing(REAL[1], 7)
    monkeypatch.setattr(Batch, "_decode", lambda *args: decode(*args))
    code, run_dir = begin(small(tmp_path), tmp_path, build_engine)
    text = said(capsys)
    assert code == 0
    assert (
        "Warning: Out of memory with engine.microbatch_tokens=4096: continuing with 2048 in more, "
        "smaller passes; the gradient is the same up to rounding."
    ) in text
    assert "Out of memory with engine.max_batch=256: continuing with 128 completions" in text
    check_same_numbers(run_dir, plain)


def test_the_second_time_it_says_what_to_add_and_resumes_with_it(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learner, "completion_logprobs", failing(REAL[0], 1, 2))
    with pytest.raises(EngineError) as caught:
        begin(small(tmp_path), tmp_path, build_engine)
    run_dir = tmp_path / "run"
    assert str(caught.value) == (
        "Out of memory with engine.microbatch_tokens=2048 after it was halved from 4096. Add --set "
        "engine.microbatch_tokens=1024 or --set engine.gradient_checkpointing=true. What was done "
        f"is kept; continue with `rloop resume {run_dir}`."
    )
    assert resume(run_dir, build_engine, overrides=["engine.microbatch_tokens=1024"]) == 0
    check_same_numbers(run_dir, plain)
