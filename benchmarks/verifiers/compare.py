"""Judge the labelled pairs with rloop's `math` and with other tools, and print the table.

    python benchmarks/verifiers/compare.py                     # the table of the stored verdicts
    python benchmarks/verifiers/compare.py --judge rloop       # judge again, store, then the table
    python benchmarks/verifiers/compare.py --judge trl --python ~/peers/bin/python

A judge runs in a process of its own, under the Python that has its package, and is killed where it
takes longer than `--limit-s` for a pair. A crash, a timeout and "no verdict" count as "wrong".
"""

import argparse
import gzip
import hashlib
import json
import os
import selectors
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from peers import PEERS

HERE = Path(__file__).parent
STORED = HERE / "verdicts"
ACCEPTED, REJECTED, NO_VERDICT, TIMEOUT = "1", "0", "e", "t"
GROUPS = ("all", "boxed", "ordinary")
ORDINARY = {
    "as the reference", "long text before the box", "a worked solution of GSM8K",
    "another problem's reference", "a worked solution of GSM8K, another result", "off by one",
    "other sign", "one digit changed", "one entry changed", "one coefficient changed",
    "another word", "another letter",
}  # fmt: skip
"""Rules whose completions a model writes every day: the reference in a box, or another value."""


def load_pairs(path: Path = HERE / "pairs.jsonl.gz") -> list[dict[str, Any]]:
    """Return the labelled pairs."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fingerprint(pairs: list[dict[str, Any]]) -> str:
    """Name the pairs' texts; stored verdicts belong to one fingerprint."""
    texts = [(pair["answer"], pair["completion"]) for pair in pairs]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


class Judge:
    """A judging process; started again after a timeout or a crash."""

    def __init__(self, name: str, python: str, limit_s: float) -> None:
        """Start it; SystemExit where it does not come up within two minutes."""
        self.command = [python, str(HERE / "peers.py"), name]
        self.limit_s = limit_s
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        first = self._read(limit_s=120)
        if first is None:
            raise SystemExit(f"{' '.join(self.command)} did not start; run it by hand to see why")
        self.versions = first["versions"]

    def _read(self, limit_s: float) -> dict[str, Any] | None:
        line = self.selector.select(limit_s) and self.process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line else None

    def verdict(self, pair: dict[str, Any]) -> tuple[str, float]:
        """Return the verdict's letter and its milliseconds."""
        self.process.stdin.write(json.dumps(pair) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self._read(self.limit_s)
        if answer is None:
            self.process.kill()
            self._start()
            return TIMEOUT, self.limit_s * 1000
        letter = {True: ACCEPTED, False: REJECTED, None: NO_VERDICT}[answer["correct"]]
        return letter, answer["ms"]


def judge_all(judge: Judge, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is stored: a letter for each pair in the pairs' order, and the times."""
    # The first few are slow in every tool: imports and caches.
    for pair in pairs[:: len(pairs) // 40]:
        judge.verdict(pair)
    verdicts, times = zip(*(judge.verdict(pair) for pair in pairs), strict=True)
    judge.process.kill()
    return {
        "versions": judge.versions,
        "pairs": fingerprint(pairs),
        "median_ms": round(median(times), 2),
        "p99_ms": round(quantiles(times, n=100)[98], 1),
        "verdicts": "".join(verdicts),
    }


def counts(pairs: list[dict[str, Any]], verdicts: str, indices: Iterable[int]) -> dict[str, Any]:
    """Return `wrong_accepted` and `right_rejected`, each as [errors, of how many]."""
    accepted: dict[bool, list[bool]] = {True: [], False: []}  # by the label
    for index in indices:
        accepted[pairs[index]["expected"]].append(verdicts[index] == ACCEPTED)
    return {
        "wrong_accepted": [sum(accepted[False]), len(accepted[False])],
        "right_rejected": [accepted[True].count(False), len(accepted[True])],
    }


def summarize(pairs: list[dict[str, Any]], stored: dict[str, Any]) -> dict[str, Any]:
    """Return all figures of one judge: overall, of completions with a box, and by kind."""
    if stored["pairs"] != fingerprint(pairs):
        raise SystemExit(f"the verdicts of {stored['title']} are of other pairs; judge again")
    verdicts = stored["verdicts"]
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        by_kind[pair["kind"]].append(index)
    members = {
        "all": range(len(pairs)),
        "boxed": [n for n, pair in enumerate(pairs) if r"\boxed" in pair["completion"]],
        "ordinary": [
            n for kind, of in by_kind.items() if kind.rpartition(": ")[2] in ORDINARY for n in of
        ],
    }
    return {
        **{key: stored[key] for key in ("title", "versions", "median_ms", "p99_ms")},
        **{group: counts(pairs, verdicts, members[group]) for group in GROUPS},
        "no_verdict": verdicts.count(NO_VERDICT) + verdicts.count(TIMEOUT),
        "by_kind": {kind: counts(pairs, verdicts, of) for kind, of in by_kind.items()},
    }


def table(summaries: list[dict[str, Any]]) -> str:
    """Return the markdown table, the fewest wrong answers accepted first."""
    columns = ["judge"]
    for group in GROUPS:
        for errors, (_, of) in summaries[0][group].items():
            columns.append(f"{errors.replace('_', ' ')}, {group} (of {of})")
    columns += ["median ms", "p99 ms", "no verdict"]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for summary in sorted(summaries, key=lambda s: s["all"]["wrong_accepted"]):
        cells = [summary["title"]]
        for group in GROUPS:
            cells += [f"{errors} ({errors / of:.1%})" for errors, of in summary[group].values()]
        cells += [f"{summary['median_ms']:.2f}", f"{summary['p99_ms']:.1f}"]
        rows.append(f"| {' | '.join(cells)} | {summary['no_verdict']} |")
    return "\n".join(rows)


def kinds_table(summary: dict[str, Any]) -> str:
    """Return the kinds in which a judge errs, as a markdown table."""
    rows = []
    for kind, of_kind in sorted(summary["by_kind"].items()):
        if any(errors for errors, _ in of_kind.values()):
            cells = [f"{errors} of {of}" if of else "" for errors, of in of_kind.values()]
            rows.append(f"| {kind} | {' | '.join(cells)} |")
    head = ["| kind | wrong accepted | right rejected |", "|---|---|---|"]
    return "\n".join([f"Kinds in which {summary['title']} errs:", "", *head, *rows])


def main() -> None:
    """Judge where asked, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--judge", choices=sorted(PEERS), help="judge the pairs with this one, store its verdicts")
    add("--python", default=sys.executable, help="the Python that has its package")
    add("--label", help="mark the stored verdicts, to keep a version beside the present one")
    add("--limit-s", type=float, default=30.0, help="most seconds for one pair (30)")
    add("--kinds", metavar="NAME", help="print the kinds in which this stored judge errs")
    add("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    pairs = load_pairs()
    if args.judge:
        name = f"{args.judge}-{args.label}" if args.label else args.judge
        title = f"{PEERS[args.judge][0]}, {args.label}" if args.label else PEERS[args.judge][0]
        judge = Judge(args.judge, args.python, args.limit_s)
        STORED.mkdir(exist_ok=True)
        result = {"title": title, **judge_all(judge, pairs)}
        (STORED / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    summaries = {
        path.stem: summarize(pairs, json.loads(path.read_text()))
        for path in sorted(STORED.glob("*.json"))
    }
    print(table(list(summaries.values())))
    if args.kinds:
        print("\n" + kinds_table(summaries[args.kinds]))
    if args.json:
        args.json.write_text(json.dumps(summaries, indent=1) + "\n")


if __name__ == "__main__":
    main()
