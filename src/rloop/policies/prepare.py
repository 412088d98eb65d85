"""From the recipe's `policy.path` to a Hugging Face directory."""

from pathlib import Path

from huggingface_hub import snapshot_download

from rloop.errors import EngineError
from rloop.policies.directory import (
    COMPANION_PATTERNS,
    PICKLE_SUFFIXES,
    check_directory,
    first_line,
    pickle_refused,
)
from rloop.policies.gguf import convert_gguf
from rloop.policies.model_files import ACCEPTED_FORMS, find_packaged_gguf, is_hub_name
from rloop.policies.random_model import write_random_model


def prepare_policy(
    source: str,
    directory: Path,
    *,
    seed: int,
    trust_remote_code: bool,
    needs_chat_template: bool,
    needs_weights: bool = True,
) -> Path:
    """Return the Hugging Face directory of the recipe's `policy.path`, checked.

    Without `needs_weights` only tokenizer and configuration come from the hub; a server has the
    weights.

    A directory is used in place, and a hub name from the hub's cache. A GGUF file is converted once
    into rloop's cache. Only `random:` writes to `directory` (always the same, by `seed`).
    """
    path = _find_directory(
        source,
        directory,
        seed=seed,
        trust_remote_code=trust_remote_code,
        needs_weights=needs_weights,
    )
    check_directory(
        path,
        needs_chat_template=needs_chat_template,
        trust_remote_code=trust_remote_code,
        needs_weights=needs_weights,
    )
    return path


def _find_directory(
    source: str, directory: Path, *, seed: int, trust_remote_code: bool, needs_weights: bool
) -> Path:
    kind, _, name = source.partition(":")
    if kind == "random":
        write_random_model(name, directory, seed=seed)
        return directory
    if kind == "package":
        return convert_gguf(find_packaged_gguf(name))
    path = Path(source).expanduser()
    if source and path.is_dir():
        return path
    if path.is_file() and path.suffix == ".gguf":
        return convert_gguf(path)
    if path.suffix in PICKLE_SUFFIXES:
        raise pickle_refused(path)
    if is_hub_name(source):
        return _download(source, trust_remote_code=trust_remote_code, needs_weights=needs_weights)
    state = "is not a model" if path.exists() else "does not exist"
    raise EngineError(f"policy.path {source!r} {state}. Give {ACCEPTED_FORMS}.")


def _download(name: str, *, trust_remote_code: bool, needs_weights: bool) -> Path:
    patterns = ["*.json", *(p for p in COMPANION_PATTERNS if trust_remote_code or p != "*.py")]
    if needs_weights:
        patterns.append("*.safetensors")
    try:
        snapshot = snapshot_download(name, allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"policy.path {name!r}: no such local directory, and download from the hub failed "
            f"({first_line(error)}). Check the name and the connection (a gated model needs `hf "
            f"auth login`), or set policy.path to a directory copied from another machine."
        ) from error
    return Path(snapshot)
