"""A run that is being written while it is looked at: files appear, logs are torn, files break."""

import json
import os
import re
import time

import pytest
from doubles_records import group_at, place_at

from rloop.store.trajectories import TrajectoryStore


@pytest.fixture
def begun(runs):
    """A run of which only the recipe is there yet, made from the finished one; returns both."""
    young = runs / "young"
    young.mkdir()
    (young / "config.json").write_bytes((runs / "toy" / "config.json").read_bytes())
    return young


def test_a_run_that_has_just_begun_has_pages(client, runs, begun):
    browser = client(runs)
    assert "0 / 8" in browser.get("/").text
    for page in ("run", "charts", "steps", "problems", "search"):
        assert browser.get(f"/{page}?run=young").status_code == 200
    assert "No trajectory has been stored yet" in browser.get("/steps?run=young").text
    assert "Nothing has been logged yet" in browser.get("/charts?run=young").text


def test_steps_and_runs_appear_between_requests(client, runs, begun):
    browser = client(runs)
    store = TrajectoryStore(begun)
    store.append(place_at(1), [group_at(place_at(1))])
    first = browser.get("/steps?run=young")
    assert re.findall(r">step (\d)<", first.text) == ["1"]
    store.append(place_at(2), [group_at(place_at(2))])
    second = browser.get("/steps?run=young")
    assert re.findall(r">step (\d)<", second.text) == ["1", "2"]
    store.drop_after(1, "explore", 1)
    assert browser.get("/step?run=young&place=1/explore/2").status_code == 404
    assert re.findall(r">step (\d)<", browser.get("/steps?run=young").text) == ["1"]
    begun.rename(runs / "grown")
    assert browser.get("/run?run=young").status_code == 404
    assert browser.get("/run?run=grown").status_code == 200


def test_progress_counts_the_lines_logged_and_a_torn_one_is_left_out(client, runs, begun):
    lines = [
        {"iteration": 1, "phase": "explore", "step": step, "policy": "explored-001",
         "explore/step_s": 30.0, "explore/sampled_tokens_count": 100}
        for step in (1, 2, 3)
    ]  # fmt: skip
    (begun / "manifest.json").write_text('{"phases": {"0/evaluate/base": {"metrics": {}}}}')
    log = begun / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iteration":1,"ph')
    said = client(runs).get("/run?run=young").text
    assert "3 / 4" in said
    assert "3 of 8 RL steps" in said
    # 4 - 3 = 1 step of 30 s to go; 3 x 100 tokens in 3 x 30 s so far.
    assert "1 min 30 s, 300 tokens, about 30 s of steps left" in " ".join(said.split())
    folder = client(runs).get("/").text
    assert "iteration 1, explore, step 3 of 4" in folder


def test_a_damaged_log_or_manifest_is_named_and_the_browser_still_works(client, runs):
    run = runs / "toy"
    for name, broken, said in (
        ("metrics.jsonl", "not json\n{}\n", "it was cut"),
        ("manifest.json", '{"phases"', "is not valid JSON"),
    ):
        whole = (run / name).read_bytes()
        (run / name).write_text(broken)
        browser = client(runs)
        for address in ("/", "/run?run=toy", "/charts?run=toy"):
            response = browser.get(address)
            assert response.status_code == 200
            assert f"{name}" in response.text
            assert said in response.text
        assert browser.get("/step?run=toy&place=1/explore/1").text.count("<article") == 4
        (run / name).write_bytes(whole)


def test_a_damaged_step_is_named_on_every_page_and_breaks_none(client, runs):
    path = runs / "toy/trajectories/iteration-1/phase-explore/step-000002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    browser = client(runs)
    for address in ("/run?run=toy", "/steps?run=toy&iteration=1", "/problems?run=toy"):
        text = browser.get(address).text
        assert "1 damaged file left out" in text
        assert "step-000002.parquet is torn or not a parquet file" in text
    step = browser.get("/step?run=toy&place=1/explore/2")
    assert step.status_code == 200
    assert "step-000002.parquet is torn" in step.text
    assert 'data-key="ArrowRight"' in step.text
    found = browser.get("/search?run=toy&text=so")
    assert "step-000002.parquet is torn" in found.text


def test_pages_know_a_running_run_from_one_that_stopped(client, runs):
    run = runs / "toy"
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["phases"]["2/evaluate/iter-002"], manifest["digest"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert 'class="state-name running"' in client(runs).get("/run?run=toy").text
    an_hour_ago = time.time() - 3600
    for path in [*run.iterdir(), run]:
        os.utime(path, (an_hour_ago, an_hour_ago))
    said = client(runs).get("/run?run=toy").text
    assert 'class="state-name stopped"' in said
    assert "1 h ago" in said
    assert "<code>rloop resume</code> continues it" in said
