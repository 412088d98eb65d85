"""Learning rates by hand."""

from math import cos, pi

import pytest

from rloop.config import OptimizerConfig
from rloop.engines.native.schedule import learning_rate


def test_warm_up_is_linear_and_wastes_no_update():
    config = OptimizerConfig(learning_rate=4.0, warmup_frac=0.4)
    # 0.4 of 10 updates is 4: 1/4, 2/4, 3/4, 4/4 of the peak, then the peak
    rates = [learning_rate(config, index, 10) for index in range(11)]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0])


def test_cosine_falls_from_the_peak_towards_zero_after_the_warm_up():
    config = OptimizerConfig(learning_rate=2.0, warmup_frac=0.2, schedule="cosine")
    rates = [learning_rate(config, index, 10) for index in range(10)]
    # 2 warm-up updates, then 8: 1 + cos(pi i / 8)
    assert rates == pytest.approx([1.0, 2.0] + [1 + cos(pi * i / 8) for i in range(8)])
    assert learning_rate(OptimizerConfig(learning_rate=2.0, schedule="cosine"), 0, 1) == 2.0
