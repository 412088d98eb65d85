"""How large a model is, read from its files' headers: no weights are loaded, no torch."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What memory depends on.

    Example: ModelSize(parameters=134_515_008, layers=30, width=576, inner_width=1536, kv_width=192,
    vocabulary=49_152)
    """

    parameters: int
    layers: int
    width: int
    inner_width: int
    """Width of the feed-forward block."""
    kv_width: int
    """Key heads times head width: values that one token adds to each of a layer's two caches."""
    vocabulary: int


def measure_model(source: str) -> ModelSize | None:
    """Return the size of the recipe's `policy.path`, None where it cannot be told from here.

    That is: its files are not on this machine or damaged, its config.json names its sizes in
    another way, or it is a `random:` model, which is tiny and made at the start of a run.
    """
    path = _find(source)
    try:
        if path is None:
            return None
        return _measure_gguf(path) if path.suffix == ".gguf" else _measure_directory(path)
    except (KeyError, ValueError, TypeError, OSError):
        return None


def _find(source: str) -> Path | None:
    if source.startswith("package:"):
        spec = find_spec(source.removeprefix("package:").replace("-", "_"))
        folders = spec.submodule_search_locations if spec else None
        return next((p for f in folders or () for p in sorted(Path(f).rglob("*.gguf"))), None)
    path = Path(source).expanduser()
    if path.exists():
        return path if (path / "config.json").exists() or path.suffix == ".gguf" else None
    if source.count("/") != 1:
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
        kv_width=(config.get("num_key_value_heads") or heads) * head_width,
        vocabulary=config["vocab_size"],
    )


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
    from gguf import GGUFReader

    reader = GGUFReader(path)
    kind = reader.fields["general.architecture"].contents()

    def value(name: str) -> int:
        return int(reader.fields[f"{kind}.{name}"].contents())

    tensors = {tensor.name: [int(n) for n in tensor.shape] for tensor in reader.tensors}
    return ModelSize(
        parameters=sum(math.prod(shape) for shape in tensors.values()),
        layers=value("block_count"),
        width=value("embedding_length"),
        inner_width=value("feed_forward_length"),
        kv_width=tensors["blk.0.attn_k.weight"][1],
        vocabulary=tensors["token_embd.weight"][1],
    )
