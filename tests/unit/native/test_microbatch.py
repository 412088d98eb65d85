"""How sequences are cut and padded, and which models are refused."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from doubles_models import FAMILIES, VOCABULARY, tiny_model
from rloop.engines.native.microbatch import (
    TrainingSequence,
    check_architecture,
    plan_microbatches,
    sequence_logprobs,
)
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


def test_models_that_change_their_logits_are_refused():
    config = GraniteConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=8.0,
    )
    with pytest.raises(EngineError, match="granite model changes its logits"):
        check_architecture(GraniteForCausalLM(config).eval())


def test_soft_caps_are_found_however_small_the_weights():
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=30.0,
    )
    with pytest.raises(EngineError, match="gemma2 model changes its logits"):
        check_architecture(Gemma2ForCausalLM(config).eval())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_usual_models_pass_the_probe(family):
    check_architecture(tiny_model(family))
    check_architecture(tiny_model(family, dtype=torch.bfloat16, tied=False))
