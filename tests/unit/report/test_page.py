import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rloop.errors import StoreError
from rloop.report.html import content_policy
from rloop.report.page import write_report

MEGABYTE = 1_000_000


class Page(HTMLParser):
    """What a browser would find: tags with attributes, scripts, and the text outside of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag) -> None:
        self._inside = ""

    def handle_data(self, data) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def read_page(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def said(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


@pytest.fixture(scope="module")
def html(finished_run) -> str:
    return write_report(finished_run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_hostile_text_is_shown_and_never_markup(html, page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 3  # chart data, library, our own
    assert "img" not in tags
    assert "</script><script>alert(1)</script><img src=x onerror=alert(2)>" in page.text
    assert "<U+001B>[31mred<U+001B>[0m<U+202E>evil" in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_hostile_names_cannot_leave_the_chart_data(build_run) -> None:
    run_dir = build_run()
    metrics = run_dir / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("/sums/", "/a</script><img src=x>/"))
    page = read_page(run_dir)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in page.tags]
    assert "a</script><img src=x>" in page.text


def test_page_loads_nothing(html, page) -> None:
    loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert not [tag for tag in page.tags if loading & tag[1].keys()]
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    assert not re.findall(r"url\(|@import", html.split("</style>")[0])
    # names of SVG and Vega-Lite, and addresses inside the library's own messages
    allowed = ("http://www.w3.org/", "https://vega.github.io/", "https://github.com/vega/")
    assert not [
        url for url in re.findall(r"https?://[^\s\"'`)]+", html) if not url.startswith(allowed)
    ]


def test_policy_of_the_page_allows_its_own_scripts_only(page) -> None:
    policies = [attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs]
    _, library, own = page.scripts
    assert policies == [content_policy(library, own)]
    assert "default-src 'none'" in policies[0]
    assert "unsafe-eval" not in policies[0]
    assert "new Function" not in own


def test_every_number_of_the_final_table_is_there(page) -> None:
    text = said(page)
    for row in (
        "base 19.8 % [14.6, 25.0] 70.2 % [63.6, 76.8] 30 6.1 %",
        # 0.344 + 0.17 = 51.4 %, 51.4 - 19.8 = 31.6; 0.71 - 0.09 = 62.0 %, 62.0 - 70.2 = -8.2
        "explored-002 after 20 RL steps, discarded 51.4 % [46.2, 56.6] +31.6 [+28.1, +35.1] "
        "62.0 % [55.4, 68.6] -8.2 [-11.7, -4.7] 30 6.1 %",
        "iter-001 34.4 % [29.2, 39.6] +14.6 [+11.1, +18.1] 73.1 % [66.5, 79.7] +2.9 [-0.6, +6.4]",
        "iter-002 41.2 % [36.0, 46.4] +21.4 [+17.9, +24.9] 72.1 % [65.5, 78.7] +1.9 [-1.6, +5.4]",
    ):
        assert re.sub(r"[ ]", "", row) in re.sub(r"[ ]", "", text)


def test_headline_says_what_is_clear_and_what_is_not(page) -> None:
    text = said(page)
    assert (
        "avg@8 rose from 19.8 % [14.6, 25.0] to 41.2 % [36.0, 46.4]: +21.4 points; the 95 % "
        "interval [+17.9, +24.9] excludes zero." in text
    )
    assert "+1.9 points; the 95 % interval [-1.6, +5.4] includes zero." in text


def test_charts_have_accessible_names(page) -> None:
    charts = [attrs for tag, attrs in page.tags if attrs.get("class") == "chart"]
    specs = json.loads(page.scripts[0])
    assert {attrs["id"] for attrs in charts} == set(specs)
    assert charts
    for attrs in charts:
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"]) > 20


def test_a_long_run_stays_small(build_run) -> None:
    run_dir = build_run(steps=250)  # twice
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.stat().st_size < 3 * MEGABYTE


def test_a_run_that_has_only_begun_says_what_is_missing(build_run) -> None:
    run_dir = build_run()
    for name in ("metrics.jsonl", "events.jsonl", "manifest.json", "environment.json"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "trajectories")
    text = said(read_page(run_dir))
    for sentence in (
        "Not complete: no phase is complete.",
        "No policy has been evaluated yet.",
        "Nothing has been logged yet.",
        "No expert set has been selected yet.",
        "No phase has been timed yet.",
        "No trajectory has been stored yet.",
        "environment.json is missing.",
    ):
        assert sentence in text


def test_a_recipe_alone_gives_a_page(build_run) -> None:
    run_dir = build_run()
    for path in run_dir.iterdir():
        if path.name != "recipe.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "config.json is missing" in said(read_page(run_dir))


def test_a_run_interrupted_inside_exploration_shows_what_it_has(build_run) -> None:
    run_dir = build_run()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()[:9]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + '\n{"iteration": 1, "pha')
    edit_json(
        run_dir / "manifest.json",
        phases={"0/prepare": {}, "0/evaluate/base": {}},
        in_progress={"key": "1/explore", "step": 5},
    )
    text = said(read_page(run_dir))
    assert "the last complete phase is 0/evaluate/base, 1/explore is in progress." in text
    assert "No kept checkpoint has been evaluated since the base" in text


def test_plain_rl_has_no_expert_set_and_keeps_the_explored_policy(build_run) -> None:
    run_dir = build_run()
    edit_json(run_dir / "config.json", expert=None, finetune=None)
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    kept = [row for row in rows if row["phase"] in ("explore", "evaluate")]
    kept = [row for row in kept if not row["policy"].startswith("iter")]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    text = said(read_page(run_dir))
    assert "Plain RL: 2 iterations. Each is 20 RL steps" in text
    assert "Plain RL selects no expert set." in text
    assert "base to explored-002" in text
    assert "excludes zero" in text  # pass@8 fell
    assert "discarded" not in text


def test_null_metrics_are_left_out(build_run) -> None:
    run_dir = build_run()
    text = (run_dir / "metrics.jsonl").read_text()
    text = re.sub(r'"explore/(entropy_mean|groups_mixed_frac)": [^,]+', r'"explore/\1": null', text)
    (run_dir / "metrics.jsonl").write_text(text)
    specs = json.loads(read_page(run_dir).scripts[0])
    assert "entropy_mean" not in specs
    assert "health" in specs


def test_a_folder_that_is_no_run_is_refused(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"is not a run directory: it has none of recipe\.yaml"):
        write_report(tmp_path)


def test_a_damaged_log_is_named_with_its_line(build_run) -> None:
    run_dir = build_run()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl, line 4, is not valid JSON"):
        write_report(run_dir)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not valid JSON"), ("[]", "does not hold a JSON object")],
)
def test_a_damaged_config_is_named(build_run, content: str, message: str) -> None:
    run_dir = build_run()
    (run_dir / "config.json").write_text(content)
    with pytest.raises(StoreError, match=rf"config\.json {message}"):
        write_report(run_dir)


def test_an_evaluation_has_a_page_of_its_own_kind(build_run) -> None:
    run_dir = build_run()
    line = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    (run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    edit_json(run_dir / "manifest.json", phases={"0/evaluation": {}})
    edit_json(run_dir / "config.json", policy={"path": "models/my-model"})
    for name in ("iteration-1", "iteration-2"):
        shutil.rmtree(run_dir / "trajectories" / name)
    page = read_page(run_dir)
    text = said(page)
    assert "Evaluation of my-model" in text
    assert "An evaluation: 8 completions of every held-out problem. Complete." in text
    assert list(json.loads(page.scripts[0])) == ["pass-0"]
    (run_dir / "recipe.yaml").unlink()  # an evaluation never has one
    text += said(read_page(run_dir))
    for absent in ("expert set", "Did it help?", "vs base", "Nothing has been", "recipe.yaml"):
        assert absent not in text


def test_alarms_are_listed_once_and_escaped(build_run) -> None:
    run_dir = build_run()
    alarm = {
        "name": "alarm", "iteration": 1, "phase": "explore", "step": 9, "start": 1.0, "seconds": 0,
        "what": "entropy_collapse", "value": 0.05, "threshold": 0.1, "text": "entropy <b>fell</b>",
    }  # fmt: skip
    with (run_dir / "events.jsonl").open("a") as file:
        # a resumed run did the step again
        file.writelines(f"{json.dumps({**alarm, 'start': start})}\n" for start in (1.0, 2.0))
    page = read_page(run_dir)
    assert said(page).count("Iteration 1, explore, step 9: entropy <b>fell</b>.") == 1


def test_a_run_without_alarms_says_nothing_of_them(page) -> None:
    assert "Alarms" not in said(page)
