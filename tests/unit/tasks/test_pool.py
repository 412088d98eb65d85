import os
import signal
import subprocess
import sys
import time

import pytest

from rloop.tasks.pool import CLOSED, VerifierPool
from rloop.tasks.verifiers.registry import version_of
from rloop.types import Problem


def problem(verifier, answer="8", **metadata):
    return Problem(
        problem_id="t/0",
        task="t",
        question="?",
        answer=answer,
        verifier=verifier,
        metadata=metadata,
    )


def double(name, answer="-"):
    return problem(f"python:doubles_misbehaving:{name}", answer)


@pytest.fixture
def pool():
    with VerifierPool(num_workers=1, timeout_s=1.0) as pool:
        yield pool


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def ends_soon(process_id):
    deadline = time.monotonic() + 10
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(process_id)


def test_verdicts_come_in_the_order_of_the_pairs():
    texts = [str(i % 10) for i in range(500)]
    with VerifierPool(num_workers=2, timeout_s=5.0) as pool:
        verdicts = pool.verify([(problem("numeric"), text) for text in texts])
    assert [verdict.answer for verdict in verdicts] == texts
    assert [verdict.is_correct for verdict in verdicts] == [text == "8" for text in texts]
    assert {verdict.verifier_version for verdict in verdicts} == {version_of("numeric")}


def test_user_functions_return_booleans_or_verdicts(pool):
    yes, no, own = pool.verify(
        [(double("says_yes"), "yes"), (double("says_yes"), "no"), (double("gives_verdict"), "a")]
    )
    assert (yes.kind, no.kind) == ("correct", "wrong")
    assert yes.verifier_version == "python:doubles_misbehaving:says_yes"
    assert (own.kind, own.answer, own.verifier_version) == ("correct", "a", "mine/3")


def test_a_hang_costs_one_verdict_and_the_next_worker_goes_on(pool):
    asked = double("sleeps_on_hang")
    verdicts = pool.verify([(asked, text) for text in ("a", "hang", "b", "hang", "c")])
    assert [v.kind for v in verdicts] == ["correct", "error", "correct", "error", "correct"]
    assert verdicts[1].reason == "no verdict within 1 s"


def test_a_death_costs_one_verdict_and_says_the_exit_status(pool):
    verdicts = pool.verify([(double("dies_on_die"), text) for text in ("a", "die", "b")])
    assert [v.kind for v in verdicts] == ["correct", "error", "correct"]
    assert verdicts[1].reason == "the verifier's process died with exit status 7"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "the verifier raised KeyError: 'text'"),
        ("returns_nonsense", "returned '5' (str); it must return True or False, a score"),
        ("returns_malformed_verdict", "returned a malformed verdict"),
        ("not_there", "has no function 'not_there'"),
        ("eats_memory", "more than 4 GiB of memory"),
    ],
)
def test_misbehaviour_is_an_error_verdict_that_says_so(pool, name, reason):
    (verdict,) = pool.verify([(double(name), "text")])
    assert verdict.kind == "error"
    assert reason in verdict.reason


def test_a_missing_module_and_odd_metadata_are_error_verdicts(pool):
    missing, odd = pool.verify(
        [(problem("python:no_such_module:f"), "x"), (problem("numeric", odd={1, 2}), "8")]
    )
    assert "No module named 'no_such_module'" in missing.reason
    assert "JSON" in odd.reason
    assert (missing.kind, odd.kind) == ("error", "error")


def test_lone_surrogates_and_null_characters_pass_through(pool):
    (verdict,) = pool.verify([(problem("exact", "a"), "a\ud800\x00")])
    assert verdict.kind == "wrong"


def test_workers_know_no_torch_ignore_ctrl_c_and_stay_the_same_process():
    with VerifierPool(num_workers=1, timeout_s=5.0, patience_s=5.0) as pool:
        assert pool.verify([(double("knows_no_torch"), "")])[0].is_correct
        (first,) = pool.verify([(double("tells_process"), "")])
        os.kill(int(str(first.answer)), signal.SIGINT)
        (second,) = pool.verify([(double("tells_process"), "another text")])
    assert first.answer == second.answer != str(os.getpid())


def test_math_runs_in_the_workers_main_thread(pool):
    tower, plain = pool.verify(
        [(problem("math"), r"\boxed{9^{9^{9^9}}}"), (problem("math"), r"\boxed{8.0}")]
    )
    # In any other thread Python refuses the alarm, and both would be errors.
    assert (tower.kind, plain.kind) == ("wrong", "correct")


def test_close_kills_what_hangs_and_answers_what_waits(tmp_path):
    pool = VerifierPool(num_workers=1, timeout_s=60.0)
    note = tmp_path / "pid"
    futures = [pool.submit(double("tells_process", str(note)), "hang") for _ in range(3)]
    while not note.exists() or not note.read_text():
        time.sleep(0.01)
    pool.close()
    assert [future.result(timeout=1).reason for future in futures] == [CLOSED] * 3
    assert ends_soon(int(note.read_text()))
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(problem("numeric"), "8")


def test_nothing_is_left_when_the_parent_is_killed(tmp_path):
    note = tmp_path / "pid"
    script = (
        "from rloop.tasks.pool import VerifierPool\n"
        "from rloop.types import Problem\n"
        "problem = Problem(problem_id='t/0', task='t', question='?', "
        f"answer={str(note)!r}, verifier='python:doubles_misbehaving:tells_process')\n"
        "VerifierPool(1, 60.0).verify([(problem, 'hang')])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as parent:
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        parent.kill()
    assert ends_soon(int(note.read_text()))


def test_a_worker_that_died_while_idle_costs_no_verdict(pool):
    (first,) = pool.verify([(double("tells_process"), "")])
    os.kill(int(first.answer), signal.SIGKILL)
    while is_running(int(first.answer)):
        time.sleep(0.01)
    (second,) = pool.verify([(double("tells_process"), "another text")])
    assert second.is_correct
    assert second.answer != first.answer


def test_the_same_question_is_judged_once_and_another_reference_is_another_question(pool):
    asked = double("says_yes")
    first, again = pool.submit(asked, "yes"), pool.submit(asked, "yes")
    assert first is again
    assert pool.submit(double("says_yes", "8"), "yes") is not first
    assert first.result(timeout=10).is_correct


def test_a_slow_verdict_does_not_hold_up_the_others(pool):
    hangs = [pool.submit(double("sleeps_on_hang", str(i)), "hang") for i in range(8)]
    others = [pool.submit(double("says_yes"), f"{i}") for i in range(100)]
    assert {future.result(timeout=10).kind for future in others} == {"wrong"}
    assert not any(future.done() for future in hangs)
    # 8 limits of 1 s pass side by side, not one after another
    begin = time.monotonic()
    assert {future.result(timeout=10).reason for future in hangs} == {"no verdict within 1 s"}
    assert time.monotonic() - begin < 5


def seconds_for(hangs):
    """Return the time of 10,000 checks by one worker, one in a hundred of which may hang."""
    pairs = [(problem("math"), rf"\boxed{{{i}}}") for i in range(10_000)]
    if hangs:
        for turn, position in enumerate(range(50, 10_000, 100)):
            name = "sleeps_on_hang" if turn % 2 else "spins_on_hang"
            pairs[position] = (double(name, str(turn)), "hang")
    with VerifierPool(num_workers=1, timeout_s=1.0) as pool:
        pool.verify([(double("sleeps_on_hang"), ""), (problem("math"), r"\boxed{x}")])
        begin = time.monotonic()
        verdicts = pool.verify(pairs)
        seconds = time.monotonic() - begin
    assert sum(verdict.kind == "error" for verdict in verdicts) == (100 if hangs else 0)
    return seconds


@pytest.mark.alone
def test_a_hundred_hangs_among_ten_thousand_checks_cost_at_most_a_fifth_of_their_limits():
    """One after another they would take 100 times the limit of 1 s."""
    assert seconds_for(hangs=True) <= seconds_for(hangs=False) + 20
