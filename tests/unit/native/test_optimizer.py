"""AdamW by hand."""

import torch

from rloop.engines.native.optimizer import make_adamw
from rloop.recipe.config import OptimizerConfig


def test_weight_decay_acts_on_matrices_alone():
    """A first step is lr x sign(gradient): 1 - 0.1 x (1 + 0.5 x 1) = 0.85 and 1 - 0.1 = 0.9."""
    masters = {"m": torch.nn.Parameter(torch.ones(2, 2)), "v": torch.nn.Parameter(torch.ones(2))}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    optimizer = make_adamw(masters, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for master in masters.values():
        master.grad = torch.full_like(master, 3.0)
    optimizer.step()
    torch.testing.assert_close(masters["m"].detach(), torch.full((2, 2), 0.85))
    torch.testing.assert_close(masters["v"].detach(), torch.full((2,), 0.9))
