"""What the pages of a finished run say, and that it is what the files hold."""

import json
import os
import re
import shutil
from html import unescape

import pytest
from doubles_runs import trajectories

from rloop.errors import StoreError
from rloop.report.page import write_report
from rloop.view.app import build_app
from rloop.view.problem import problem_in_run, success_row
from rloop.view.runs import ViewedRun


def text_of(response):
    assert response.status_code == 200, response.text
    plain = re.sub(r"<[^>]+>", " ", response.text)
    return " ".join(unescape(plain).split())


def links_of(response):
    return [unescape(found) for found in re.findall(r'href="(/[^"]*)"', response.text)]


def test_the_folder_lists_its_runs_with_state_progress_and_last_numbers(client, runs):
    said = text_of(client(runs).get("/"))
    assert "toy RLoop 0 complete 8 / 8" in said
    assert "avg@4 50.0 %, pass@4 100.0 % iter-002 on held" in said


def test_a_folder_that_is_a_run_leads_to_it(client, finished):
    response = client(finished).get("/")
    assert response.url.path == "/run"
    assert response.url.params["run"] == finished.name


def test_the_run_page_has_its_phases_and_its_final_table(client, runs):
    said = text_of(client(runs).get("/run?run=toy"))
    assert "Iteration 2 explore 4 / 4" in said
    # 2 of 3 prompts x 4 completions are right, 6 of 12 a step; half of 4 samples held out.
    assert "iter-002 50.0 %" in said
    assert "evaluate iter-001" in said


def test_an_evaluation_is_no_run_of_rloop(client, runs):
    toy = runs / "toy"
    lines = (toy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (toy / "metrics.jsonl").write_text(next(x for x in lines if '"base"' in x))
    old = json.loads((toy / "manifest.json").read_text())
    phases: dict[str, object] = {"0/evaluation": {}, "0/evaluate/base": {}}
    manifest = {"version": old["version"], "phases": phases, "in_progress": None}
    (toy / "manifest.json").write_text(json.dumps(manifest))
    config = json.loads((toy / "config.json").read_text())
    config["policy"]["path"] = "policies/base"
    (toy / "config.json").write_text(json.dumps(config))
    assert "toy Evaluation 0 complete" in text_of(client(runs).get("/"))
    said = text_of(client(runs).get("/run?run=toy"))
    assert "toy An evaluation: 4 completions of every held-out problem" in said
    assert "Measured evaluate base" in said
    for absent in ("RLoop", "Before RL", "vs base"):
        assert absent not in said


def test_the_charts_are_those_of_the_report(client, runs):
    response = client(runs).get("/charts?run=toy")
    assert "Learning" in text_of(response)
    assert '<script type="application/json" id="specs">{"' in response.text


def test_every_link_of_every_page_leads_somewhere(client, runs):
    browser, waiting = client(runs), ["/"]
    seen: set[str] = set()
    while waiting:
        address = waiting.pop()
        page = address.split("?")[0]
        if address in seen or sum(other.split("?")[0] == page for other in seen) > 12:
            continue
        seen.add(address)
        response = browser.get(address)
        assert response.status_code == 200, address
        if "text/html" in response.headers["content-type"]:
            waiting += links_of(response)
    pages = {address.split("?")[0] for address in seen}
    assert {"/", "/run", "/steps", "/step", "/completion", "/problems", "/problem"} <= pages


def test_the_steps_of_an_iteration_say_where_to_look(client, runs):
    said = text_of(client(runs).get("/steps?run=toy&iteration=1"))
    # Every group has 2 of 4 right: reward 0.5, all 3 groups mixed.
    assert "step 4 3 12 0.500 100.0 %" in said
    assert "iter-001 held 4 16 50.0 % 100.0 %" in said
    assert client(runs).get("/steps?run=toy").text.count("step 4") == 1


def test_a_step_shows_a_group_side_by_side(client, runs):
    response = client(runs).get("/step?run=toy&place=2/explore/3")
    said = text_of(response)
    rows = trajectories(
        runs / "toy",
        "select * from trajectories where iteration = 2 and step = 3 and phase = 'explore'",
    )
    first = [row for row in rows if row["problem_id"] == rows[0]["problem_id"]]
    assert response.text.count("<article") == len(first) == 4
    assert f"{first[0]['problem_id']} 2 of 4 correct" in said
    assert f"Reference {first[0]['reference']}" in said
    mean = first[1]["behavior_logprob_sum"] / first[1]["completion_tokens"]
    tokens = first[1]["completion_tokens"]
    assert f"no idea reward 0 {tokens} tokens stop log p {mean:.2f}" in said


def test_filters_keep_the_groups_with_a_match_and_count_them(client, runs):
    browser = client(runs)
    wrong = text_of(browser.get("/step?run=toy&place=1/explore/1&verdict=wrong"))
    assert "6 of 12 completions in 3 of 3 groups" in wrong
    found = text_of(browser.get("/step?run=toy&place=1/explore/1&text=SO%20SO"))
    assert "3 of 12 completions in 3 of 3 groups" in found
    none = text_of(browser.get("/step?run=toy&place=1/explore/1&finish=length"))
    assert "No completion of this step matches the filter." in none
    one = browser.get("/step?run=toy&place=1/explore/1&text=no%20idea")
    assert "<mark>no idea</mark>" in one.text
    assert one.text.count('class="card correct other"') == 2


def test_groups_and_steps_have_a_next_and_a_previous(client, runs):
    response = client(runs).get("/step?run=toy&place=1/explore/2")
    keys = dict(re.findall(r'data-key="(\w+)"[^>]*?href="([^"]+)"', response.text))
    assert set(keys) == {"ArrowLeft", "ArrowRight", "j"}
    after = client(runs).get(unescape(keys["j"]))
    assert 'data-key="k"' in after.text


def test_one_problem_is_followed_from_policy_to_policy(client, runs):
    row = trajectories(runs / "toy", "from trajectories where phase = 'evaluate' limit 1")[0]
    address = f"/step?run=toy&place=0/evaluate/0-base-held&group={row['problem_id']}"
    response = client(runs).get(address)
    after = re.search(r'data-key="ArrowRight"[^>]*?href="([^"]+)"', response.text)
    assert after is not None
    said = text_of(client(runs).get(unescape(after[1])))
    assert f"{row['problem_id']} 2 of 4 correct" in said


def test_a_completion_is_shown_whole_with_where_it_comes_from(client, runs):
    row = trajectories(runs / "toy", "from trajectories where phase = 'explore' limit 1")[0]
    place = f"{row['iteration']}/explore/{row['step']}"
    response = client(runs).get(
        "/completion",
        params={"run": "toy", "place": place, "group": row["problem_id"], "member": 0},
    )
    said = text_of(response)
    assert f"seed {row['seed']}" in said
    assert f"group id {row['group_id']}" in said


def test_problems_are_listed_by_success_and_found_by_name(client, runs):
    browser = client(runs)
    said = text_of(browser.get("/problems?run=toy"))
    rows = trajectories(
        runs / "toy",
        "select problem_id, count(distinct group_id || policy) as n, count(*) as size, "
        "sum(correct::int) as c from trajectories group by all order by problem_id",
    )
    for row in rows:
        task = row["problem_id"].split("/")[0]
        asked = f"{row['problem_id'].rpartition('-')[2]}+1="
        assert (
            f"{row['problem_id']} {asked} {task} {row['n']} {row['c']} {row['size']} 50.0 %" in said
        )
    assert "No problem matches." in text_of(browser.get("/problems?run=toy&problem=zebra"))


def test_a_problem_has_its_success_rate_over_all_steps(client, runs):
    row = trajectories(runs / "toy", "from trajectories where phase = 'evaluate' limit 1")[0]
    response = client(runs).get("/problem", params={"run": "toy", "problem": row["problem_id"]})
    said = text_of(response)
    assert "base 2 of 4" in said
    assert "iter-002 2 of 4" in said
    # Two explorations of 4 steps: the last policy stands at step 8.
    assert '"x": 8' in response.text


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/run?run=none", 404, "No run 'none' in runs."),
        ("/run", 404, "No run '' in runs."),
        ("/step?run=toy&place=9/explore/1", 404, "toy has no step '9/explore/1'"),
        (
            "/step?run=toy&place=1/explore/1&group=zebra",
            404,
            "step 1 of toy has no problem 'zebra'",
        ),
        ("/problem?run=toy&problem=zebra", 404, "toy has no problem 'zebra'."),
        ("/completion?run=toy&place=1/explore/1&group=z&member=9", 404, "no completion 9 of 'z'"),
        (
            "/steps?run=toy&iteration=two",
            400,
            "iteration must be a whole number from 0, not 'two'.",
        ),
        ("/nowhere", 404, "Page not found."),
        ("/static/secrets.txt", 404, "File not found."),
    ],
)
def test_an_error_is_a_page_with_a_sentence_and_the_way_back(
    client, runs, address, status, sentence
):
    response = client(runs).get(address)
    assert response.status_code == status
    assert sentence in unescape(response.text)
    assert '<a href="/">All runs</a>' in response.text


def test_a_folder_that_is_not_there_is_said_before_anything_is_served(tmp_path):
    with pytest.raises(StoreError, match="is not a directory; name a run, or a folder of runs"):
        build_app(tmp_path / "nowhere")


def test_the_same_problem_stands_side_by_side_across_runs(client, runs, finished):
    shutil.copytree(finished, runs / "other")
    shutil.copytree(finished, runs / "stranger")
    shutil.rmtree(runs / "stranger" / "trajectories")
    row = trajectories(finished, "from trajectories where phase = 'evaluate' limit 1")[0]
    response = client(runs).get("/problem", params={"run": "toy", "problem": row["problem_id"]})
    said = text_of(response)
    assert "Across runs" in said
    assert "base 2 of 4 2 of 4" in said
    assert "stranger does not have this problem." in said
    one = client(runs).get(
        "/problem", params={"run": "toy", "problem": row["problem_id"], "with": "stranger"}
    )
    assert "By policy" in text_of(one)
    assert "Compare with another run: other" in text_of(one)


def test_the_runs_that_have_the_problem_come_before_newer_ones_of_other_tasks(
    client, runs, finished
):
    for number in range(6):
        other = runs / f"unrelated-{number}"
        shutil.copytree(finished, other)
        config = json.loads((other / "config.json").read_text())
        for name in ("train", "evaluate"):
            for task in config["tasks"][name]:
                task["source"] = "aime"
        (other / "config.json").write_text(json.dumps(config))
    shutil.copytree(finished, runs / "match")
    for path in (runs / "match").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))  # it wrote long before all others
    row = trajectories(finished, "from trajectories where phase = 'evaluate' limit 1")[0]
    said = text_of(
        client(runs).get("/problem", params={"run": "toy", "problem": row["problem_id"]})
    )
    assert "sampled from toy match" in said
    assert "unrelated" not in said


def test_a_problem_s_chart_keeps_policies_apart_from_rl(finished):
    run = ViewedRun("toy", finished)
    run.index.refresh()
    row = trajectories(finished, "from trajectories where phase = 'evaluate' limit 1")[0]
    found = problem_in_run(run, row["problem_id"])
    rows = [success_row("toy", group) for group in found.groups]
    kept = [row["policy"].split(",")[0] for row in rows if row["line"] == "kept"]
    assert kept == ["base", "iter-001", "iter-002"]
    assert {row["line"] for row in rows} == {"kept", "evaluate 1", "evaluate 2"}


def test_the_problems_show_what_they_ask_and_are_found_by_it(client, runs, finished):
    row = trajectories(finished, "from trajectories where phase = 'evaluate' limit 1")[0]
    asked = row["prompt_text"].strip().splitlines()[-1]
    browser = client(runs)
    said = text_of(browser.get("/problems?run=toy"))
    assert f"{row['problem_id']} {asked}" in said
    found = text_of(browser.get("/problems", params={"run": "toy", "problem": asked[-6:].upper()}))
    assert f"{row['problem_id']} {asked}" in found


def test_the_report_is_shown_with_no_scripts_but_its_own(client, runs):
    write_report(runs / "toy")
    browser = client(runs)
    response = browser.get("/report?run=toy")
    assert response.status_code == 200
    assert response.text == (runs / "toy" / "report.html").read_text()
    policy = response.headers["content-security-policy"]
    # What the report says of itself, and nothing that a file could say in its place.
    assert policy.removesuffix("; frame-ancestors 'none'") in unescape(response.text)
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "/report?run=toy" in links_of(browser.get("/run?run=toy"))
    other = runs.parent / "elsewhere.html"
    other.write_text("secret")
    (runs / "toy" / "report.html").unlink()
    (runs / "toy" / "report.html").symlink_to(other)
    assert browser.get("/report?run=toy").status_code == 404
