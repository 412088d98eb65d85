"""Output rows without a token: left out by sampler and learner alike."""

from pathlib import Path

import pytest
import torch
from doubles_policies import chat_tokenizer, make_problem, write_policy

from rloop.algo.objective import Objective
from rloop.engines.base import SampleRequest, TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.engines.native.logprobs import sequence_logprobs
from rloop.engines.native.sampler import Sampler
from rloop.policies.checkpoint import LoadedPolicy, load_policy, save_policy
from rloop.policies.vocabulary import unknown_ids
from rloop.recipe.config import OptimizerConfig, SamplingConfig
from rloop.recipe.engine import EngineConfig

NUM_TOKENS, NUM_ROWS = 100, 128


def load(path: Path, dtype: torch.dtype = torch.float32) -> LoadedPolicy:
    return load_policy(
        path,
        dtype=dtype,
        device=torch.device("cpu"),
        trust_remote_code=False,
        attn_implementation=attention.register(),
    )


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """A model of 128 rows for 100 tokens, in which those without a token are the likeliest."""
    path = write_policy(tmp_path / "padded", chat_tokenizer(), num_rows=NUM_ROWS)
    policy = load(path)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[NUM_TOKENS:] *= 5
    save_policy(policy.model, tmp_path / "p", source_dir=path)
    return tmp_path / "p"


def sampled(policy: LoadedPolicy, settings: SamplingConfig, *, is_fused: bool, count: int = 12):
    prompt = policy.renderer.prompt(make_problem(3))
    sampler = Sampler(policy, max_batch=4, prefill_tokens=64, is_fused=is_fused)
    requests = [SampleRequest(prompt.ids, seed) for seed in range(count)]
    return [
        TrainingSequence(
            prompt_ids=prompt.ids,
            completion_ids=found.completion_ids,
            behavior_logprobs=found.behavior_logprobs,
        )
        for _, found in sampler.sample(requests, settings)
    ]


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize(
    "draw",
    [{}, {"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 5}, {"top_p": 0.9}],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_no_token_has_is_never_sampled_and_the_learner_agrees(padded, dtype, draw, is_fused):
    policy = load(padded, dtype)
    settings = SamplingConfig(max_completion_tokens=12, **draw)
    sequences = sampled(policy, settings, is_fused=is_fused)
    assert max(max(s.completion_ids) for s in sequences) < NUM_TOKENS
    found = sequence_logprobs(
        policy.model, sequences, temperature=settings.temperature, microbatch_tokens=64
    )
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    for sequence, logprobs in zip(sequences, found, strict=True):
        assert sequence.behavior_logprobs == pytest.approx(logprobs, abs=tolerance)


def test_probabilities_are_those_of_the_tokens_alone(padded):
    policy = load(padded)
    ids = [1, 40, 41]
    with torch.no_grad():
        logits = policy.model(torch.tensor([ids])).logits[0, -1, :NUM_TOKENS]
    expected = logits.log_softmax(-1)[50].item()
    sequence = TrainingSequence(prompt_ids=ids, completion_ids=[50])
    ((found,),) = sequence_logprobs(policy.model, [sequence], temperature=1.0, microbatch_tokens=64)
    assert found == pytest.approx(expected, abs=1e-5)


def test_an_update_leaves_the_other_rows_alone_and_entropy_is_finite(padded):
    policy = load(padded)
    head = policy.model.get_output_embeddings()
    before = head.weight.detach().clone()
    engine = EngineConfig(microbatch_tokens=32)
    learner = Learner(policy.model, OptimizerConfig(learning_rate=1e-2), engine)
    sequence = TrainingSequence(
        prompt_ids=[1, 40, 41],
        completion_ids=[50, 2],
        behavior_logprobs=[-4.0, -4.0],
        advantage=1.0,
    )
    objective = Objective(loss="dapo", entropy_coef=0.1)
    metrics = learner.update([sequence], objective, learning_rate=1e-2)
    # no more than ln(100) nats can be in a choice among 100 tokens
    assert 0 < metrics["entropy_mean"] <= 4.6052
    learner.close()
    after = policy.model.get_output_embeddings().weight
    assert torch.equal(after[NUM_TOKENS:], before[NUM_TOKENS:])
    assert not torch.equal(after[:NUM_TOKENS], before[:NUM_TOKENS])


def test_holes_in_a_vocabulary_are_left_out_and_named_ends_are_not(tmp_path):
    tokenizer = chat_tokenizer()
    path = write_policy(tmp_path / "m", tokenizer, num_rows=104, eos_token_id=[2, 102])
    unknown = unknown_ids(load(path).model)
    assert unknown is not None
    assert unknown.tolist() == [100, 101, 103]


def test_a_model_without_padding_leaves_out_nothing(tmp_path):
    policy = load(write_policy(tmp_path / "m", chat_tokenizer(), num_rows=NUM_TOKENS))
    assert unknown_ids(policy.model) is None


def test_more_than_padding_is_warned_of(tmp_path, padded):
    problems = [make_problem(3)]
    few = load(write_policy(tmp_path / "few", chat_tokenizer(), num_rows=110))
    assert few.renderer.report(problems).warnings == ()
    (warning,) = load(padded).renderer.report(problems).warnings
    assert "28 of the model's 128 output rows" in warning
