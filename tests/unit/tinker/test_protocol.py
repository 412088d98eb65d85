"""What the client does when a server is busy, slow, away or says no."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, toy_recipe
from doubles_tinker import ScriptedServer, free_port

from rloop.engines.tinker import protocol
from rloop.engines.tinker.engine import TinkerEngine
from rloop.engines.tinker.protocol import Server, side_by_side
from rloop.errors import EngineError, EngineUnavailable
from rloop.recipe.engine import EngineConfig, TinkerConfig


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(protocol, "FIRST_PAUSE_S", 0.01)
    server = ScriptedServer()
    yield server
    server.close()


def client(url: str, patience_s: float = 5.0) -> Server:
    return Server(TinkerConfig(base_url=url, patience_s=patience_s))


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_under_the_same_number(scripted: ScriptedServer, code: int):
    scripted.answers = [(code, {}), (code, {}), (200, {"request_id": "7"}), (200, {"x": 1})]
    server = client(scripted.url)
    assert server.do("asample", {"model_id": "m"}) == {"x": 1}
    server.close()
    assert [body.get("seq_id") for _, body, _ in scripted.asked] == [1, 1, 1, None]


def test_a_slow_result_is_waited_for(scripted: ScriptedServer):
    scripted.answers = [
        (408, {"detail": "Timeout waiting for result"}),
        (200, {"type": "try_again", "request_id": "7", "queue_state": "active"}),
        (200, {"sequences": []}),
    ]
    server = client(scripted.url)
    assert server.result("7") == {"sequences": []}
    server.close()


def test_a_server_that_stays_away_is_told_of_with_the_remedy():
    server = client(f"http://127.0.0.1:{free_port()}", patience_s=0.6)
    begin = time.monotonic()
    with pytest.raises(EngineError, match=r"cannot be reached.*rloop resume.*patience_s"):
        server.call("create_session", {})
    assert time.monotonic() - begin < 5.0
    server.close()


def test_a_step_is_asked_for_again_only_where_it_was_refused(scripted: ScriptedServer):
    server = client(scripted.url)
    scripted.answers = [(429, {}), (503, {}), (200, {"request_id": "7"})]
    assert server.submit("optim_step", {"model_id": "m"}) == "7"
    for code in (500, 502, 504):
        scripted.answers = [(code, {})]
        with pytest.raises(EngineError, match=f"answers {code} to optim_step, .*rloop resume"):
            server.submit("optim_step", {"model_id": "m"})
    server.close()
    assert len(scripted.asked) == 6


def test_a_step_that_was_broken_off_is_not_done_twice(scripted: ScriptedServer):
    scripted.answers = [None]
    server = client(scripted.url)
    with pytest.raises(EngineError, match=r"may or may not have been done\. `rloop resume`"):
        server.submit("optim_step", {"model_id": "m"})
    assert len(scripted.asked) == 1
    scripted.answers = [None, (200, {"request_id": "8"})]
    assert server.submit("asample", {}) == "8"
    server.close()


def test_refusals_are_told_in_the_servers_words(scripted: ScriptedServer):
    server = client(scripted.url)
    scripted.answers = [(422, {"detail": [{"msg": "Input should be 'ppo'"}]})]
    with pytest.raises(EngineError, match=r"refuses: Input should be 'ppo' \(422\)\."):
        server.call("forward", {})
    scripted.answers = [(400, {"detail": "Model m not loaded"})]
    with pytest.raises(EngineError, match=r"no longer has the model.*rloop resume"):
        server.result("7")
    scripted.answers = [(200, {"error": "out of memory", "category": "server"})]
    with pytest.raises(EngineError, match="refuses: out of memory"):
        server.result("7")
    scripted.answers = [(200, {"error": "Maximum number of LoRA adapters (8) reached"})]
    with pytest.raises(EngineError, match=r"\(8\) reached; a killed run.*rloop resume"):
        server.result("7")
    server.close()


def test_the_key_goes_to_the_server_alone_and_is_never_logged(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")
    elsewhere = ScriptedServer()
    elsewhere.answers = [(200, b"archive")]
    scripted.answers = [(503, {}), (302, f"{elsewhere.url}/signed?token=t")]
    server = client(scripted.url)
    assert server.download("training_runs/m/checkpoints/c/archive") == b"archive"
    scripted.answers = [(401, {"detail": "bad key"})]
    with pytest.raises(EngineUnavailable, match="refuses the key in TINKER_API_KEY") as refusal:
        server.call("create_session", {})
    server.close()
    assert scripted.asked[0][2]["X-API-Key"] == "tml-secret"
    assert "tml-secret" not in str(elsewhere.asked)
    assert "tml-secret" not in caplog.text + str(refusal.value)
    elsewhere.close()


def test_a_refused_run_has_the_key_in_no_file_although_the_server_repeats_it(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")
    scripted.answers = [(400, {"detail": "tml-secret has no credit"})]
    engine = EngineConfig(name="tinker", tinker=TinkerConfig(base_url=scripted.url))
    recipe = toy_recipe(tmp_path).model_copy(update={"engine": engine})
    with pytest.raises(EngineError, match="refuses: TINKER_API_KEY has no credit") as refusal:
        begin(recipe, tmp_path, TinkerEngine)
    assert "tml-secret" not in str(refusal.value) + "".join(capsys.readouterr())
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"config.json", "environment.json", "recipe.yaml"} <= files.keys()
    assert not [name for name, content in files.items() if b"tml-secret" in content]


def test_another_machines_server_needs_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    with pytest.raises(EngineUnavailable, match="export TINKER_API_KEY=KEY"):
        client("https://tinker.example/services")


def test_a_published_schema_tells_what_the_server_offers(scripted: ScriptedServer):
    schemas = {
        "ForwardBackwardInput": {"properties": {"loss_fn": {"enum": ["cross_entropy", "ppo"]}}},
        "AdamParams": {"properties": {"learning_rate": {}}},
        "LoadWeightsRequest": {"properties": {"path": {}, "optimizer": {}}},
    }
    paths: dict[str, Any] = {
        f"/api/v1/{verb}": {} for verb in protocol.NEEDED if verb != "load_weights"
    }
    info = {"title": "Tinker API Mock", "version": "0.0.1"}
    schema = {"info": info, "paths": paths, "components": {"schemas": schemas}}
    scripted.answers = [(200, {"supported_models": [{"model_name": "q"}]}), (200, schema)]
    server = client(scripted.url)
    offers = server.offers
    server.close()
    assert (offers.software, offers.version, offers.models) == ("SkyRL", "0.0.1", ("q",))
    assert offers.lacks == ("load_weights",)
    assert offers.losses == {"cross_entropy", "ppo"}
    assert (offers.clips_gradients, offers.forgets_moments) == (False, True)


def test_many_jobs_are_done_side_by_side_and_the_first_error_is_raised():
    both = threading.Barrier(2, timeout=10)

    def meet(number: int) -> int:
        both.wait()
        return 2 * number

    assert sorted(side_by_side(meet, [1, 2, 3, 4], 2)) == [2, 4, 6, 8]

    def fail(number: int) -> int:
        raise EngineError(f"job {number}")

    with pytest.raises(EngineError, match="job 1"):
        list(side_by_side(fail, [1], 2))


def test_what_is_under_way_beside_a_failure_is_handed_over_before_it_is_raised():
    has_failed = threading.Event()
    begun, found = list[int](), list[int]()

    def sample(number: int) -> int:
        begun.append(number)
        if number == 1:
            has_failed.set()
            raise EngineError("job 1")
        assert has_failed.wait(timeout=10)
        time.sleep(0.1)
        return number

    with pytest.raises(EngineError, match="job 1"):
        found.extend(side_by_side(sample, range(100), 2))
    assert found == [n for n in begun if n != 1]
    assert found[0] == 0
    assert len(begun) < 100


def test_what_is_done_is_handed_over_while_others_are_waited_for():
    """So that verdicts are reached while the server still samples."""
    is_judged = threading.Event()

    def sample(prompt: str) -> str:
        assert prompt == "short" or is_judged.wait(timeout=10)
        return prompt

    found = side_by_side(sample, ["long", "short"], 2)
    assert next(found) == "short"
    is_judged.set()
    assert next(found) == "long"
