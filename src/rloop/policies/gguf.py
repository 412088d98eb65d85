"""GGUF files, dequantized once into a cached directory."""

import contextlib
import hashlib
import io
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rloop.errors import EngineError
from rloop.policies.directory import (
    cache_root,
    first_line,
    load_complete,
    quiet_transformers,
    written_whole,
)
from rloop.policies.gguf_header import read_gguf_header

CONVERSION = "v1"
"""Part of the cache key; increase it when the result of the conversion changes."""


def convert_gguf(file: Path) -> Path:
    """Return the bfloat16 Hugging Face directory of a GGUF file, written on first use.

    It is cached under the file's content hash, so a copied or moved file is not converted again,
    and a changed one is.
    """
    with file.open("rb") as stream:
        is_gguf = stream.read(4) == b"GGUF"
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not is_gguf:
        raise EngineError(f"{file} is not a GGUF file: it does not begin with GGUF.")
    target = cache_root() / "gguf" / f"{file.stem}-{digest[:16]}-{CONVERSION}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _convert(file, target)
    except OSError as error:
        raise EngineError(
            f"Cannot use the cache {target.parent} ({first_line(error)}). "
            "Set RLOOP_CACHE to a writable folder."
        ) from error
    return target


def _convert(file: Path, target: Path) -> None:
    # tqdm in transformers' GGUF reader can only be silenced by redirecting stderr.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        model, tokenizer = _load_dequantized(file)
        needed_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        with written_whole(target, needed_bytes=needed_bytes) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)


def _load_dequantized(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # transformers 5.16 always dequantizes GGUF files and has no such class.
    settings = getattr(transformers, "GgufConfig", None)
    quantization = {"quantization_config": settings(dequantize=True)} if settings else {}
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = load_complete(
            file.parent,
            gguf_file=file.name,
            config=config,
            dtype=torch.bfloat16,
            **quantization,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise EngineError(
            f"transformers cannot read {file} ({first_line(error)}). "
            "Give policy.path the model's Hugging Face directory instead."
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _split_digits(file, tokenizer)
    return model, tokenizer


def _split_digits(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Split text as SmolLM does: transformers 5.19 does not know `smollm`, and uses GPT-2's
    splitting.

    The two differ if several spaces or line breaks are followed by a digit.
    """
    if read_gguf_header(file).values.get("tokenizer.ggml.pre") == "smollm":
        backend: Tokenizer = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
