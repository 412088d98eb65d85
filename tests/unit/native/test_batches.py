"""How sequences are cut and padded, and which models are refused."""

from dataclasses import replace

import pytest
import torch
from doubles_models import FAMILIES, SIZES, VOCABULARY, tiny_gemma, tiny_model
from transformers import (
    AttentionInterface,
    GraniteConfig,
    GraniteForCausalLM,
)

from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.batches import form_microbatches, is_packed, plan_microbatches, plan_packs
from rloop.engines.native.logprobs import check_architecture, sequence_logprobs
from rloop.errors import EngineError


def make_sequences():
    """Prompt and completion lengths all different, random ids."""
    generator = torch.Generator().manual_seed(1)

    def ids(count):
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    lengths = [(3, 5), (7, 2), (1, 9), (4, 4), (2, 1)]
    return [TrainingSequence(prompt_ids=ids(p), completion_ids=ids(c)) for p, c in lengths]


def test_plan_puts_the_longest_first_and_keeps_to_the_budget():
    # 9, 7 -> 2 x 9 = 18 <= 20; adding 5 would be 27. 5, 5, 4, 2 -> 4 x 5 = 20.
    assert plan_microbatches([5, 9, 5, 7, 2, 4], 20) == [[1, 3], [0, 2, 5, 4]]
    assert plan_microbatches([30, 1], 20) == [[0], [1]]  # too long for any batch: alone
    assert plan_microbatches([], 20) == []


def test_packs_are_filled_first_fit_longest_first():
    # 9 + 7 + 4 = 20 and 5 + 5 + 2 = 12, where padding takes 2 x 9 and 4 x 5
    assert plan_packs([5, 9, 5, 7, 2, 4], 20) == [[1, 3, 5], [0, 2, 4]]
    assert plan_packs([30, 1], 20) == [[0], [1]]  # too long for any pack: alone
    assert plan_packs([], 20) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_together_equals_each_alone_and_the_plain_logits(family):
    model = tiny_model(family)
    sequences = make_sequences()
    together = sequence_logprobs(model, sequences, temperature=0.7, microbatch_tokens=1000)
    alone = sequence_logprobs(model, sequences, temperature=0.7, microbatch_tokens=1)
    for sequence, one, other in zip(sequences, together, alone, strict=True):
        assert one == pytest.approx(other, abs=2e-6)
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        with torch.no_grad():
            logits_TV = model(ids, use_cache=False).logits[0, len(sequence.prompt_ids) - 1 : -1]
        expected_TV = (logits_TV / 0.7).log_softmax(-1)
        targets_T1 = torch.tensor(sequence.completion_ids).unsqueeze(-1)
        assert one == pytest.approx(expected_TV.gather(-1, targets_T1).flatten().tolist(), abs=5e-6)


def test_a_shared_row_by_hand():
    model = tiny_model()
    first = TrainingSequence(prompt_ids=(9, 8), completion_ids=(1, 2, 3))
    other = TrainingSequence(prompt_ids=[9, 8], completion_ids=(4, 5))
    alone = TrainingSequence(prompt_ids=(9,), completion_ids=(6, 7))
    shared, single = form_microbatches([other, alone, first], 100, model)
    # the last tokens, 3 and 5, predict nothing and are left out
    assert shared.input_ids_RT.tolist() == [[9, 8, 1, 2, 4]]
    assert shared.position_ids_RT.tolist() == [[0, 1, 2, 3, 2]]
    assert shared.indices_B == (2, 0)
    assert shared.predicting_N.tolist() == [1, 2, 3, 1, 4]
    assert shared.targets_N.tolist() == [1, 2, 3, 4, 5]
    seen = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert shared.mask_R1TT is not None
    assert shared.mask_R1TT.exp().tolist() == [[seen]]  # exp(0) = 1, exp(-inf) = 0
    assert single.mask_R1TT is None
    assert single.input_ids_RT.tolist() == [[9, 6]]


def test_a_packed_row_by_hand():
    model = tiny_model()
    model.set_attn_implementation(attention.register())
    first = TrainingSequence(prompt_ids=(9, 8), completion_ids=(1, 2, 3))
    other = TrainingSequence(prompt_ids=[9, 8], completion_ids=(4, 5))
    alone = TrainingSequence(prompt_ids=(9,), completion_ids=(6, 7))
    (batch,) = form_microbatches([alone, other, first], 100, model)
    assert batch.input_ids_RT.tolist() == [[9, 8, 1, 2, 4, 9, 6]]
    assert batch.position_ids_RT.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert batch.spans == ((0, 2, 0, 0), (2, 4, 0, 2), (4, 5, 0, 2), (5, 7, 5, 5))
    assert batch.mask_R1TT is None
    assert batch.indices_B == (2, 1, 0)
    assert batch.predicting_N.tolist() == [1, 2, 3, 1, 4, 5, 6]
    assert batch.targets_N.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_packed_rows_are_joined_up_to_a_bound_and_a_larger_budget_changes_nothing():
    model = tiny_model()
    model.set_attn_implementation(attention.register())
    sequences = [
        TrainingSequence(prompt_ids=(9, number), completion_ids=(7,) * (length - 1))
        for number, length in enumerate((600, 500, 400))
    ]
    shapes = [batch.input_ids_RT.shape for batch in form_microbatches(sequences, 4096, model)]
    assert shapes == [(1, 600 + 400), (1, 500)]  # 600 + 500 > 1024
    long = [replace(sequences[0], completion_ids=(7,) * 2000)]
    (alone,) = form_microbatches(long, 4096, model)
    assert alone.input_ids_RT.shape == (1, 2 + 1999)


def make_groups():
    """Three prompts with 3, 2 and 1 completions, mixed up."""
    one, two, three, *rest = make_sequences()
    prompts = [one.prompt_ids, two.prompt_ids, one.prompt_ids, three.prompt_ids, two.prompt_ids]
    completions = [s.completion_ids for s in (two, three, one, *rest)]
    return [one] + [
        TrainingSequence(prompt_ids=prompt, completion_ids=completion)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("implementation", ["rloop", "sdpa", "eager"])
def test_a_shared_prompt_gives_what_separate_rows_give(family, implementation):
    attention.register()
    model = tiny_model(family)
    model.set_attn_implementation(implementation)
    sequences = make_groups()
    batches = list(form_microbatches(sequences, 1000, model))
    assert len(batches) == (1 if is_packed(model) else 2)  # shared rows need a mask, others none
    together = sequence_logprobs(model, sequences, temperature=0.7, microbatch_tokens=1000)
    separate = sequence_logprobs(model, sequences, temperature=0.7, microbatch_tokens=1)
    for one, other in zip(together, separate, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize(("budget", "expected"), [(1000, 4 + 3 * 1), (1, 3 * (4 + 1))])
def test_the_model_computes_a_shared_prompt_once(budget, expected):
    model = tiny_model()
    group = [TrainingSequence(prompt_ids=(1, 2, 3, 4), completion_ids=(i, 7)) for i in range(3)]
    computed = []
    model.model.embed_tokens.register_forward_hook(
        lambda *call: computed.append(call[1][0].numel())
    )
    sequence_logprobs(model, group, temperature=1.0, microbatch_tokens=budget)
    assert sum(computed) == expected


def test_models_that_keep_the_spans_from_attention_are_refused():
    model = tiny_model()
    model.set_attn_implementation(attention.register())
    for layer in model.model.layers:
        forward = layer.self_attn.forward
        layer.self_attn.forward = lambda spans=(), forward=forward, **rest: forward(**rest)
    with pytest.raises(EngineError, match="does not follow the attention mask and positions"):
        check_architecture(model)


def test_models_that_ignore_the_mask_are_refused():
    def causal_only(module, query, key, value, attention_mask, **settings):
        return attention.grouped_attention(module, query, key, value, None, **settings)

    AttentionInterface.register("causal_only", causal_only)
    model = tiny_model()
    model.set_attn_implementation("causal_only")
    with pytest.raises(EngineError, match="does not follow the attention mask and positions"):
        check_architecture(model)


def test_models_that_change_their_logits_are_refused():
    config = GraniteConfig(**SIZES, num_hidden_layers=1, logits_scaling=8.0)
    with pytest.raises(EngineError, match="granite model changes its logits"):
        check_architecture(GraniteForCausalLM(config).eval())


def test_soft_caps_are_found_however_small_the_weights():
    with pytest.raises(EngineError, match="gemma2 model changes its logits"):
        check_architecture(tiny_gemma())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_usual_models_pass_the_probe(family):
    check_architecture(tiny_model(family))
    check_architecture(tiny_model(family, dtype=torch.bfloat16, tied=False))
