"""A policy's directory on disk: what it must contain, and how to write one completely or not at
all.

This module knows files and configuration, not weights.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from rloop.disk import FULL
from rloop.errors import EngineError

FULL_WORDS = tuple(f"os error {number}" for number in FULL)
"""safetensors and tokenizers report a full disk only in words."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
COMPANION_PATTERNS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "*.tiktoken", "chat_template*", "additional_chat_templates/*",
    "generation_config.json", "*.py", "LICENSE*", "NOTICE*",
)  # fmt: skip
"""Files of a policy that training does not change; copied byte for byte."""
ADAPTER_CONFIG = "adapter_config.json"


def cache_root() -> Path:
    """Return rloop's cache folder: RLOOP_CACHE, else XDG_CACHE_HOME/rloop, else ~/.cache/rloop."""
    if "RLOOP_CACHE" in os.environ:
        return Path(os.environ["RLOOP_CACHE"]).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "rloop"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own progress bars."""
    bars: Any = transformers_logging
    was_enabled = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            bars.enable_progress_bar()


def is_adapter(path: Path) -> bool:
    """Whether a policy's directory is a base and an adapter, as peft writes it."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def check_directory(
    path: Path, *, needs_chat_template: bool, trust_remote_code: bool, needs_weights: bool = True
) -> None:
    """Refuse a directory that cannot be a policy, with a one-sentence error; loads no weights.

    An adapter's tokenizer is checked here, its base when it is loaded.
    """
    if not is_adapter(path):
        check_config(path, trust_remote_code=trust_remote_code)
    if needs_weights:
        _check_weights(path)
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    if needs_chat_template and not tokenizer.chat_template:
        raise EngineError(
            f"Policy {path} has no chat template. Set prompt.template in the recipe to a text with "
            "{problem} in it, or put a chat_template.jinja into the directory."
        )


def check_config(path: Path, *, trust_remote_code: bool) -> None:
    """Refuse any configuration that is not of a dense decoder-only language model."""
    config = _read_config(path)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown method")
        raise EngineError(
            f"Policy {path} is quantized ({method}) and cannot be trained. "
            "Give policy.path the unquantized model, or a .gguf file of it."
        )
    model_type = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise EngineError(
            f"Policy {path} is an encoder-decoder model ({model_type}). rloop trains decoder-only "
            "language models; give policy.path one of those, such as a Llama or a Qwen."
        )
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or trust_remote_code:
        return
    if "auto_map" in config:
        raise EngineError(
            f"Policy {path} ({model_type}) needs Python code that is in its directory. Read that "
            f"code, then set policy.trust_remote_code=true."
        )
    raise EngineError(
        f"Policy {path} is of type {model_type!r}, which transformers {transformers.__version__} "
        "does not support as a causal language model. Update transformers or use another model."
    )


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise EngineError(
            f"Policy {path} has no config.json, so it is not a Hugging Face model directory. "
            "Give policy.path a directory that save_pretrained wrote."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError(f"{file} is not JSON ({error}). Download the model again.") from error
    if not isinstance(config, dict):
        raise EngineError(f"{file} is not a JSON object. Download the model again.")
    return config


def _check_weights(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise pickle_refused(path / pickles[0])
    raise EngineError(
        f"Policy {path} has no weights: no *.safetensors file is in it. "
        "Download the model again, or convert pickle weights with save_pretrained."
    )


def pickle_refused(file: Path) -> EngineError:
    """Return the error for a pickle checkpoint: unpickling runs any code inside."""
    return EngineError(
        f"{file} is a pickle checkpoint, which can run code when it is opened, so it is refused. "
        "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(SOURCE)"
        ".save_pretrained(DIR) writes safetensors; then give policy.path that directory."
    )


def load_tokenizer(path: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load a directory's tokenizer; EngineError if it has none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        is_there = (path / "tokenizer.json").exists()
        reason = first_line(error) if is_there else "there is no tokenizer.json"
        raise EngineError(
            f"Policy {path} has no usable tokenizer ({reason}). Put the base "
            "model's tokenizer.json and tokenizer_config.json into the directory."
        ) from error
    return tokenizer


def load_complete(path: Path, **options: Any) -> PreTrainedModel:  # noqa: ANN401
    """Load a model with options of `from_pretrained`; refuse one with missing weights.

    transformers would fill missing weights with random numbers.
    """
    loader: Any = AutoModelForCausalLM
    model, info = loader.from_pretrained(path, **options, output_loading_info=True)
    missing = info["missing_keys"]
    if missing:
        raise EngineError(
            f"Policy {path} lacks {len(missing)} weights, such as {min(missing)}. "
            "Download or save the model again; a split GGUF file must be merged first."
        )
    loaded: PreTrainedModel = model
    return loaded


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, without the final full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")


def companion_files(path: Path) -> list[Path]:
    """Return a policy's files that are neither weights nor config.json, sorted."""
    found = {file for pattern in COMPANION_PATTERNS for file in path.glob(pattern)}
    return sorted(file for file in found if file.is_file())


@contextmanager
def written_whole(target: Path, *, needed_bytes: int) -> Iterator[Path]:
    """Yield a hidden sibling directory to fill; it becomes `target` if the block succeeds.

    An old `target` is replaced; a failure leaves it unchanged. One writer at a time.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        free_bytes = shutil.disk_usage(partial).free
        if free_bytes < needed_bytes:
            raise _disk_full(target, needed_bytes, free_bytes)
        yield partial
        _put_in_place(partial, target)
    except Exception as error:  # tokenizers raises nothing narrower
        if getattr(error, "errno", None) in FULL or any(w in str(error) for w in FULL_WORDS):
            free_bytes = shutil.disk_usage(target.parent).free
            raise _disk_full(target, needed_bytes, free_bytes) from error
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise EngineError(f"Cannot write {target}: {first_line(error)}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _disk_full(target: Path, needed_bytes: int, free_bytes: int) -> EngineError:
    needed = f"{needed_bytes:,} bytes needed, " if needed_bytes else ""
    return EngineError(
        f"The disk is full: {target} could not be written ({needed}{free_bytes:,} bytes free); "
        "no partial files are left. Free some space and try again."
    )


def _put_in_place(partial: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
