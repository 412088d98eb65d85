"""Policies, prompts and verifiers for tests: tiny, in memory, and without a tokenizer file."""

from concurrent.futures import Future

import torch
from doubles_models import tiny_model
from transformers import PreTrainedModel

from rloop.engines.native import attention
from rloop.engines.native.policies import LoadedPolicy
from rloop.engines.native.random_model import character_tokenizer
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
    return LoadedPolicy(model=model, tokenizer=character_tokenizer(), eos_ids=(EOS,), pad_id=0)


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
