"""Policies, prompts and verifiers for tests: tiny, in memory, and without a tokenizer file."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from doubles_models import tiny_model
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rloop.engines.native import attention
from rloop.policies.checkpoint import LoadedPolicy
from rloop.policies.random_model import character_tokenizer
from rloop.policies.renderer import Renderer
from rloop.recipe.config import PromptConfig
from rloop.types import Problem, Verdict, VerdictKind

EOS = 2


def tiny_policy(
    family: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    head_width: int = 8,
) -> LoadedPolicy:
    """Return a random model of 64 tokens under rloop's attention; token 2 ends a completion."""
    model: PreTrainedModel = tiny_model(family, seed=seed, dtype=dtype, head_width=head_width)
    model.set_attn_implementation(attention.register())
    return LoadedPolicy(model=model, renderer=tiny_renderer(), pad_id=0)


def tiny_renderer(stop_ids: tuple[int, ...] = (EOS,)) -> Renderer:
    """Return the character tokenizer's renderer of bare problems."""
    config = PromptConfig(template="{problem}")
    return Renderer(character_tokenizer(), config, stop_ids=stop_ids)


def chat_tokenizer(
    *special: str,
    template: str | None = None,
    adds: tuple[str | None, str | None] = (None, None),
) -> PreTrainedTokenizerFast:
    """Return the character tokenizer with a chat template and more special tokens, from id 100 on.

    It puts `adds` before and behind a text by itself, as those of many models do.
    """
    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    if template is not None:
        tokenizer.chat_template = template
    if any(adds):
        before, behind = adds
        named = [token for token in adds if token]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=" ".join(part for part in (before, "$A", behind) if part),
            special_tokens=[(token, tokenizer.get_vocab()[token]) for token in named],
        )
    return tokenizer


def write_policy(
    directory: Path, tokenizer: PreTrainedTokenizerFast, *, num_rows: int, **config: Any
) -> Path:
    """Write a random Llama of 2 layers, width 32, with so many rows of embeddings."""
    settings: Any = AutoConfig.for_model(
        "llama",
        vocab_size=num_rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=0.2,
        **{"eos_token_id": EOS, **config},
    )
    foreign: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        foreign.from_config(settings).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class InstantVerify:
    """Judges at once: correct when the answer stands in the completion."""

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Return a future that is done."""
        future: Future[Verdict] = Future()
        kind: VerdictKind = "correct" if problem.answer in completion_text else "wrong"
        future.set_result(Verdict(kind=kind, answer=completion_text, verifier_version="test/1"))
        return future


def make_problem(number: int, *, answer: str = "7", task: str = "toy") -> Problem:
    """Return a problem with the given answer."""
    return Problem(
        problem_id=f"{task}/train/{number}",
        task=task,
        question=f"{number}+1=",
        answer=answer,
        verifier="exact",
    )
