"""One attention function for prefill, decoding and learning, registered with transformers.

Shape letters: B rows, H query heads, G key-value heads, T query positions, S cached positions, K
head width.

Without a mask, attention is causal; sequences are padded on the right, so no real token can see
padding. With a mask and one position (decoding), the query heads that share a key-value head are
moved to the query-position axis, so that grouped-query attention reads the cache once and never
repeats it. On CUDA keys and values are repeated if no kernel takes grouped heads, because PyTorch
would fall back to scores of all pairs in memory. Spans mean that sequences are packed into one row
(`packed_attention.py`). transformers builds no mask for an attention function it does not know, so
sliding windows and chunks must be refused at load.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, PretrainedConfig

from rloop.engines.native.packed_attention import Span, packed_attention
from rloop.errors import EngineError

NAME = "rloop"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    spans: Sequence[Span] = (),
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend; query [B, H, T, K], key and value [B, G, S, K] -> [B, T, H, K].

    The mask, [B, 1, T, S] or None, is True where a key is visible, or is added to the scores.
    """
    num_rows, num_heads, num_positions, head_width = query.shape
    if spans:
        scale = head_width**-0.5 if scaling is None else scaling
        return packed_attention(query, key, value, spans, scale=scale), None
    num_sharing = num_heads // key.shape[1]
    if attention_mask is not None and num_positions == 1:
        grouped = query.reshape(num_rows, key.shape[1], num_sharing, head_width)
        mixed = F.scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=scaling
        )
        return mixed.reshape(num_rows, 1, num_heads, value.shape[-1]), None
    if not takes_grouped_heads(
        query.device.type, query.dtype, is_masked=attention_mask is not None
    ):
        key, value = (states.repeat_interleave(num_sharing, dim=1) for states in (key, value))
    mixed = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=attention_mask is None and num_positions > 1,
        scale=scaling,
        enable_gqa=key.shape[1] != num_heads,
    )
    return mixed.transpose(1, 2), None


def takes_grouped_heads(device_type: str, dtype: torch.dtype, *, is_masked: bool) -> bool:
    """Whether attention over many positions works without repeated keys and values.

    On CUDA only the flash kernel takes grouped heads, and it supports neither a mask nor float32.
    On Apple GPUs it depends on the release of PyTorch.
    """
    if device_type != "cuda":
        return device_type == "cpu"
    return not is_masked and dtype in (torch.bfloat16, torch.float16)


def register() -> str:
    """Register the function with transformers; return its `attn_implementation` name."""
    AttentionInterface.register(NAME, grouped_attention)
    return NAME


def refuse_windows(config: PretrainedConfig, max_length: int) -> None:
    """Raise for architectures whose attention is not simply causal at this length."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None)
    if kinds - {"full_attention", "sliding_attention"}:
        raise EngineError(
            "The native engine runs decoder-only models with full attention; this "
            f"{text.model_type} model has {sorted(kinds)} layers. Choose a Llama-, Qwen- or "
            "Mistral-like model."
        )
    windowed = "sliding_attention" in kinds or (
        window is not None and getattr(text, "layer_types", None) is None
    )
    if windowed and window is not None and window < max_length:
        raise EngineError(
            f"This {text.model_type} model attends over a sliding window of {window} tokens, and "
            f"prompt.max_tokens + max_completion_tokens = {max_length} is longer. Lower either."
        )
