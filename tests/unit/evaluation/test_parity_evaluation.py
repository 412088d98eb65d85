"""avg@n and pass@k on the same counts against lighteval 0.13.0's and lm-eval 0.4.13's functions.

The table holds what `python tests/peer_numbers.py lighteval` and `... lm_eval` printed with numpy
2.4.6 (where both have a metric they print the same digits; avg@n is lighteval's). Where a peer is
installed its numbers are made again, in a new process.
"""

import importlib.util
import json
import subprocess
import sys

import peer_numbers as peer
import pytest

from rloop.evaluation.metrics import problem_values

# samples per problem, then metric and its mean over the problems of peer.NUM_CORRECT
TABLE = """\
1 avg@1 0.4 pass@1 0.4
8 avg@8 0.4722222222222222 pass@1 0.4722222222222222 pass@2 0.5833333333333334
8 pass@4 0.6904761904761905 pass@8 0.7777777777777778
32 avg@32 0.4119318181818182 pass@1 0.4119318181818182 pass@8 0.6758765026840666
32 pass@32 0.8181818181818182
256 avg@256 0.4778645833333333 pass@1 0.47786458333333326 pass@8 0.6162660140457932
256 pass@64 0.7581715871831664 pass@256 0.8888888888888888
"""
PEERS = {
    f"{n} {name}": float(value)
    for n, *cells in map(str.split, TABLE.splitlines())
    for name, value in zip(cells[::2], cells[1::2], strict=True)
}


def test_every_metric_equals_the_peers():
    found: dict[str, float] = {}
    for n, num_correct in peer.NUM_CORRECT.items():
        values = problem_values(n, num_correct, peer.KS[n])
        found |= {f"{n} {name}": float(those.mean()) for name, those in values.items()}
    assert found.keys() == PEERS.keys()
    for name, value in PEERS.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("name", ["lighteval", "lm_eval"])
def test_the_table_is_what_the_peer_computes_now(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; tests/peer_numbers.py says how")
    command = [sys.executable, peer.__file__, name]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    wanted = {key for key in PEERS if name == "lighteval" or "pass@" in key}
    assert found.keys() == wanted
    for key, value in found.items():
        assert value == pytest.approx(PEERS[key], abs=1e-12), key
