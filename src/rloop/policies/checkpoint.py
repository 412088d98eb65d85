"""Policies in memory and on disk: load a directory, and write a model as one, completely or not at
all.

Knows nothing of sampling or learning.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rloop.errors import EngineError
from rloop.policies.adapter import base_directory, merge_adapter
from rloop.policies.directory import (
    check_config,
    companion_files,
    first_line,
    is_adapter,
    load_complete,
    load_tokenizer,
    quiet_transformers,
    written_whole,
)
from rloop.policies.finite import check_finite
from rloop.policies.model_files import context_length
from rloop.policies.renderer import Renderer, find_turn_end
from rloop.policies.vocabulary import leave_out_unknown, unknown_ids
from rloop.recipe.config import PromptConfig

MANY_UNKNOWN = 0.1
"""Fraction of output rows without a token that padding cannot explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy in memory. Example: LoadedPolicy(model=..., renderer=..., pad_id=2)."""

    model: PreTrainedModel
    """In evaluation mode, without its own sampling defaults."""
    renderer: Renderer
    """Turns problems into prompts, and tokens into text."""
    pad_id: int
    """Fills unused positions; an EOS token if the model has no padding token."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion, ascending: those of the tokenizer, the configurations
        and the chat template.
        """
        return self.renderer.stop_ids

    @property
    def decoder(self) -> torch.nn.Module:
        """The model below its output embedding: token ids to hidden states."""
        foreign: Any = self.model
        decoder: torch.nn.Module = foreign.get_decoder()
        return decoder

    @property
    def head(self) -> torch.nn.Module:
        """The output embedding: hidden states to logits."""
        foreign: Any = self.model
        head: torch.nn.Module = foreign.get_output_embeddings()
        return head


def load_policy(
    path: Path,
    *,
    dtype: torch.dtype | Literal["auto"],
    device: torch.device,
    trust_remote_code: bool,
    attn_implementation: str = "sdpa",
    prompt: PromptConfig | None = None,
) -> LoadedPolicy:
    """Load a policy directory's weights (safetensors only) and tokenizer; nothing is downloaded.

    A base and an adapter are loaded merged. The recipe's `prompt` determines what ends a
    completion. Raises NonFinitePolicy if a weight is NaN or infinite.
    """
    whole = base_directory(path) if is_adapter(path) else path
    check_config(whole, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    try:
        with quiet_transformers():
            model = load_complete(
                whole,
                dtype=dtype,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                local_files_only=True,
            )
            model.to(device)  # type: ignore[arg-type]
    except SafetensorError as error:
        raise EngineError(
            f"The weights of policy {path} are damaged ({first_line(error)}). Copy or download the "
            "model again."
        ) from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise EngineError(f"Cannot load the policy {path}: {first_line(error)}.") from error
    if is_adapter(path):
        merge_adapter(model, path)
    check_finite(dict(model.named_parameters()), f"Policy {path}")
    return _loaded(path, model, tokenizer, prompt or PromptConfig())


def _loaded(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
) -> LoadedPolicy:
    embeddings: Any = model.get_input_embeddings()
    num_embeddings: int = embeddings.weight.shape[0]
    eos_ids, pad_id = _frame_ids(
        path, tokenizer, prompt, model.config, model.generation_config.eos_token_id
    )
    leave_out_unknown(model, tokenizer, known=eos_ids)
    # A model's own sampling defaults would silently affect every call of generate().
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=list(eos_ids), pad_token_id=pad_id
    )
    renderer = Renderer(
        tokenizer,
        prompt,
        stop_ids=eos_ids,
        pad_id=pad_id,
        num_embeddings=num_embeddings,
        context=context_length(model.config.to_dict()),
        warnings=_unknown_warnings(model),
    )
    return LoadedPolicy(model=model, renderer=renderer, pad_id=pad_id)


def load_renderer(path: Path, prompt: PromptConfig, *, trust_remote_code: bool) -> Renderer:
    """Load the text side of a policy whose weights are elsewhere."""
    whole = base_directory(path) if is_adapter(path) else path
    check_config(whole, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(
            whole, local_files_only=True, trust_remote_code=trust_remote_code
        )
        has_generation = (whole / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(whole) if has_generation else None
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"Cannot read the policy {whole}: {first_line(error)}.") from error
    eos = generation.eos_token_id if generation is not None else None
    stop_ids, pad_id = _frame_ids(path, tokenizer, prompt, config, eos)
    return Renderer(
        tokenizer,
        prompt,
        stop_ids=stop_ids,
        pad_id=pad_id,
        num_embeddings=config.get_text_config().vocab_size,
        context=context_length(config.to_dict()),
    )


def _frame_ids(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    config: Any,  # noqa: ANN401 (transformers' configurations have no types)
    generation_eos: int | list[int] | None,
) -> tuple[tuple[int, ...], int]:
    """Return the tokens that end a completion, ascending, and the padding token."""
    turn_end = find_turn_end(tokenizer, prompt, config.get_text_config().vocab_size)
    found = (
        tokenizer.eos_token_id,
        generation_eos,
        config.eos_token_id,
        turn_end.token_id if turn_end else None,
    )
    eos_ids = tuple(sorted({i for ids in found for i in _as_ids(ids)}))
    if not eos_ids:
        raise EngineError(
            f"Policy {path} has no end-of-sequence token, so no completion would ever stop. "
            "Set eos_token in its tokenizer_config.json."
        )
    pad_ids = (*_as_ids(tokenizer.pad_token_id), *_as_ids(config.pad_token_id), *eos_ids)
    return eos_ids, pad_ids[0]


def _unknown_warnings(model: PreTrainedModel) -> list[str]:
    unknown, num_rows = unknown_ids(model), model.config.get_text_config().vocab_size
    if unknown is None or len(unknown) <= MANY_UNKNOWN * num_rows:
        return []
    return [
        f"The tokenizer does not know {len(unknown)} of the model's {num_rows} output rows, "
        "which are left out of sampling and learning: does it belong to another model?"
    ]


def _as_ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def save_policy(
    model: PreTrainedModel,
    directory: Path,
    *,
    source_dir: Path,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a policy as a Hugging Face directory, completely or not at all, and check the result.

    Weights are the model's, or those of `state` (by parameter name, in their own dtype: float32
    master weights of a bfloat16 model); tied weights are written once. Tokenizer, chat template,
    generation settings and licence are `source_dir`'s, byte for byte. Replaces `directory`. Raises
    NonFinitePolicy, and writes nothing, if a weight is NaN or infinite.
    """
    weights = _weights_to_write(model, state)
    check_finite(weights, directory.name)
    companions = companion_files(source_dir)
    needed_bytes = sum(w.numel() * w.element_size() for w in weights.values())
    needed_bytes += sum(file.stat().st_size for file in companions)
    with quiet_transformers(), written_whole(directory, needed_bytes=needed_bytes) as partial:
        model.save_pretrained(partial, state_dict=dict(weights))
        _describe_weights(partial / "config.json", weights)
        for file in companions:
            copy = partial / file.relative_to(source_dir)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
        _check_written(type(model), partial, weights)


def _weights_to_write(
    model: PreTrainedModel, state: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    weights = model.state_dict()
    strangers = sorted(set(state or ()) - set(weights))
    if strangers:
        raise EngineError(f"Cannot save weights that the model does not have: {strangers[:3]}.")
    weights.update(state or {})
    for name in model.all_tied_weights_keys:
        weights.pop(name, None)
    return {name: weight.detach() for name, weight in weights.items()}


def _describe_weights(config_file: Path, weights: Mapping[str, Tensor]) -> None:
    """Make config.json name the dtype of the written weights; save_pretrained names the model's."""
    config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    largest = max((w for w in weights.values() if w.is_floating_point()), key=torch.numel)
    config["dtype"] = str(largest.dtype).removeprefix("torch.")
    config.pop("quantization_config", None)
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_written(
    model_class: type[PreTrainedModel], directory: Path, weights: Mapping[str, Tensor]
) -> None:
    """Load the directory without its data, and compare the bits of a few tensors with the
    model's."""
    loader: Any = model_class
    _, info = loader.from_pretrained(
        directory, device_map="meta", local_files_only=True, output_loading_info=True
    )
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise EngineError(f"The policy {directory} was written incorrectly: see weight {wrong[0]}.")
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            names = sorted(set(stored.keys()) & set(weights))
            for name in {names[0], names[len(names) // 2], names[-1]} if names else ():
                meant = weights[name].cpu().contiguous()
                if not _same_bits(stored.get_tensor(name), meant):
                    raise EngineError(
                        f"The policy {directory} was written incorrectly: weight {name} reads "
                        f"back differently. Check the disk."
                    )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    )


def save_merged(source: Path, directory: Path) -> None:
    """Write a base and an adapter as one model into a directory, in the base's precision."""
    loaded = load_policy(source, dtype="auto", device=torch.device("cpu"), trust_remote_code=False)
    whole = directory / "whole"
    save_policy(loaded.model, whole, source_dir=source)
    for path in list(whole.iterdir()):
        path.rename(directory / path.name)
    whole.rmdir()
