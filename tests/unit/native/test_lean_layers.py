"""Lean norms and feed-forward blocks against transformers' own."""

import pytest
import torch
from doubles_models import FAMILIES, VOCABULARY, tiny_gemma, tiny_model
from torch.autograd.graph import saved_tensors_hooks

from rloop.engines.native.lean_layers import lean_layers

IDS = (torch.arange(22) * 7 % VOCABULARY).view(2, 11)


def states_and_gradients(model):
    """The last hidden states, and the gradient of each parameter of the base model."""
    states = model.model(input_ids=IDS, use_cache=False).last_hidden_state
    pull = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    weights = dict(model.model.named_parameters())
    gradients = torch.autograd.grad(states, list(weights.values()), pull.to(states.dtype))
    return states, dict(zip(weights, gradients, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_equal_and_gradients_too_up_to_rounding(family, dtype):
    model = tiny_model(family, dtype=dtype)
    plain, expected = states_and_gradients(model)
    with lean_layers(model):
        lean, found = states_and_gradients(model)
    assert torch.equal(lean, plain)
    # float32: 2^-24 a step. bfloat16 keeps 8 bits, and a key bias has no gradient but rounding.
    share = 1e-5 if dtype == torch.float32 else 3e-2
    floor = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        error = float((found[name] - gradient).norm())
        assert error <= share * max(float(gradient.norm()), 1e-2 * floor), name


def test_gradients_in_bf16_are_as_near_to_float32_as_those_of_transformers():
    exact = tiny_model(dtype=torch.bfloat16).float()
    _, wanted = states_and_gradients(exact)

    def error(found):
        pairs = [(found[name].float(), wanted[name]) for name in wanted]
        return sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5

    model = tiny_model(dtype=torch.bfloat16)
    _, plain = states_and_gradients(model)
    with lean_layers(model):
        _, lean = states_and_gradients(model)
    assert error(lean) < 1.1 * error(plain)


def kept_bytes(module, hidden):
    """What autograd keeps for the backward pass, weights left out."""
    weights = {parameter.data_ptr() for parameter in module.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(hidden)
    assert output.requires_grad
    return sum(nbytes for pointer, nbytes in kept.items() if pointer not in weights)


def test_a_norm_keeps_its_input_and_a_feed_forward_block_gate_and_up_besides():
    model = tiny_model(dtype=torch.bfloat16)
    layer = model.model.layers[0]
    hidden = torch.ones(1, 10, 32, dtype=torch.bfloat16, requires_grad=True)
    plain = kept_bytes(layer.input_layernorm, hidden), kept_bytes(layer.mlp, hidden)
    with lean_layers(model):
        lean = kept_bytes(layer.input_layernorm, hidden), kept_bytes(layer.mlp, hidden)
    # 10 tokens x 32 wide x 2 bytes = 640; gate and up are 10 x 48 x 2 = 960 each
    assert lean == (640, 640 + 2 * 960)
    # transformers: the input in float32 and the norm before its weight; silu(gate) and the product
    assert plain[0] >= 2 * 640 + 640
    assert plain[1] == 640 + 4 * 960


def test_modules_are_their_own_again_after_the_block():
    model = tiny_model()
    with lean_layers(model):
        assert "forward" in vars(model.model.norm)
    assert not any("forward" in vars(module) for module in model.modules())


def test_other_models_are_left_alone():
    model = tiny_gemma()
    with lean_layers(model):
        assert not any("forward" in vars(module) for module in model.modules())
