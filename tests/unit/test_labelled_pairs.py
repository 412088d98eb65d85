"""The labelled pairs of benchmarks/verifiers, the stored verdicts, and the page that shows both."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "verifiers"))

import compare
import make_pairs
import right
import wrong

ROOT = Path(__file__).parents[2]
PAIRS = compare.load_pairs()


def stored_summaries():
    files = sorted(compare.STORED.glob("*.json"))
    return [compare.summarize(PAIRS, json.loads(path.read_text())) for path in files]


def test_no_pair_stands_there_twice_and_none_with_both_labels():
    assert make_pairs.without_doubts(PAIRS) == PAIRS


def test_every_rule_gave_a_pair_of_its_label():
    for expected, rules in ((True, right.RULES), (False, wrong.RULES)):
        kinds = {pair["kind"] for pair in PAIRS if pair["expected"] is expected}
        names = {f"{kind}: {name}" for kind, name, _ in rules.content_rules}
        names |= {f"completion: {name}" for _, name, _ in rules.completion_rules}
        assert names - kinds == set()


def test_hand_written_pairs_are_in_the_file_as_they_were_written():
    written = make_pairs.without_doubts(make_pairs.hand_written())
    assert PAIRS[: len(written)] == written


def test_errors_are_counted_for_each_label():
    # wrong, right, right, wrong; accepted, accepted, no verdict, rejected
    pairs = [{"expected": label} for label in (False, True, True, False)]
    assert compare.counts(pairs, "11e0", range(4)) == {
        "wrong_accepted": [1, 2],
        "right_rejected": [1, 2],
    }
    assert compare.counts(pairs, "11e0", [2, 3]) == {
        "wrong_accepted": [0, 1],
        "right_rejected": [1, 1],
    }


def test_the_page_shows_the_table_of_the_stored_verdicts():
    page = (ROOT / "docs/explanation/verifiers.md").read_text()
    assert compare.table(stored_summaries()) in page, "run compare.py and put its table there"
