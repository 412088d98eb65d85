"""Tiny random models with a character tokenizer, made on the spot: for tests and first tries."""

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rloop.errors import EngineError
from rloop.policies.directory import quiet_transformers, written_whole
from rloop.policies.prompts import CHARACTER_TEMPLATE

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
HEAD_WIDTH = 32


def write_random_model(name: str, directory: Path, *, seed: int) -> None:
    """Write the random model `llama`, `qwen2` or `qwen3` as a Hugging Face directory in float32.

    4 layers of width 128 (0.8 M parameters), or as in `llama-2x64`: 2 layers of width 64. The same
    name and seed give the same weights.
    """
    match = re.fullmatch(r"(llama|qwen2|qwen3)(?:-([1-9]\d*)x([1-9]\d*))?", name)
    width = int(match[3] or 128) if match else 0
    if match is None or width % HEAD_WIDTH:
        raise EngineError(
            f"policy.path random:{name} is not known. Give random:llama, random:qwen2 or "
            "random:qwen3, with layers and width where 4x128 does not suit, such as "
            f"random:llama-2x64 (a width in multiples of {HEAD_WIDTH})."
        )
    tokenizer = character_tokenizer()
    num_heads = width // HEAD_WIDTH
    config = AutoConfig.for_model(
        match[1],
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=int(match[2] or 4),
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads // 2 if num_heads % 2 == 0 else num_heads,
        head_dim=HEAD_WIDTH,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto: Any = AutoModelForCausalLM
        model: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    needed_bytes = 4 * model.num_parameters()
    with quiet_transformers(), written_whole(directory, needed_bytes=needed_bytes) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each printable ASCII character and the newline."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=CHARACTER_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer
