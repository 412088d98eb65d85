"""A base and an adapter are one policy: loaded merged, as peft loads it, and exported whole."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from rloop.errors import EngineError, NonFinitePolicy
from rloop.policies.adapter import base_name, write_adapter
from rloop.policies.checkpoint import load_policy, load_renderer, save_policy
from rloop.policies.prepare import prepare_policy
from rloop.policies.random_model import write_random_model
from rloop.recipe.config import PromptConfig

LAYER = "model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[5, 9, 17, 30]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapters") / "base"
    write_random_model("qwen3-1x32", directory, seed=0)
    return directory


def archive(factors: dict[str, torch.Tensor], folder: Path) -> bytes:
    """Pack what SkyRL packs: peft's files, without the targets' names."""
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"r": 2, "lora_alpha": 32.0, "target_modules": None, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            tar.add(folder / name, arcname=name)
    return packed.getvalue()


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    numbers = torch.Generator().manual_seed(0)
    factors = {
        f"base_model.model.{LAYER}.lora_A.weight": torch.randn(2, 32, generator=numbers) / 6,
        f"base_model.model.{LAYER}.lora_B.weight": torch.randn(32, 2, generator=numbers) / 6,
    }
    directory = tmp_path / "iter-001"
    directory.mkdir()
    packed = archive(factors, tmp_path)
    write_adapter(packed, directory, base=str(base), source_dir=base, name="iter-001")
    return directory


def loaded(path: Path) -> PreTrainedModel:
    policy = load_policy(
        path, dtype=torch.float32, device=torch.device("cpu"), trust_remote_code=False
    )
    return policy.model


@torch.no_grad()
def test_it_is_loaded_merged_and_gives_what_peft_gives(base: Path, adapter: Path):
    merged = loaded(adapter)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert torch.allclose(merged(IDS).logits, theirs(IDS).logits, atol=1e-5)
    assert not torch.allclose(merged(IDS).logits, loaded(base)(IDS).logits, atol=1e-2)


@torch.no_grad()
def test_transformers_loads_it_by_itself(adapter: Path):
    theirs = AutoModelForCausalLM.from_pretrained(adapter)
    assert torch.allclose(loaded(adapter)(IDS).logits, theirs(IDS).logits, atol=1e-5)


@torch.no_grad()
def test_it_is_written_whole_for_those_who_know_no_adapters(adapter: Path, tmp_path: Path):
    model = loaded(adapter)
    save_policy(model, tmp_path / "whole", source_dir=adapter)
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert torch.equal(plain(IDS).logits, model(IDS).logits)


def test_it_is_a_policy_path_and_has_its_bases_text_side(base: Path, adapter: Path, tmp_path: Path):
    found = prepare_policy(
        str(adapter), tmp_path / "x", seed=0, trust_remote_code=False, needs_chat_template=True
    )
    assert found == adapter
    assert base_name(adapter) == str(base)
    ours = load_renderer(adapter, PromptConfig(), trust_remote_code=False)
    theirs = load_renderer(base, PromptConfig(), trust_remote_code=False)
    assert (ours.version, ours.stop_ids, ours.context) == (theirs.version, theirs.stop_ids, 2048)


def test_a_base_that_is_not_here_is_named(adapter: Path):
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(base_name(adapter), "Owner/Model"))
    with pytest.raises(EngineError, match=r"adapter of Owner/Model, which is not on this machine"):
        loaded(adapter)


def test_what_is_more_than_lora_is_refused(adapter: Path):
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    with pytest.raises(EngineError, match=r"more than a plain LoRA adapter \(use_dora"):
        loaded(adapter)


def test_broken_weights_and_archives_are_refused(base: Path, tmp_path: Path):
    name = f"base_model.model.{LAYER}.lora_A.weight"
    packed = archive({name: torch.full((2, 32), torch.nan)}, tmp_path)
    with pytest.raises(NonFinitePolicy, match="iter-002 has NaN"):
        write_adapter(packed, tmp_path, base=str(base), source_dir=base, name="iter-002")
    with pytest.raises(EngineError, match="archive of iter-002 is damaged"):
        write_adapter(b"no archive", tmp_path, base=str(base), source_dir=base, name="iter-002")
