import math
import sys

import pytest
from doubles_records import place_at

from rloop.errors import ConfigError
from rloop.observe.run_log import RunLog
from rloop.observe.sinks import open_sinks


def read_scalars(folder) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is optional"
    )
    found = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return {
        tag: [(e.step, round(float(e.tensor_proto.float_val[0]), 6)) for e in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_tensorboard_gets_finite_values_on_a_rising_step(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    log = RunLog(tmp_path, ["tensorboard"])
    log.metrics(place_at(1), {"reward_mean": 0.25, "grad_norm": math.nan})
    log.metrics(place_at(2), {"reward_mean": 0.5})
    log.metrics(place_at(1, iteration=2), {"reward_mean": 0.75})
    log.close()
    assert read_scalars(tmp_path / "tensorboard") == {
        "explore/reward_mean": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "nonfinite_count": [(1, 1.0)],
    }


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_a_missing_package_is_named_with_its_install(name, tmp_path, monkeypatch):
    # None in sys.modules is Python's own way of saying that a package is not there.
    monkeypatch.setitem(sys.modules, name, None)
    for module in [key for key in sys.modules if key.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigError) as caught:
        open_sinks([name], tmp_path)
    assert f'pip install "rloop-rl[{name}]"' in str(caught.value)
    assert name in str(caught.value)


def test_no_sinks_leave_no_trace(tmp_path):
    assert open_sinks([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []
