"""The report as a reader meets it: opened from disk in a real Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles_reports import HOSTILE, report_run

from rloop.report.page import write_report

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(report_run(tmp_path_factory.mktemp("scripted")))


@pytest.fixture
def errors() -> list[str]:
    """What the browser complained about, and what it asked the network for."""
    return []


@pytest.fixture
def page(browser, report: Path, errors: list[str]) -> Iterator[Any]:
    found = browser.new_page(viewport=DESKTOP, color_scheme="light")
    found.on("console", lambda message: errors.append(message.text))
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("dialog", lambda dialog: errors.append(dialog.message))
    found.on("request", lambda request: errors.append(request.url))
    found.goto(report.as_uri())
    errors.remove(report.as_uri())
    wait_until_drawn(found)
    yield found
    found.close()


def wait_until_drawn(page: Any) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every((chart) => "
        "chart.querySelector('svg') && chart.getAttribute('role') === 'img')"
    )


def test_every_chart_has_marks_and_nothing_complains_or_leaves_the_page(page, errors) -> None:
    marks = page.eval_on_selector_all(
        ".chart", "charts => charts.map((c) => [c.id, c.querySelectorAll('.mark-group path, "
        ".mark-line path, .mark-rect path, .mark-symbol path').length])"
    )  # fmt: skip
    assert marks
    assert [name for name, number in marks if number < 2] == []
    assert errors == []


def test_hostile_completions_are_text(page, errors) -> None:
    excerpts = page.locator(".excerpt", has_text="document.title")
    assert excerpts.count() > 0
    shown = page.locator("#trajectories pre", has_text="document.title").first.text_content()
    assert shown.startswith(HOSTILE.replace("\x1b", "<U+001B>"))
    assert page.locator("img").count() == 0
    assert page.title() == "toy: rloop report"
    assert errors == []


def test_trajectories_are_filtered_by_verdict_and_text(page) -> None:
    entries = page.locator("#trajectories details:visible")
    everything = entries.count()
    page.select_option("#verdict", "correct")
    correct = entries.count()
    assert 0 < correct < everything
    assert page.locator("#trajectories details:visible .badge.wrong").count() == 0
    assert page.locator("#matches").text_content() == f"{correct} shown"
    page.fill("#query", "IMG SRC")  # letters of either case
    assert 0 < entries.count() < correct
    page.fill("#query", "no such text")
    assert entries.count() == 0


def test_a_change_of_theme_draws_the_charts_again(page) -> None:
    def label_color() -> str:
        color: str = page.locator("#held-out-0 .role-axis-label text").first.get_attribute("fill")
        return color

    light = label_color()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => document.querySelector('#held-out-0 .role-axis-label text')"
        "?.getAttribute('fill') !== before",
        arg=light,
    )
    assert label_color() == "#9ba4b1"  # --muted of the dark theme
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_charts_are_named_and_their_numbers_can_be_read(page) -> None:
    for chart in page.locator(".chart").all():
        assert chart.get_attribute("role") == "img"
        assert len(chart.get_attribute("aria-label")) > 20
    figures, tables = page.locator("figure").count(), page.locator("figure table").count()
    assert figures == tables
    numbers = page.locator("figure:has(#pass-0) details")
    numbers.locator("summary").click()
    assert numbers.locator("tbody tr").first.is_visible()


def test_the_verdict_comes_first_and_in_words(page) -> None:
    headings = page.locator("h2").all_text_contents()
    assert headings == [
        "The verdict",
        "Training reward and held-out accuracy",
        "pass@k against k",
        "What was forgotten",
        "How it explored",
        "How the expert set was selected",
        "What it cost",
        "Sampled completions",
        "Settings",
    ]
    questions = page.locator(".question").all_text_contents()
    assert questions == ["Did it help?", "Does it overfit?", "What was forgotten?"]


def test_a_phone_scrolls_the_page_one_way_only(browser, report: Path) -> None:
    page = browser.new_page(viewport=PHONE)
    page.goto(report.as_uri())
    wait_until_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    widths = page.eval_on_selector_all(
        ".chart svg", "all => all.map((svg) => svg.getBoundingClientRect().right)"
    )
    assert max(widths) <= PHONE["width"]
    page.close()
