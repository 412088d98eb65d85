from pathlib import Path

import pytest
from doubles_tinker import ScriptedServer, free_port

from rloop.check import doctor


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        (["mlflow-skinny"], "1.2 (mlflow-skinny)"),
        (["mlflow", "mlflow-skinny"], "1.2"),
        ([], "present"),
    ],
)
def test_a_package_that_another_distribution_brought_is_named_with_it(owners, said, monkeypatch):
    monkeypatch.setattr("rloop.check.doctor.metadata.version", lambda name: "1.2")
    assert doctor._installed("mlflow", owners) == said


def of_server(url: str, folder: Path) -> dict[str, doctor.Finding]:
    return {one.name: one for one in doctor.examine({}, folder, url) if one.topic == "server"}


def test_a_tinker_server_says_what_it_offers(tmp_path: Path):
    server = ScriptedServer()
    losses = {"ForwardBackwardInput": {"properties": {"loss_fn": {"enum": ["ppo", "cispo"]}}}}
    schema = {
        "info": {"title": "A server", "version": "2"},
        "paths": {},
        "components": {"schemas": losses},
    }
    server.answers = [(200, {"supported_models": [{"model_name": "q"}]}), (200, schema)]
    found = of_server(server.url, tmp_path)
    server.close()
    assert found[server.url].value == "answers (A server 2); does not clip gradients"
    assert "lacks create_session" in found[server.url].remedy
    assert (found["models"].value, found["losses"].value) == ("q", "cispo, ppo")


def test_a_tinker_server_that_is_away_is_told_with_its_address(tmp_path: Path):
    url = f"http://127.0.0.1:{free_port()}"
    found = of_server(url, tmp_path)
    assert found.keys() == {url}
    assert found[url].value == "does not answer"
    assert f"{url} cannot be reached" in found[url].remedy
