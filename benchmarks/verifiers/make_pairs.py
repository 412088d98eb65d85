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
from references import Reference, load_references, problems
from writing import boxed

HERE = Path(__file__).parent
Pair = dict[str, Any]

# Kinds of reference that are common in real data give more pairs a rule than rare ones.
PAIRS_PER_RULE = {"integer": 8, "fraction": 6, "decimal": 6, "scientific": 8}
PAIRS_OTHERWISE = 4
COMPLETIONS_PER_RULE = 16


def make_pairs(seed: int, per_rule: float = 1.0) -> list[Pair]:
    """Return the pairs, sorted by kind; `per_rule` scales how many each rule gives."""
    by_kind: dict[str, list[Reference]] = defaultdict(list)
    for reference in load_references():
        by_kind[reference.kind].append(reference)
    pairs: list[Pair] = []
    for expected, rules in ((True, right), (False, wrong)):
        for kind, name, rule in rules.CONTENT:
            number = PAIRS_PER_RULE.get(kind, PAIRS_OTHERWISE)
            pairs += _apply(
                by_kind[kind], f"{kind}: {name}", rule, expected, seed, round(number * per_rule), in_box=True
            )
        for kind, name, rule in rules.COMPLETION:
            number = COMPLETIONS_PER_RULE if kind in {"integer", "letter"} else 5
            pairs += _apply(
                by_kind[kind], f"completion: {name}", rule, expected, seed, round(number * per_rule), in_box=False
            )
    pairs += _cross(by_kind, seed, round(80 * per_rule)) + _echoes(seed, round(60 * per_rule))
    return pairs


def _apply(references, kind, rule, expected, seed, number, *, in_box) -> list[Pair]:
    """Apply a rule to references in random order until it has given `number` pairs."""
    rng = Random(f"{seed} {kind} {expected} {references[0].kind if references else ''}")
    pairs: list[Pair] = []
    seen: set[str] = set()
    for reference in rng.sample(references, len(references)) * 3:
        if len(pairs) == number:
            break
        text = rule(reference, rng)
        if text is None:
            continue
        text = boxed(text, rng) if in_box else text
        if reference.answer + text not in seen:
            seen.add(reference.answer + text)
            pairs.append({"answer": reference.answer, "completion": text, "expected": expected, "kind": kind})
    return pairs


def _cross(by_kind: dict[str, list[Reference]], seed: int, number: int) -> list[Pair]:
    """Another problem's reference, of another kind or of another exact value, is wrong."""
    rng = Random(f"{seed} cross")
    numbers = ("integer", "decimal", "fraction", "scientific")
    structures = ("tuple", "matrix", "polynomial", "complex", "interval", "word", "root", "union")
    pairs = []
    while len(pairs) < number:
        kind = rng.choice((*numbers, *structures))
        other_kind = rng.choice(numbers if rng.random() < 0.5 else structures)
        reference, other = rng.choice(by_kind[kind]), rng.choice(by_kind[other_kind])
        is_sure = kind != other_kind if kind in structures or other_kind in structures else reference.parts != other.parts
        if kind in numbers and other_kind in numbers and is_sure:
            is_sure = abs(reference.parts - other.parts) > abs(reference.parts) / 20
        if is_sure:
            pairs.append({
                "answer": reference.answer, "completion": boxed(other.answer, rng), "expected": False,
                "kind": "another problem's reference",
            })  # fmt: skip
    return pairs


def _echoes(seed: int, number: int) -> list[Pair]:
    """The question repeated, with and without a word around it, is not an answer."""
    rng = Random(f"{seed} echo")
    pairs = []
    for question, answer in rng.sample(problems(), number):
        if "boxed" in question or "nswer is" in question:
            continue
        form = rng.choice(["%s", "%s", "I think %s", "The question is: %s", "%s\n\nLet me think.", "Question: %s\nAnswer:", "%s This is easy.", "%s %s"])
        pairs.append({
            "answer": answer, "completion": form.replace("%s", question), "expected": False,
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
    print(f"{len(pairs)} pairs, {right_ones} right and {len(pairs) - right_ones} wrong, {len({p['kind'] for p in pairs})} kinds")


if __name__ == "__main__":
    main()
