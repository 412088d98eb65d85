"""The one attention function against the plain formula."""

import pytest
import torch

from rloop.engines.native import attention
from rloop.engines.native.attention import grouped_attention, takes_grouped_heads


def formula(query, key, value, bias):
    """softmax(Q K^T / sqrt(8) + bias) V, every head with keys of its own."""
    key, value = (states.repeat_interleave(3, dim=1) for states in (key, value))
    scores = query @ key.transpose(-1, -2) / 8**0.5 + bias
    return (scores.softmax(-1) @ value).transpose(1, 2)


def additive(is_seen):
    return torch.zeros(is_seen.shape).masked_fill(~is_seen, float("-inf"))


@pytest.mark.parametrize("kind", ["causal", "bool", "additive", "decode"])
@pytest.mark.parametrize("is_repeated", [False, True])
def test_values_and_gradients_are_those_of_the_formula(kind, is_repeated, monkeypatch):
    if is_repeated:  # as on CUDA
        monkeypatch.setattr(attention, "takes_grouped_heads", lambda *_, **__: False)
    generator = torch.Generator().manual_seed(0)
    num_positions = 1 if kind == "decode" else 7
    shapes = [(2, 6, num_positions, 8), (2, 2, 7, 8), (2, 2, 7, 8)]
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    is_seen = torch.rand(2, 1, num_positions, 7, generator=generator) < 0.5
    is_seen |= torch.eye(7, dtype=torch.bool)[-num_positions:]
    if kind == "causal":
        is_seen = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 1, 7, 7)
    masks = {"causal": None, "additive": additive(is_seen)}
    query, key, value = inputs
    mask = masks.get(kind, is_seen)
    found, _ = grouped_attention(torch.nn.Module(), query, key, value, mask)
    expected = formula(query, key, value, additive(is_seen))
    torch.testing.assert_close(found, expected)
    pull = torch.randn(found.shape, generator=generator)
    gradients = torch.autograd.grad(found, inputs, pull)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, pull))


def test_on_cuda_only_the_flash_kernel_takes_grouped_heads():
    assert takes_grouped_heads("cuda", torch.bfloat16, is_masked=False)
    assert not takes_grouped_heads("cuda", torch.float32, is_masked=False)
    assert not takes_grouped_heads("cuda", torch.bfloat16, is_masked=True)
    assert takes_grouped_heads("cpu", torch.float32, is_masked=True)
