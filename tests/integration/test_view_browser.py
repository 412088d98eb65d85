"""`rloop view` in a real Chromium: charts, filters, keys, model text, and a run that grows."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe

from rloop.store.trajectories import TrajectoryStore

RLOOP = str(Path(sys.executable).with_name("rloop"))
HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"


def start(folder: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """Start the viewer; return its process and the address that it prints."""
    process = subprocess.Popen(
        [RLOOP, "view", str(folder), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip().rstrip("/")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete run `toy`, and `young`: the same as it was in its second RL step."""
    folder = tmp_path_factory.mktemp("browser")
    code, run_dir = begin(toy_recipe(folder), folder, scripted())
    assert code == 0
    toy, young = folder / "runs" / "toy", folder / "runs" / "young"
    shutil.copytree(run_dir, toy)
    young.mkdir()
    shutil.copy(toy / "config.json", young)
    (young / "manifest.json").write_text('{"phases": {"0/evaluate/base": {"metrics": {}}}}')
    place = place_at(1, iteration=9)
    TrajectoryStore(toy).append(
        place, [group_at(place, completions=[(HOSTILE, True), ("3", False)])]
    )
    append_step(young, 1, reward=0.25)
    return folder / "runs"


def append_step(run: Path, step: int, reward: float) -> None:
    """Let a run do a step: trajectories first, then the line of the log."""
    TrajectoryStore(run).append(place_at(step), [group_at(place_at(step))])
    line = {"iteration": 1, "phase": "explore", "step": step, "policy": "explored-001"}
    line |= {"explore/reward_mean": reward, "explore/entropy_mean": 1.0, "explore/step_s": 1.0}
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


@pytest.fixture(scope="module")
def address(runs) -> Iterator[str]:
    process, url = start(runs)
    yield url
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A page that must have had nothing to complain about."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []


def test_the_charts_of_a_run_are_drawn(page, address):
    page.goto(f"{address}/run?run=toy")
    page.wait_for_selector(".chart svg")
    page.wait_for_selector(".chart:not(:has(svg))", state="detached")
    assert page.locator(".chart").count() >= 5
    assert page.locator(".chart svg path").count() > 20
    page.locator(".chart svg").first.hover()


def test_a_filter_shows_its_choice_in_the_address_and_on_the_page(page, address):
    page.goto(f"{address}/step?run=toy&place=1/explore/1")
    page.select_option("select[name=verdict]", "wrong")
    page.wait_for_url("**verdict=wrong**")
    assert "text=" not in page.url
    assert "6 of 12 completions" in page.inner_text("output")
    assert page.locator(".card.other").count() == 2
    page.fill("input[name=text]", "no idea")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=no+idea**")
    assert page.locator("mark").first.inner_text() == "no idea"


def test_keys_lead_from_group_to_group_and_from_step_to_step(page, address):
    page.goto(f"{address}/step?run=toy&place=1/explore/2")
    first = page.inner_text(".group h2 a")
    page.keyboard.press("j")
    page.wait_for_url("**group=**")
    assert page.inner_text(".group h2 a") != first
    page.keyboard.press("k")
    page.wait_for_selector(f".group h2 a:text-is('{first}')")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**place=1%2Fexplore%2F3**")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("input[name=text]") == "jk"


def test_a_completion_with_a_script_is_shown_as_text(page, address):
    for path in ("step?run=toy&place=9/explore/1", "search?run=toy&text=script"):
        page.goto(f"{address}/{path}")
        page.wait_for_timeout(200)
        assert "document.title = 'owned'" in page.inner_text("main")
        assert page.title() == "toy: rloop view"
        assert page.locator("main img, main script").count() == 0


def test_the_success_rate_of_a_problem_is_drawn(page, address):
    page.goto(f"{address}/problems?run=toy")
    page.locator("tbody th a").first.click()
    page.wait_for_selector("#success svg path")
    assert page.locator("#success").get_attribute("aria-label").startswith("Success rate")


def test_a_step_that_is_added_shows_without_a_reload(page, address, runs):
    page.goto(f"{address}/run?run=young")
    page.wait_for_selector("#reward_mean svg, .chart svg")
    assert "1 of 8 RL steps" in page.inner_text("#status")
    before = page.inner_html(".chart")
    page.evaluate("window.isSame = true")
    append_step(runs / "young", 2, reward=0.75)
    page.wait_for_selector("#status:has-text('2 of 8 RL steps')")
    while page.inner_html(".chart") == before:
        page.wait_for_timeout(100)
    assert page.evaluate("window.isSame")
    page.goto(f"{address}/steps?run=young")
    append_step(runs / "young", 3, reward=0.75)
    page.wait_for_selector("text=step 3")


def test_a_phone_needs_no_scrolling_sideways(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for path in ("", "run?run=toy", "steps?run=toy", "step?run=toy&place=1/explore/1"):
        page.goto(f"{address}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path
    page.close()


def test_the_end_of_the_server_is_said_on_the_page(browser, runs):
    process, url = start(runs)
    page = browser.new_page()
    page.goto(f"{url}/")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    page.wait_for_selector("#offline:visible")
    page.close()
    assert process.returncode == 0
    assert out == ""
    assert err.count("\n") == 1
    assert str(runs) in err


def test_a_port_in_use_is_one_sentence(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [RLOOP, "view", str(runs), "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        f"Port {port} is in use. Choose another with --port, or --port 0 for a free one.\n"
    )


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    done = subprocess.run(
        [RLOOP, "view", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("is not a directory; name a run, or a folder of runs.\n")
