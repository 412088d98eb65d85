"""Messages keep every bit on their way, whole or not at all."""

import math
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from doubles_policies import make_problem

from rloop.config import SamplingConfig
from rloop.engines.trl.channel import SocketChannel, queue_pair
from rloop.engines.trl.messages import (
    Done,
    Explore,
    Next,
    Sample,
    Sampled,
    Updated,
    from_json,
    list_adapter,
    to_json,
)
from rloop.types import Completion, Place, PolicyRef

PLACE = Place(run="toy", seed=2**63, iteration=1, phase="explore")
COMPLETION = Completion(
    prompt_text="1+1=\n",
    prompt_ids=(5, 9),
    completion_text="\u00e9\u2028",
    completion_ids=(6, 0),
    behavior_logprobs=(-0.1, -1e-17),
    finish_reason="stop",
)
MESSAGES = [
    Next(),
    Done(path=Path("/runs/a")),
    Sampled(completions=(COMPLETION,), template_version="t", policy_version=3),
    Sample(
        policy="live",
        problems=(make_problem(1),),
        num_samples=2,
        settings=SamplingConfig(max_completion_tokens=3),
        place=PLACE,
    ),
    Explore(
        start=PolicyRef(path=Path("/p"), name="base"),
        place=PLACE,
        problems=(make_problem(1), make_problem(2)),
        rows=(0, 1, 0),
        resume_from=None,
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_a_message_comes_back_from_json_on_one_line(message):
    line = to_json(message)
    assert from_json(line) == message
    assert b"\n" not in line


def test_numbers_that_are_none_come_back():
    found = from_json(to_json(Updated(step=1, metrics={"a": math.nan, "b": -math.inf})))
    assert isinstance(found, Updated)
    assert math.isnan(found.metrics["a"])
    assert found.metrics["b"] == -math.inf


def test_what_is_no_message_is_refused():
    for line in (b"", b"{}", b'{"kind": "explode"}', b'{"kind": "updated", "step": "x"}'):
        with pytest.raises(ValueError, match="validation error"):
            from_json(line)


def test_a_socket_carries_messages_larger_than_its_buffers_in_order():
    ours, theirs = socket.socketpair()
    here, there = SocketChannel(ours), SocketChannel(theirs)
    large = Sampled(completions=(COMPLETION,) * 20_000, template_version="t")

    def send() -> None:
        here.send(large)
        here.send(Next())

    sending = threading.Thread(target=send)
    sending.start()
    assert there.receive(10.0) == large
    assert there.receive(10.0) == Next()
    sending.join()
    assert there.receive(0.01) is None
    here.close()
    with pytest.raises(EOFError):
        there.receive(1.0)
    there.close()


def test_a_queue_goes_both_ways():
    here, there = queue_pair()
    here.send(Next())
    assert there.receive(1.0) == Next()
    there.send(Done())
    assert here.receive(1.0) == Done()
    assert here.receive(0.01) is None


def test_records_among_workers_keep_a_nan():
    broken = replace(COMPLETION, behavior_logprobs=(math.nan, -math.inf, -0.1))
    for kind, record in ((Completion, broken), (tuple[float, ...], broken.behavior_logprobs)):
        adapter = list_adapter(kind)
        (back,) = adapter.validate_json(adapter.dump_json([record]))
        logprobs = back.behavior_logprobs if kind is Completion else back
        assert math.isnan(logprobs[0])
        assert logprobs[1:] == (-math.inf, -0.1)
