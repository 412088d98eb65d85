"""Every link in README and docs leads to a file and a heading that exist."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for room in ("docs", "examples", "benchmarks")
            for page in (ROOT / room).rglob("*.md")
        ),
    ]
)
QUOTED = re.compile(
    r"\b(?:docs|examples|recipes|proof|benchmarks)/[\w./-]*\w\.(?:md|py|yaml|html|png)\b"
)


def tokens(page: Path) -> list[Token]:
    """Return the tokens of a page, those inside lines included."""
    blocks = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    return [token for block in blocks for token in (block, *(block.children or []))]


def targets(page: Path) -> list[str]:
    """Return where a page's links and pictures lead, without those to the web."""
    found = [str(t.attrGet("href") or t.attrGet("src") or "") for t in tokens(page)]
    return [target for target in found if target and not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    found = tokens(page)
    titles = [found[i + 1].content for i, t in enumerate(found) if t.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    broken = []
    for target in targets(page):
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("it names files of the past")
    named = QUOTED.findall(page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_file_of_docs_that_the_code_names_exists():
    sources = [
        p for room in ("src", "recipes", "proof", "examples") for p in (ROOT / room).rglob("*.*")
    ]
    texts = {p: p.read_text() for p in sources if p.suffix in {".py", ".yaml", ".j2", ".js"}}
    named = {(p.name, name) for p, text in texts.items() for name in QUOTED.findall(text)}
    docs = {(where, name) for where, name in named if name.startswith("docs/")}
    assert [pair for pair in sorted(docs) if not (ROOT / pair[1]).exists()] == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: of two\n\n[a](b.md) [c](#a-title-of-two) [w](https://x.org) ![p](q.png)\n"
    )
    assert targets(page) == ["b.md", "#a-title-of-two", "q.png"]
    assert anchors(page) == {"a-title-of-two"}
