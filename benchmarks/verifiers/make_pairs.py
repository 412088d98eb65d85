"""Write pairs.jsonl.gz: references, completions and whether each is right, known by construction.

Needs RLOOP_DATA, the folder of the benchmark files. The same seed gives the same file.

    RLOOP_DATA=... python benchmarks/verifiers/make_pairs.py
"""

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import right
import wrong
import wrong_completions  # noqa: F401 (adds its rules to those of wrong.py)
from references import Reference, load_references, problems
from rules import Rule
from writing import boxed

HERE = Path(__file__).parent
Pair = dict[str, Any]

# Kinds of reference that are common in real data give more pairs a rule than rare ones.
PAIRS_PER_RULE = {"integer": 8, "fraction": 6, "decimal": 6, "scientific": 8}
PAIRS_OTHERWISE = 4
# The same for every kind of reference, so that many of it would weigh too much.
PAIRS_OF_A_FULL_STOP = 2
COMPLETIONS_PER_RULE = {"integer": 16, "letter": 16}
COMPLETIONS_OTHERWISE = 5

NUMBERS = ("integer", "decimal", "fraction", "scientific")
STRUCTURES = ("tuple", "matrix", "polynomial", "complex", "interval", "word", "root", "union")
ECHOES = (
    "%s", "%s", "I think %s", "The question is: %s", "%s\n\nLet me think.", "Question: %s\nAnswer:",
    "%s This is easy.", "%s %s",
)  # fmt: skip


def make_pairs(seed: int, scale: float = 1.0) -> list[Pair]:
    """Return the pairs that the rules make; `scale` times as many of each rule."""
    references: dict[str, list[Reference]] = defaultdict(list)
    for reference in load_references():
        references[reference.kind].append(reference)
    pairs: list[Pair] = []
    for expected, rules in ((True, right.RULES), (False, wrong.RULES)):
        for kind, name, rule in rules.content_rules:
            number = PAIRS_PER_RULE.get(kind, PAIRS_OTHERWISE)
            if name == "full stop in the box":
                number = PAIRS_OF_A_FULL_STOP
            rng = Random(f"{seed} {kind}: {name} {expected}")
            texts = _apply(rule, references[kind], round(number * scale), rng)
            pairs += [
                _pair(r, boxed(t, rng), f"{kind}: {name}", expected=expected) for r, t in texts
            ]
        for kind, name, rule in rules.completion_rules:
            number = COMPLETIONS_PER_RULE.get(kind, COMPLETIONS_OTHERWISE)
            rng = Random(f"{seed} {kind} completion: {name} {expected}")
            texts = _apply(rule, references[kind], round(number * scale), rng)
            pairs += [_pair(r, t, f"completion: {name}", expected=expected) for r, t in texts]
    return pairs + _cross(references, seed, round(80 * scale)) + _echoes(seed, round(60 * scale))


def _pair(reference: Reference, completion: str, kind: str, *, expected: bool) -> Pair:
    pair = {"answer": reference.answer, "completion": completion}
    return {**pair, "expected": expected, "kind": kind}


def _apply(
    rule: Rule, references: list[Reference], number: int, rng: Random
) -> list[tuple[Reference, str]]:
    """Return up to `number` references with the rule's text; a rare kind's come again."""
    found: dict[tuple[str, str], tuple[Reference, str]] = {}
    for reference in rng.sample(references, len(references)) * 3:
        if len(found) == number:
            break
        text = rule(reference, rng)
        if text is not None:
            found.setdefault((reference.answer, text), (reference, text))
    return list(found.values())


def _cross(references: dict[str, list[Reference]], seed: int, number: int) -> list[Pair]:
    """Another problem's reference is wrong where it is of another kind or a number far away."""
    rng = Random(f"{seed} cross")
    pairs: list[Pair] = []
    while len(pairs) < number:
        kind, other_kind = rng.choice(NUMBERS + STRUCTURES), rng.choice(NUMBERS + STRUCTURES)
        reference, other = rng.choice(references[kind]), rng.choice(references[other_kind])
        if kind in NUMBERS and other_kind in NUMBERS:
            is_sure = abs(reference.parts - other.parts) > abs(reference.parts) / 20
        else:
            is_sure = kind != other_kind
        if is_sure:
            text = boxed(other.answer, rng)
            pairs.append(_pair(reference, text, "another problem's reference", expected=False))
    return pairs


def _echoes(seed: int, number: int) -> list[Pair]:
    """The question repeated, with and without a word around it, is not an answer."""
    rng = Random(f"{seed} echo")
    pairs = []
    for question, answer in rng.sample(problems(), number):
        if "boxed" not in question and "nswer is" not in question:
            text = rng.choice(ECHOES).replace("%s", question)
            pairs.append({
                "answer": answer, "completion": text, "expected": False,
                "kind": "the question repeated", "problem": question,
            })  # fmt: skip
    return pairs


def hand_written() -> list[Pair]:
    """Return the pairs of handwritten.jsonl; `content` there stands for a plain box around it."""
    pairs = []
    for line in (HERE / "handwritten.jsonl").read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        if "content" in pair:
            pair["completion"] = rf"so \boxed{{{pair.pop('content')}}}"
        pairs.append(pair)
    return pairs


def without_doubts(pairs: list[Pair]) -> list[Pair]:
    """Drop repeated pairs; refuse a pair that stands there with both labels."""
    kept: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        first = kept.setdefault((pair["answer"], pair["completion"]), pair)
        if first["expected"] != pair["expected"]:
            raise ValueError(f"both right and wrong: {first} and {pair}")
    return list(kept.values())


def main() -> None:
    """Write the file and print how many pairs it has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "pairs.jsonl.gz")
    args = parser.parse_args()
    pairs = without_doubts(hand_written() + make_pairs(args.seed))
    lines = [json.dumps(pair, ensure_ascii=False, sort_keys=True) for pair in pairs]
    # No name and no time in the gzip header: the same pairs give the same bytes.
    args.out.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    right_ones = sum(pair["expected"] for pair in pairs)
    kinds = len({pair["kind"] for pair in pairs})
    print(f"{right_ones} right and {len(pairs) - right_ones} wrong pairs of {kinds} kinds")


if __name__ == "__main__":
    main()
