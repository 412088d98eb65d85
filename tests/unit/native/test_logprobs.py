"""Chunked log-probabilities against the plain ones, with gradients."""

from math import log

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rloop.engines.native.logprobs import linear_logprobs

N, V, D = 23, 50, 12


def plain_logprobs(inputs, temperature):
    hidden_ND, weight_VD, bias_V, targets_N = inputs
    logits_NV = torch.nn.functional.linear(hidden_ND, weight_VD, bias_V) / temperature
    all_NV = logits_NV.log_softmax(-1)
    entropy_N = -(all_NV.exp() * all_NV).sum(-1)
    return all_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1), entropy_N


def random_inputs(dtype=torch.float64, *, bias=True, scale=1.0):
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).requires_grad_()

    targets_N = torch.randint(V, (N,), generator=generator)
    return leaf(N, D), leaf(V, D), leaf(V) if bias else None, targets_N


def gradients(loss, inputs):
    return torch.autograd.grad(loss, [tensor for tensor in inputs[:3] if tensor is not None])


def test_two_logits_by_hand():
    # logits (2, 0) at temperature 2 are (1, 0): log p(0) = -log(1 + e^-1) = -0.313262
    # entropy = 0.731059 * 0.313262 + 0.268941 * 1.313262 = 0.582203
    result = linear_logprobs(
        torch.tensor([[1.0]]),
        torch.tensor([[2.0], [0.0]]),
        None,
        torch.tensor([0]),
        temperature=2.0,
    )
    assert result.logprobs_N.item() == pytest.approx(-0.313262, abs=1e-6)
    assert result.entropy_N.item() == pytest.approx(0.582203, abs=1e-6)


def test_equal_logits_have_the_entropy_of_the_vocabulary():
    result = linear_logprobs(
        torch.zeros(3, D), torch.ones(V, D), None, torch.tensor([0, 1, 2]), temperature=1.0
    )
    assert result.logprobs_N.tolist() == pytest.approx([-log(V)] * 3)
    assert result.entropy_N.tolist() == pytest.approx([log(V)] * 3)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("entropy_factor", [0.0, 1.0])
def test_values_and_gradients_equal_the_plain_version_however_chunked(
    rows, bias, temperature, entropy_factor
):
    inputs = random_inputs(torch.float32, bias=bias)
    exact = random_inputs(torch.float64, bias=bias)
    grad_N = torch.linspace(-1, 2, N, dtype=torch.float64)
    grad_entropy_N = entropy_factor * torch.linspace(3, -1, N, dtype=torch.float64)

    result = linear_logprobs(
        *inputs,
        temperature=temperature,
        is_entropy_trained=entropy_factor > 0.0,
        chunk_bytes=4 * V * rows,
    )
    expected_N, entropy_N = plain_logprobs(exact, temperature)
    torch.testing.assert_close(result.logprobs_N.double(), expected_N, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.entropy_N.double(), entropy_N, rtol=1e-5, atol=1e-5)
    sums_N = result.logprobs_N * grad_N.float() + result.entropy_N * grad_entropy_N.float()
    found = gradients(sums_N.sum(), inputs)
    wanted = gradients((expected_N * grad_N + entropy_N * grad_entropy_N).sum(), exact)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


def test_the_entropy_has_no_gradient_unless_it_is_asked_for():
    result = linear_logprobs(*random_inputs(torch.float32), temperature=1.0)
    assert not result.entropy_N.requires_grad


def test_large_logits_neither_overflow_nor_lose_the_gradient():
    inputs = random_inputs(torch.float32, scale=20.0)
    result = linear_logprobs(*inputs, temperature=1.0)
    found = gradients(result.logprobs_N.sum(), inputs)
    assert all(tensor.isfinite().all() for tensor in (*result, *found))


def test_bf16_is_as_exact_as_the_rounding_of_its_logits_allows():
    """The weight's gradient is summed in float32: row by row is as good as all at once."""
    inputs = random_inputs(torch.bfloat16, bias=False)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs[:2]]
    expected_N, _ = plain_logprobs([*exact, None, inputs[3]], 1.0)
    wanted = gradients(expected_N.sum(), [*exact, None])
    for rows in (1, N):
        result = linear_logprobs(*inputs, temperature=1.0, chunk_bytes=4 * V * rows)
        found = gradients(result.logprobs_N.sum(), inputs)
        # bf16 keeps 8 bits: a logit near 10 is wrong by at most 10 / 2^8 = 0.04
        assert (result.logprobs_N - expected_N).abs().max() < 0.05
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype is torch.bfloat16
            assert (one.double() - other).norm() / other.norm() < 0.01


class LargestTensor(TorchDispatchMode):
    """Remembers the largest result of any operation (elements)."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def test_no_tensor_is_larger_than_a_chunk_of_logits_or_the_weight():
    rows = 5
    inputs = random_inputs(torch.float32)
    with LargestTensor() as spy:
        result = linear_logprobs(*inputs, temperature=0.7, chunk_bytes=4 * V * rows)
        result.logprobs_N.sum().backward()
    assert spy.largest == V * D  # the weight's gradient: 600, while N * V = 1150
    assert rows * V < spy.largest < N * V


def test_without_gradients_nothing_is_kept_for_a_backward_pass():
    inputs = random_inputs(torch.float32)
    with torch.no_grad():
        assert not linear_logprobs(*inputs, temperature=1.0).logprobs_N.requires_grad
