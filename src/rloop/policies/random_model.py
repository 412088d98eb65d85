"""Tiny random models with a character tokenizer, created on demand for tests and first tries."""

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

from rloop.policies.directory import quiet_transformers, written_whole
from rloop.policies.model_files import RANDOM_HEAD_WIDTH, read_random_name
from rloop.policies.prompts import CHARACTER_TEMPLATE

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


def write_random_model(name: str, directory: Path, *, seed: int) -> None:
    """Write the random model `llama`, `qwen2` or `qwen3` as a Hugging Face directory in float32.

    4 layers of width 128 (0.8 M parameters), or as in `llama-2x64`: 2 layers of width 64. The same
    name and seed give the same weights.
    """
    kind, layers, width = read_random_name(name)
    tokenizer = character_tokenizer()
    num_heads = width // RANDOM_HEAD_WIDTH
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads // 2 if num_heads % 2 == 0 else num_heads,
        head_dim=RANDOM_HEAD_WIDTH,
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
