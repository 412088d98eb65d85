"""The mean of policies' weights: by hand, in float32, in the precision of the first."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rloop.policies.checkpoint import load_policy, save_policy
from rloop.policies.mean import mean_policy
from rloop.policies.random_model import write_random_model
from rloop.types import PolicyRef


def policy(folder: Path, name: str, fill: float, dtype: torch.dtype = torch.float32) -> PolicyRef:
    """Write a policy all of whose weights have one value."""
    source = folder / "source"
    if not source.exists():
        write_random_model("llama-1x32", source, seed=0)
    loaded = load_policy(source, dtype=dtype, device=torch.device("cpu"), trust_remote_code=False)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.fill_(fill)
    save_policy(loaded.model, folder / name, source_dir=source)
    return PolicyRef(path=folder / name, name=name)


def weights(ref: PolicyRef) -> dict[str, torch.Tensor]:
    return load_file(ref.path / "model.safetensors")


def test_each_policy_counts_by_its_weight(tmp_path: Path):
    parts = [
        (policy(tmp_path, f"p{n}", value), a)
        for n, (value, a) in enumerate([(1.0, 0.5), (4.0, 0.25), (-2.0, 0.25)])
    ]
    mixed = mean_policy(parts, tmp_path / "mixed", "iter-001", seed=0)
    # 0.5 * 1 + 0.25 * 4 - 0.25 * 2 = 1
    assert all(torch.equal(w, torch.ones_like(w)) for w in weights(mixed).values())
    assert mixed == PolicyRef(path=tmp_path / "mixed", name="iter-001")


def test_a_weight_that_moved_in_one_of_four_parts_is_not_rounded_back(tmp_path: Path):
    """1.0078125 follows 1 in bfloat16: a quarter of the weights goes up, give or take five
    standard deviations.
    """
    start = policy(tmp_path, "start", 1.0, torch.bfloat16)
    moved = policy(tmp_path, "moved", 1.0078125, torch.bfloat16)
    mixed = mean_policy([(start, 0.75), (moved, 0.25)], tmp_path / "mixed", "iter-001", seed=0)
    found = torch.cat([w.flatten() for w in weights(mixed).values()])
    assert found.dtype == torch.bfloat16
    num_up, total = int((found == 1.0078125).sum()), len(found)
    assert num_up + int((found == 1.0).sum()) == total
    assert num_up / total == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / total) ** 0.5)


def test_a_mixed_policy_loads_with_the_first_ones_tokenizer(tmp_path: Path):
    first, second = policy(tmp_path, "a", 0.5), policy(tmp_path, "b", 1.5)
    mixed = mean_policy([(first, 0.5), (second, 0.5)], tmp_path / "mixed", "m", seed=0)
    loaded = load_policy(
        mixed.path, dtype="auto", device=torch.device("cpu"), trust_remote_code=False
    )
    assert loaded.renderer.tokenizer.get_vocab()
    assert (first.path / "tokenizer.json").read_bytes() == (
        mixed.path / "tokenizer.json"
    ).read_bytes()
