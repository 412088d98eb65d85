"""AdamW by hand."""

import torch

from rloop.engines.native.optimizer import AdamW
from rloop.recipe.config import OptimizerConfig


def test_weight_decay_acts_on_matrices_alone():
    """A first step is lr x sign(gradient): 1 - 0.1 x (1 + 0.5 x 1) = 0.85 and 1 - 0.1 = 0.9."""
    masters = {"m": torch.nn.Parameter(torch.ones(2, 2)), "v": torch.nn.Parameter(torch.ones(2))}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    optimizer = AdamW(masters, config)
    for master in masters.values():
        master.grad = torch.full_like(master, 3.0)
    optimizer.step(0.1)
    torch.testing.assert_close(masters["m"].detach(), torch.full((2, 2), 0.85))
    torch.testing.assert_close(masters["v"].detach(), torch.full((2,), 0.9))
