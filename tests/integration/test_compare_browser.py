"""The comparison page in a real browser: charts drawn, methods chosen, nothing loaded, no error."""

import shutil

import pytest
from doubles_comparison import write_method_run

from rloop.report.compare import compare_runs, write_comparison

RL = {"coldstart": [0, 2, 4, 8], "explored-001@4": [1, 3, 4, 8], "explored-001@8": [0, 4, 4, 8]}
KEPT = {"coldstart": [0, 2, 4, 8], "iter-001": [1, 2, 5, 8], "iter-002": [2, 6, 4, 8]}
HOSTILE = "<img src=x onerror=window.pwned=1><b>"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The page of four methods of two seeds, one run with a hostile name."""
    folder = tmp_path_factory.mktemp("comparison")
    for seed in (0, 1):
        for method in ("rloop", "raft", "rest_em"):
            write_method_run(folder, method, seed, KEPT)
        write_method_run(folder, "rl", seed, RL, tokens=80)
    (folder / "rl-seed-1").rename(folder / HOSTILE)
    (folder / HOSTILE / "report.html").write_text("a report")
    found = compare_runs([folder])
    return found, write_comparison(found, folder / "compare.html")


def open_page(browser, path, **options):
    page = browser.new_page(**options)
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".chart svg")
    assert page.problems.pop(0) == path.as_uri()
    return page


def test_every_chart_is_drawn_with_a_name_and_its_numbers(browser, comparison):
    found, path = comparison
    page = open_page(browser, path)
    for figure in found.figures:
        name = figure.heading.figure_id
        chart = page.locator(f"#{name}")
        chart.locator("svg").wait_for()
        assert chart.get_attribute("aria-label").startswith(figure.heading.title)
        assert page.locator(f"table[data-figure={name}] tbody tr").count() > 0
    assert page.problems == []
    page.close()


def test_a_method_chosen_in_the_legend_stands_alone_with_its_band(browser, comparison):
    _, path = comparison
    page = open_page(browser, path)
    chart = page.locator("#held-out-0")
    faded = "path[aria-roledescription='line mark'], .mark-line path"

    def opacities():
        return chart.locator(faded).evaluate_all(
            "lines => lines.map(l => l.getAttribute('opacity') ?? '1')"
        )

    assert opacities().count("0.12") == 0
    chart.locator(".role-legend text", has_text="Plain RL").click()
    page.wait_for_timeout(300)
    assert opacities().count("0.12") == 3
    assert page.problems == []
    page.close()


def test_a_hostile_name_is_text_and_its_report_is_linked(browser, comparison):
    _, path = comparison
    page = open_page(browser, path)
    link = page.get_by_role("link", name=HOSTILE)
    assert link.count() == 1
    assert page.locator("img").count() == 0
    assert page.evaluate("window.pwned") is None
    link.click()
    assert page.url.endswith("/report.html")
    assert page.inner_text("body") == "a report"
    page.close()


def test_warnings_and_the_verdict_stand_on_the_page(browser, comparison):
    found, path = comparison
    page = open_page(browser, path)
    told = page.locator(".warnings li").all_inner_texts()
    assert told == list(found.warnings)
    assert told[0].startswith("Budgets differ: ")
    assert page.locator(".finding").count() == 3
    # (2+6+4+8)/32 - (0+4+4+8)/32 = 12.5 points
    assert "avg@8 +12.5" in page.locator(".finding").first.inner_text()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_tables_not_the_page(browser, comparison, scheme):
    _, path = comparison
    size = {"width": 390, "height": 800}
    page = open_page(browser, path, viewport=size, color_scheme=scheme)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colors = page.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    assert len(set(colors)) == 2
    assert page.problems == []
    page.close()


def test_the_page_works_after_it_was_moved(browser, comparison, tmp_path):
    _, path = comparison
    page = open_page(browser, shutil.copy(path, tmp_path / "moved.html"))
    assert page.locator(".chart svg").count() > 0
    assert page.problems == []
    page.close()
