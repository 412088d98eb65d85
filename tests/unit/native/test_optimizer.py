"""AdamW by hand, and in 8 bits against 32."""

import sys

import pytest
import torch
from doubles_models import tiny_model

from rloop.algo.objective import Objective
from rloop.config import OptimizerConfig
from rloop.config_engine import EngineConfig
from rloop.engines.native.learner import Learner
from rloop.engines.base import TrainingSequence
from rloop.engines.native.optimizer import AdamW
from rloop.errors import EngineError, EngineUnavailable

CONFIG = OptimizerConfig(learning_rate=1e-2)
EXAMPLES = [TrainingSequence(prompt_ids=(5, i), completion_ids=(6, 11, i, 2)) for i in (3, 4)]
compiles = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's compiler, at its import
    pytest.mark.slow,
]


def test_weight_decay_acts_on_matrices_alone():
    """A first step is lr x sign(gradient): 1 - 0.1 x (1 + 0.5 x 1) = 0.85 and 1 - 0.1 = 0.9."""
    masters = {"m": torch.nn.Parameter(torch.ones(2, 2)), "v": torch.nn.Parameter(torch.ones(2))}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    optimizer = AdamW(masters, config, bits=32)
    for master in masters.values():
        master.grad = torch.full_like(master, 3.0)
    optimizer.step(0.1)
    torch.testing.assert_close(masters["m"].detach(), torch.full((2, 2), 0.85))
    torch.testing.assert_close(masters["v"].detach(), torch.full((2,), 0.9))


class TestEightBits:
    pytestmark = compiles

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("torchao")

    def test_a_moment_takes_a_byte_and_steps_stay_close_to_those_in_32_bits(self):
        """Blocks of 256: 1 + 4 / 256 bytes a number, against 4."""
        sizes, found = [], []
        for bits in (8, 32):
            master = torch.nn.Parameter(torch.zeros(64, 128))
            optimizer = AdamW({"m": master}, CONFIG, bits=bits)
            generator = torch.Generator().manual_seed(0)
            for _ in range(5):
                master.grad = torch.randn(64, 128, generator=generator)
                optimizer.step(1e-2)
            state = optimizer.state()
            sizes.append(
                sum(t.numel() * t.element_size() for k, t in state.items() if k != "step.m")
            )
            found.append(master.detach())
        assert sizes == [2 * (64 * 128 + 4 * 32), 2 * 4 * 64 * 128]
        difference = (found[0] - found[1]).norm() / found[1].norm()
        assert 0.0 < difference < 0.05

    def test_it_learns_and_its_state_continues_to_the_bit(self, tmp_path):
        def learner(model):
            engine = EngineConfig(optimizer_bits=8)
            return Learner(model, CONFIG, engine, num_updates=20)

        straight = tiny_model(dtype=torch.bfloat16)
        one = learner(straight)
        losses = []
        for index in range(20):
            if index == 10:
                one.save(tmp_path)
            losses.append(one.update(EXAMPLES, Objective(loss="sft"))["loss_mean"])
        assert losses[-1] < 0.2 < 2.0 < losses[0]
        resumed = tiny_model(dtype=torch.bfloat16, seed=9)
        other = learner(resumed)
        other.load(tmp_path)
        again = [other.update(EXAMPLES, Objective(loss="sft"))["loss_mean"] for _ in range(10)]
        assert again == losses[10:]
        for name, weight in straight.named_parameters():
            assert torch.equal(weight, resumed.get_parameter(name)), name

    def test_without_a_compiler_it_says_what_to_install(self, monkeypatch):
        def step():
            raise torch._dynamo.exc.InternalTorchDynamoError("InvalidCxxCompiler: none found")

        master = torch.nn.Parameter(torch.zeros(2, 2))
        optimizer = AdamW({"m": master}, CONFIG, bits=8)
        monkeypatch.setattr(optimizer._optimizer, "step", step)
        with pytest.raises(EngineError, match=r"InvalidCxxCompiler.*g\+\+.*optimizer_bits=32"):
            optimizer.step(1e-2)


def test_without_torchao_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(EngineUnavailable, match=r"rloop-rl\[torchao\].*optimizer_bits=32"):
        AdamW({"m": torch.nn.Parameter(torch.zeros(2, 2))}, CONFIG, bits=8)
