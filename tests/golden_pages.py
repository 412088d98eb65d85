"""What the pages of a folder of runs say, as text that `diff` compares before and after a change.

    python tests/golden_pages.py RUNS > before.txt

RUNS holds run directories. Written are every word and number of report, viewer and comparison, and
the rows of every chart as their numbers alone, so that a renamed field is no difference.
"""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from rloop.report import compare
from rloop.report.page import write_report
from rloop.store.trajectories import TrajectoryStore
from rloop.view.app import build_app


class Text(HTMLParser):
    """The words of a page, a line an element, and its charts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.specs: dict[str, Any] = {}
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "style") or "data-since" in named:
            self._inside = named.get("id") or tag
        if named.get("aria-label"):
            self.lines.append(f"[{named['aria-label']}]")
        if tag == "a" and named.get("href"):
            self.lines.append(f"({named['href']})")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "specs":
            self.specs = json.loads(data)
        elif self._inside is None and data.strip():
            self.lines.append(" ".join(data.split()))


def describe(name: str, html: str) -> None:
    """Write the words of a page and the numbers of its charts."""
    text = Text()
    text.feed(html)
    sys.stdout.write(f"##### {name}\n" + "\n".join(text.lines) + "\n")
    for chart, spec in sorted(text.specs.items()):
        for rows in sorted((numbers(rows) for rows in datasets(spec)), key=str):
            sys.stdout.write(f"chart {chart}: {len(rows)} rows\n")
            sys.stdout.writelines(f"  {row}\n" for row in rows)


def datasets(spec: Any) -> list[list[dict[str, Any]]]:
    """Return the data in a specification."""
    if not isinstance(spec, dict):
        return (
            [found for member in spec for found in datasets(member)]
            if isinstance(spec, list)
            else []
        )
    found = (
        [spec["values"]]
        if isinstance(spec.get("values"), list)
        and spec["values"]
        and isinstance(spec["values"][0], dict)
        else []
    )
    if "datasets" in spec:
        found += list(spec["datasets"].values())
    return found + [
        rows for key, value in spec.items() if key != "datasets" for rows in datasets(value)
    ]


def numbers(rows: list[dict[str, Any]]) -> list[str]:
    """Return the numbers of each row, sorted, and then the rows."""
    found = []
    for row in rows:
        values = [v for v in row.values() if isinstance(v, int | float) and not isinstance(v, bool)]
        found.append(" ".join(f"{v:.10g}" for v in sorted(values)))
    return sorted(found)


def main(folder: Path) -> None:
    """Describe every page of the folder's runs."""
    runs = sorted(path.parent for path in folder.glob("*/config.json"))
    for run in runs:
        path = write_report(run)
        describe(f"report {run.name}", path.read_text())
        path.unlink()
    pairs = [run for run in runs if "-seed-" in run.name]
    if pairs:
        found = compare.compare_runs(pairs)
        sys.stdout.write(json.dumps(compare.comparison_json(found), indent=1, default=str) + "\n")
        sys.stdout.writelines(f"{row}\n" for row in compare.table_rows(found))
        page = compare.write_comparison(found, folder / "compare.html")
        describe("compare", page.read_text())
        page.unlink()
    client = TestClient(build_app(folder), base_url="http://127.0.0.1:8787")
    for address in addresses(client, runs):
        client.get(address)
        response = client.get(address)
        describe(f"{response.status_code} {address}", response.text)


def addresses(client: TestClient, runs: list[Path]) -> list[str]:
    """Return the viewer's pages to look at."""
    found = ["/"]
    for run in (run for run in runs if run.name[-1] not in "12"):
        name = f"run={run.name}"
        while "data-counting" in client.get(f"/problems?{name}").text:
            pass
        found += [
            f"/run?{name}",
            f"/charts?{name}",
            f"/problems?{name}",
            f"/problems?{name}&order=easiest&problem=1",
        ]
        found += [f"/steps?{name}&iteration={i}" for i in range(3)]
        files = sorted(run.glob("trajectories/*/*/*.parquet"))
        for path in files[:: max(1, len(files) // 4)]:
            iteration, phase = (part.partition("=")[2] for part in path.parts[-3:-1])
            step, _, part = path.stem.removeprefix("step-").partition("-")
            place = f"{iteration}/{phase}/{int(step)}" + (f"-{part}" if part else "")
            found.append(f"/step?{name}&place={place}")
            found.append(f"/step?{name}&place={place}&verdict=wrong&text=1")
        names = "select distinct problem_id from trajectories order by 1 limit 2"
        rows = TrajectoryStore(run).query(names).to_pylist()
        found += [f"/problem?{name}&problem={row['problem_id']}" for row in rows]
        found += [f"/search?{name}&text=7", f"/search?{name}&verdict=correct&phase=evaluate"]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
