"""The viewer shows one folder to one machine: what a web page elsewhere, a crafted address, a link
in the folder or a model's text might try.
"""

import os
import stat
from pathlib import Path

import pytest
from doubles_records import group_at, place_at

from rloop.store.trajectories import TrajectoryStore

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\u202eevil"
ADDRESSES = ["/", "/run?run=toy", "/steps?run=toy", "/problems?run=toy"]


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = [folder, *folder.rglob("*")]
    return {
        str(path): (status.st_mtime_ns, status.st_size, status.st_mode)
        for path in found
        if (status := path.lstat())
    }


@pytest.mark.parametrize("host", ["evil.example", "rebound.example:8787", "0.0.0.0:8787", ""])
def test_another_host_name_is_refused(client, runs, host):
    response = client(runs).get("/", headers={"Host": host})
    assert response.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost:8787", "localhost"])
def test_the_names_of_this_machine_are_served(client, runs, host):
    assert client(runs).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_get_and_head_is_answered(client, runs, method):
    response = client(runs).request(method, "/run?run=toy")
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers


def test_head_is_answered_without_a_body(client, runs):
    response = client(runs).head("/run?run=toy")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("address", ["/", "/run?run=toy", "/nowhere", "/static/view.js"])
def test_every_reply_forbids_foreign_scripts_and_sharing(client, runs, address):
    headers = client(runs).get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "name",
    ["..", ".", "../toy", "/etc", "toy/../toy", "toy/", "..%2f..%2fetc", "toy\x00", "%2e%2e", "~"],
)
def test_a_run_is_a_name_of_the_list_and_never_a_path(client, runs, name):
    browser = client(runs / "toy" / "..")
    assert browser.get("/run", params={"run": name}).status_code == 404
    assert browser.get("/step", params={"run": "toy", "place": name}).status_code == 404


@pytest.mark.parametrize(
    "address", ["/..%2f..%2fetc/passwd", "/static/..%2fhtml.py", "//etc/passwd"]
)
def test_a_path_in_the_address_leads_nowhere(client, runs, address):
    assert client(runs).get(address).status_code == 404


def test_links_that_lead_out_are_not_followed(client, runs, tmp_path, finished):
    (runs / "linked").symlink_to(finished)
    secret = tmp_path / "secret.json"
    secret.write_text('{"name": "secret-name", "iterations": 1, "explore": {"steps": 1}}')
    half = runs / "half"
    half.mkdir()
    (half / "config.json").symlink_to(secret)
    (half / "trajectories").symlink_to(finished / "trajectories")
    browser = client(runs)
    listed = browser.get("/").text
    assert "linked" not in listed
    assert browser.get("/run?run=linked").status_code == 404
    page = browser.get("/run?run=half")
    assert "config.json is a symbolic link, and links are not followed." in page.text
    assert "secret" not in page.text + listed
    assert "No trajectory has been stored yet" in browser.get("/steps?run=half").text
    assert "secret" not in browser.get("/charts?run=half").text


def test_the_charts_of_a_run_with_a_link_inside_are_not_drawn(client, runs, tmp_path):
    step = next((runs / "toy" / "trajectories").rglob("phase-evaluate/*.parquet"))
    outside = tmp_path / "outside.parquet"
    step.rename(outside)
    step.symlink_to(outside)
    assert f"{step.name} is a symbolic link" in client(runs).get("/charts?run=toy").text


@pytest.mark.parametrize("value", ["'", '"; drop view groups; --', "' or 1=1 --", "?", "%", "\\"])
def test_quotes_in_parameters_are_text(client, runs, value):
    browser = client(runs)
    assert (
        "No problem matches."
        in browser.get("/problems", params={"run": "toy", "problem": f"x{value}x"}).text
    )
    for page, name in (("/problem", "problem"), ("/run", "run")):
        assert browser.get(page, params={"run": "toy", name: value}).status_code == 404
    filters = dict.fromkeys(("text", "verdict", "finish", "problem"), value)
    for page in ("/search", "/step"):
        response = browser.get(page, params={"run": "toy", "place": "1/explore/1", **filters})
        assert response.status_code == 200


def test_what_a_model_wrote_is_shown_as_text_on_every_page(client, runs):
    run = runs / "toy"
    place = place_at(1, iteration=7)
    group = group_at(place, f"{HOSTILE}/1", [(HOSTILE, True), ("3", False)])
    TrajectoryStore(run).append(place, [group])
    browser = client(runs)
    values = {"run": "toy", "place": "7/explore/1", "group": f"{HOSTILE}/1", "member": 0}
    for page in ("/step", "/completion", "/problems", "/search", "/problem"):
        filters = {"problem": f"{HOSTILE}/1"} if page == "/problem" else {"text": "evil"}
        parameters = values if page in ("/step", "/problems") else {**values, **filters}
        text = browser.get(page, params=parameters).text
        assert "&lt;script&gt;alert(1)" in text, page
        assert "<script>alert" not in text, page
        assert "<img" not in text, page
        assert "\x1b" not in text, page
    assert "&lt;U+001B&gt;[31mred&lt;U+202E&gt;evil" in browser.get("/step", params=values).text


def test_a_query_that_hides_as_markup_is_text(client, runs):
    text = "<script>alert(3)</script>"
    for address in ("/search", "/step"):
        page = (
            client(runs)
            .get(address, params={"run": "toy", "place": "1/explore/1", "text": text})
            .text
        )
        assert text not in page
        assert "&lt;script&gt;alert(3)" in page


@pytest.mark.parametrize("is_read_only", [False, True])
def test_looking_changes_nothing_in_the_folder(client, runs, is_read_only):
    if is_read_only:
        for path in [*runs.rglob("*"), runs]:
            path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    before = snapshot(runs)
    browser = client(runs)
    charts = [] if is_read_only else ["/charts?run=toy"]
    for address in [
        *ADDRESSES,
        *charts,
        "/step?run=toy&place=1/explore/1",
        "/completion?run=toy&place=1/explore/1&group=x&member=0",
        "/search?run=toy&text=so",
        "/problem?run=toy&problem=x",
    ]:
        assert browser.get(address).status_code in (200, 404)
    assert snapshot(runs) == before
    for path in [runs, *runs.rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
