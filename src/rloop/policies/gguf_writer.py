"""A policy as one GGUF file for llama.cpp, with its tokenizer and chat template.

Names, order of rows and metadata are those of llama.cpp's own converter (`convert_hf_to_gguf.py`).
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType as FileType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rloop.errors import ConfigError, EngineError
from rloop.policies.checkpoint import load_policy
from rloop.policies.directory import first_line, load_tokenizer
from rloop.policies.renderer import find_turn_end
from rloop.recipe.config import PromptConfig

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
TYPES = {
    "f32": (Type.F32, FileType.ALL_F32),
    "f16": (Type.F16, FileType.MOSTLY_F16),
    "bf16": (Type.BF16, FileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, FileType.MOSTLY_Q8_0),
}
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITTERS = {
    (rf"{_WORDS}\p{{N}}{_REST}", "bytes"): "qwen2",
    (rf"{_WORDS}\p{{N}}{{1,3}}{_REST}", "bytes"): "llama-bpe",
    ("digits", "words and bytes"): "smollm",
    ("words and bytes",): "gpt-2",
}
"""How a tokenizer splits text before its merges -> what llama.cpp calls that."""


def write_gguf(policy: Path, file: Path, kind: GgufType, *, name: str) -> None:
    """Write a policy's directory as a GGUF file, whole or not at all; an adapter is merged.

    Matrices are of the type `kind`, norms and biases of float32. EngineError for what llama.cpp
    would not read as transformers does, ConfigError for a file that is there.
    """
    if file.exists():
        raise ConfigError(f"{file} exists. Choose another name.")
    tokenizer = load_tokenizer(policy, trust_remote_code=False)
    splitter = _splitter(policy, tokenizer)
    cpu = torch.device("cpu")
    model = load_policy(policy, dtype="auto", device=cpu, trust_remote_code=False).model
    config: Any = model.config
    _check_config(policy, config)
    partial = file.with_name(f".{file.name}.partial")
    writer = gguf.GGUFWriter(partial, config.model_type)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, config)
    _add_tokenizer(writer, tokenizer, splitter, config.vocab_size)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(writer):
            _write_weights(writer, dict(_weights(model)), TYPES[kind][0])
        partial.rename(file)
    except OSError as error:
        raise EngineError(f"Cannot write {file}: {first_line(error)}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_weights(writer: Any, weights: dict[str, torch.Tensor], kind: Type) -> None:  # noqa: ANN401 (untyped)
    """Write the file, one weight in memory at a time."""
    types = {key: _stored_as(weight, kind) for key, weight in weights.items()}
    for key, weight in weights.items():
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[types[key]]
        num_bytes = weight.numel() // block_size * block_bytes
        writer.add_tensor_info(key, weight.shape, np.dtype(np.float32), num_bytes, types[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for key, weight in weights.items():
        exact = weight.float().contiguous().numpy()
        largest = np.abs(exact).max()
        if types[key] is Type.F16 and largest > np.finfo(np.float16).max:
            raise EngineError(
                f"f16 cannot hold {key}, which has a weight of {largest:g}. Choose bf16 or f32."
            )
        writer.write_tensor_data(gguf.quants.quantize(exact, types[key]))


def _stored_as(weight: torch.Tensor, kind: Type) -> Type:
    """Return a weight's type: vectors are float32, and rows that blocks do not fill float16."""
    if weight.dim() == 1:
        return Type.F32
    block_size = gguf.GGML_QUANT_SIZES[kind][0]
    return kind if weight.shape[-1] % block_size == 0 else Type.F16


def _check_config(policy: Path, config: Any) -> None:  # noqa: ANN401 (untyped)
    """Refuse models that other architectures of llama.cpp would be for."""
    rope = config.rope_parameters.get("rope_type", "default")
    odd = ""
    if config.model_type not in ARCHITECTURES:
        odd = f"is of the kind {config.model_type}"
    elif rope not in ("default", "llama3"):
        odd = f"scales its positions by {rope}"
    elif "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        odd = "attends over a sliding window"
    if odd:
        raise EngineError(
            f"Policy {policy} {odd}, and GGUF files are written for Llama, Qwen2 and Qwen3 with "
            "full attention. Convert the directory with llama.cpp's convert_hf_to_gguf.py."
        )


def _add_sizes(writer: Any, config: Any) -> None:  # noqa: ANN401 (untyped)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(_head_dim(config))
    writer.add_vocab_size(config.vocab_size)


def _head_dim(config: Any) -> int:  # noqa: ANN401 (untyped)
    width: int | None = getattr(config, "head_dim", None)
    return width or int(config.hidden_size // config.num_attention_heads)


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each weight by its name in GGUF; tied ones once."""
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    rope = config.rope_parameters
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(rope, _head_dim(config))
    for name, weight in model.state_dict().items():
        if name in model.all_tied_weights_keys:
            continue
        if architecture is gguf.MODEL_ARCH.LLAMA and re.search(r"[qk]_proj\.", name):
            is_query = "q_proj" in name
            heads = config.num_attention_heads if is_query else config.num_key_value_heads
            halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)  # llama.cpp rotates neighbours
        known = names.get_name(name, (".weight", ".bias"))
        assert known is not None, f"{config.model_type} has a weight {name} without a name in GGUF"
        yield known, weight.detach()


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> torch.Tensor:
    """Return by what llama.cpp divides each frequency: Llama 3.1's scaling of positions.

    1 for short wavelengths, `factor` for long ones, and between them
    1 / ((1 - s) / factor + s) with s = (old_length / wavelength - low) / (high - low).
    """
    powers = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    wavelengths = 2 * math.pi * rope["rope_theta"] ** powers
    low, high, factor = (rope[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = rope["original_max_position_embeddings"] / wavelengths
    share = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    factors: torch.Tensor = 1.0 / ((1.0 - share) / factor + share)
    return factors


def _splitter(policy: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what llama.cpp calls the tokenizer's way to split text; EngineError without a name."""
    model, parts = _description(tokenizer)["model"], []
    split = _description(tokenizer)["pre_tokenizer"] or {}
    for step in split.get("pretokenizers", [split]):
        kind = step.get("type")
        if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            parts.append(step["pattern"].get("Regex"))
        elif kind == "Digits" and step["individual_digits"]:
            parts.append("digits")
        elif kind == "ByteLevel" and not step["add_prefix_space"]:
            parts.append("words and bytes" if step["use_regex"] else "bytes")
        else:
            parts.append(kind)
    name = SPLITTERS.get(tuple(parts))
    takes_whole_words = bool(model.get("ignore_merges"))
    if model["type"] != "BPE" or name is None or takes_whole_words != (name == "llama-bpe"):
        raise EngineError(
            f"The tokenizer of policy {policy} is not split as those of GPT-2, Llama 3, Qwen2 or "
            "SmolLM, so llama.cpp could read its text otherwise. Convert the directory with "
            "llama.cpp's convert_hf_to_gguf.py."
        )
    return name


def _description(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what tokenizer.json holds, as it was loaded."""
    foreign: Any = tokenizer
    found: dict[str, Any] = json.loads(foreign.backend_tokenizer.to_str())
    return found


def _add_tokenizer(
    writer: Any,  # noqa: ANN401 (untyped)
    tokenizer: PreTrainedTokenizerBase,
    splitter: str,
    num_rows: int,
) -> None:
    """Add tokens, merges, special tokens and the chat template; rows without a token are unused."""
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = [
        gguf.TokenType.NORMAL if i in tokens else gguf.TokenType.UNUSED for i in range(num_rows)
    ]
    for place, token in tokenizer.added_tokens_decoder.items():
        if place >= num_rows:
            continue
        is_control = token.special or re.fullmatch(r"<\|.*\|>", token.content)
        kinds[place] = gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list([tokens.get(index, f"[PAD{index}]") for index in range(num_rows)])
    writer.add_token_types(kinds)
    merges = _description(tokenizer)["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    end = find_turn_end(tokenizer, PromptConfig(), num_rows)
    turn_end = end.token_id if end is not None and end.token_id != tokenizer.eos_token_id else None
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_eot_token_id, turn_end),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    begin = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and begin == tokenizer.bos_token_id)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)
