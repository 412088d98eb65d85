"""How large a model is, read from its files' headers: no weights are loaded, no torch."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rloop.policies.gguf_header import read_gguf_header

GGUF_NAMES = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "o_proj",
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}
"""Names of linear maps in GGUF files, and in transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What memory depends on.

    Example: ModelSize(parameters=134_515_008, layers=30, width=576, inner_width=1536,
    query_width=576, kv_width=192, vocabulary=49_152, has_head_norms=False,
    linears={"q_proj": Linears(numbers=9_953_280, ends=34_560), ...})
    """

    parameters: int
    layers: int
    width: int
    inner_width: int
    """Width of the feed-forward block."""
    query_width: int
    """Query heads times head width."""
    kv_width: int
    """Key heads times head width: values that one token adds to each of a layer's two caches."""
    vocabulary: int
    has_head_norms: bool
    """Whether queries and keys are normalised, as in Qwen3."""
    linears: Mapping[str, "Linears"]
    """The layers' linear maps, by the last part of their names."""


ACCEPTED_FORMS = (
    "a Hugging Face directory, a hub name (org/name), a .gguf file, package:NAME for a GGUF file "
    "in an installed package, or random:llama, random:qwen2 or random:qwen3"
)
"""What `policy.path` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linears:
    """The linear maps of one name in all layers together.

    Example: Linears(numbers=2 * 64 * 96, ends=2 * (64 + 96)) for two of 64 to 96
    """

    numbers: int
    """Entries of their weights."""
    ends: int
    """Inputs and outputs: an adapter of rank r has r times as many numbers."""


def is_hub_name(source: str) -> bool:
    """Whether a `policy.path` that does not exist here could be a model on the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None and not source.endswith(
        ".gguf"
    )


def measure_model(source: str) -> ModelSize | None:
    """Return the size of the recipe's `policy.path`, None where it cannot be told from here.

    That is: its files are not on this machine or damaged, its config.json names its sizes in
    another way, or it is a `random:` model, which is tiny and made at the start of a run.
    """
    try:
        path = find_model(source)
        if path is None:
            return None
        return _measure_gguf(path) if path.suffix == ".gguf" else _measure_directory(path)
    except (KeyError, ValueError, TypeError, OSError):
        return None


LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""Names that config.json files have for the context's length."""
STRETCHED = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling for which config.json names the length before it is stretched."""


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a model reads, by its configuration; None where it names none.

    Rotary scaling counts as in vLLM: the length times the factor where config.json means the
    original length (not for `llama3` and `longrope`, nor for Gemma 3, whose length has it already).
    """
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, Mapping) else config
    found = [config[key] for key in LENGTH_KEYS if isinstance(config.get(key), int)]
    if not found:
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    is_counted = str(config.get("model_type", "")).startswith("gemma3")
    if kind not in STRETCHED or not isinstance(factor, int | float) or is_counted:
        return int(found[0])
    original = rope.get("original_max_position_embeddings") if kind == "yarn" else None
    return max(int(found[0]), int((original or found[0]) * factor))


def read_context_length(source: str) -> int | None:
    """Return the context's length of the recipe's `policy.path`; None where it cannot be told."""
    try:
        path = find_model(source)
        if path is None:
            return None
        if path.suffix == ".gguf":
            values = read_gguf_header(path).values
            found = values.get(f"{values['general.architecture']}.context_length")
            return int(found) if found else None
        return context_length(json.loads((path / "config.json").read_text()))
    except (AttributeError, KeyError, ValueError, TypeError, OSError):
        return None


def read_attention_window(source: str) -> int | None:
    """Return the sliding window of the model's attention (tokens); None where it sees all, or where
    that cannot be told from its config.json.
    """
    try:
        path = find_model(source)
        if path is None or path.suffix == ".gguf":
            return None
        config: dict[str, Any] = json.loads((path / "config.json").read_text())
        config |= config.get("text_config") or {}
        is_qwen = str(config.get("model_type")).startswith("qwen")  # theirs is off unless asked for
        is_on = config.get("use_sliding_window", not is_qwen)
        is_windowed = "sliding_attention" in config.get("layer_types", ["sliding_attention"])
        window = config.get("sliding_window")
        return int(window) if window and is_on and is_windowed else None
    except (AttributeError, KeyError, ValueError, TypeError, OSError):
        return None


def find_model(source: str) -> Path | None:
    """Return the directory or GGUF file that a `policy.path` means, None where it is not here."""
    if source.startswith("package:"):
        spec = find_spec(source.removeprefix("package:").replace("-", "_"))
        folders = spec.submodule_search_locations if spec else None
        return next((p for f in folders or () for p in sorted(Path(f).rglob("*.gguf"))), None)
    path = Path(source).expanduser()
    if path.exists():
        return path if (path / "config.json").exists() or path.suffix == ".gguf" else None
    if not is_hub_name(source):
        return None
    cached = try_to_load_from_cache(source, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _measure_directory(path: Path) -> ModelSize | None:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    shapes = dict(_safetensors_shapes(path))
    if not shapes:
        return None
    heads = config["num_attention_heads"]
    head_width = config.get("head_dim") or config["hidden_size"] // heads
    return ModelSize(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        inner_width=config["intermediate_size"],
        query_width=heads * head_width,
        kv_width=(config.get("num_key_value_heads") or heads) * head_width,
        vocabulary=config["vocab_size"],
        has_head_norms=any("q_norm" in name for name in shapes),
        linears=_linears(shapes),
    )


def _linears(shapes: Mapping[str, Sequence[int]]) -> dict[str, Linears]:
    """Sum up the matrices that stand in a numbered layer, such as `layers.0.mlp.up_proj.weight`."""
    found: dict[str, Linears] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        *parents, last = module.split(".")
        if kind == "weight" and len(shape) == 2 and any(part.isdecimal() for part in parents):
            so_far = found.get(last, Linears(numbers=0, ends=0))
            found[last] = Linears(
                numbers=so_far.numbers + math.prod(shape), ends=so_far.ends + sum(shape)
            )
    return found


def _safetensors_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield every tensor's name and shape: 8 bytes of length, then JSON."""
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: Mapping[str, Any] = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tensor["shape"]


def _measure_gguf(path: Path) -> ModelSize:
    header = read_gguf_header(path)
    tensors, kind = header.shapes, header.values["general.architecture"]

    def value(name: str) -> int:
        return int(header.values[f"{kind}.{name}"])

    linears = _linears(tensors)
    return ModelSize(
        parameters=sum(math.prod(shape) for shape in tensors.values()),
        layers=value("block_count"),
        width=value("embedding_length"),
        inner_width=value("feed_forward_length"),
        query_width=tensors["blk.0.attn_q.weight"][1],
        kv_width=tensors["blk.0.attn_k.weight"][1],
        vocabulary=tensors["token_embd.weight"][1],
        has_head_norms="blk.0.attn_q_norm.weight" in tensors,
        linears={GGUF_NAMES.get(name, name): sizes for name, sizes in linears.items()},
    )
