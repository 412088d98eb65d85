"""Where machines meet: what is refused before they wait, what they say, and the first Ctrl-C."""

import signal
import socket
import time
from pathlib import Path

import pytest

from rloop.config_trl import LaunchConfig
from rloop.engines.trl import meeting
from rloop.engines.trl.meeting import Waiting, check_meeting, prompt_interrupt
from rloop.errors import ConfigError, EngineError

HERE = "127.0.0.1"
ELSEWHERE = "203.0.113.7"
"""Kept for documentation (RFC 5737): no machine has it."""


def launch(address: str, port: int = 29500, rank: int = 0, machines: int = 2) -> LaunchConfig:
    return LaunchConfig(
        processes=2, machines=machines, machine_rank=rank, address=address, port=port
    )


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["not-a-host.invalid", "a..b"])
def test_an_address_that_cannot_be_resolved_is_named_on_every_machine(name, rank):
    with pytest.raises(ConfigError) as raised:
        check_meeting(launch(name, rank=rank))
    assert f"engine.trl.launch.address={name} cannot be resolved" in str(raised.value)


def test_the_address_is_an_own_one_of_machine_0_alone():
    with pytest.raises(ConfigError, match=r"203\.0\.113\.7 is no address of this machine"):
        check_meeting(launch(ELSEWHERE))
    check_meeting(launch(ELSEWHERE, rank=1))


@pytest.mark.parametrize("listens_at", ["", HERE])
def test_a_port_in_use_is_named_on_machine_0_with_the_setting_that_mends_it(listens_at):
    with socket.socket() as listener:
        listener.bind((listens_at, 0))
        listener.listen()
        port = listener.getsockname()[1]
        said = rf"port {port} is in use on this machine; .*--set engine\.trl\.launch\.port="
        with pytest.raises(EngineError, match=said):
            check_meeting(launch(HERE, port))
        check_meeting(launch(HERE, port, rank=1))
    check_meeting(launch(HERE, port))


def test_a_number_that_is_no_port_is_named():
    with pytest.raises(EngineError, match="port 70000 cannot be opened"):
        check_meeting(launch(HERE, 70000))


def test_one_machine_alone_meets_nobody(capsys, tmp_path: Path):
    alone = launch("not-a-host.invalid", machines=1)
    check_meeting(alone)
    Waiting(alone, tmp_path).tell()
    assert capsys.readouterr().err == ""


def test_a_machine_that_waits_says_since_when_until_when_and_where_the_log_is(
    capsys, monkeypatch, tmp_path: Path
):
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: 1e9 + now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "localtime", time.gmtime)
    waiting = Waiting(launch("near", rank=1), tmp_path / "workers.log")
    for now[0] in range(75):
        waiting.tell()
    # 1e9 s is 2001-09-09 01:46:40; 900 s later it is 02:01:40. Said after 0, 30 and 60 s.
    again = (
        "machine 1 of 2: the others have been awaited at near:29500 since 01:46:40, and will be "
        f"until 02:01:40; the log is {tmp_path}/workers.log"
    )
    assert capsys.readouterr().err.splitlines() == [
        "machine 1 of 2: the others are awaited at near:29500 until 02:01:40",
        again,
        again,
    ]


def test_accelerate_is_told_how_long_to_wait():
    launching = pytest.importorskip("rloop.engines.trl.launch", exc_type=ImportError)
    assert f"--rdzv_conf=timeout={meeting.MEET_S}" in launching.launch_arguments(launch(HERE))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_a_wait_and_later_ones_are_as_before(number):
    heard = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with prompt_interrupt(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert heard == []
        signal.raise_signal(number)
        assert heard == [number]
    finally:
        signal.signal(number, before)
