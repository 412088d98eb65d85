"""Tiny random language models, for tests of the learner and the sampler."""

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def tiny_model(
    family: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tied: bool = True,
    head_width: int = 8,
) -> PreTrainedModel:
    """Return a random model of 2 layers, width 32, 64 tokens, in evaluation mode.

    The weights are ten times larger than usual, so that its distributions are far from uniform.
    """
    config_class, model_class = FAMILIES[family]
    config = config_class(
        **SIZES,
        num_hidden_layers=2,
        head_dim=head_width,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = model_class(config)
    model = model.to(dtype).eval()
    assert isinstance(model, PreTrainedModel)
    return model


def tiny_gemma() -> PreTrainedModel:
    """Return a random Gemma 2 of one layer: not Llama-like, and its logits have a soft cap."""
    config_class: Any = Gemma2Config
    model_class: Any = Gemma2ForCausalLM
    config = config_class(
        **SIZES,
        num_hidden_layers=1,
        head_dim=8,
        final_logit_softcapping=30.0,
    )
    model: PreTrainedModel = model_class(config).eval()
    return model
