"""S5 with Hugging Face `datasets`: its ArrowWriter step by step, then filter and select.

Its fastest way: a file that is written batch by batch and memory-mapped to read, questions answered
by columns in pandas. A parquet file a step would be smaller, and copied to such a file to be read.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from contenders.measure import plain_write_s, read_work, report
from contenders.records import steps
from contenders.store_jsonl import CAP, COMPLETION, MAX_SUCCESS_RATE, as_row
from datasets import Dataset, Features, List, Value, disable_caching, disable_progress_bars
from datasets.arrow_writer import ArrowWriter

from rloop.types import Trajectory

FEATURES = Features(
    {
        **{name: Value("string") for name in COMPLETION},
        "prompt_ids": List(Value("int32")),
        "completion_ids": List(Value("int32")),
        "behavior_logprobs": List(Value("float32")),
        "problem_id": Value("string"),
        "member": Value("int32"),
        "verdict": Value("string"),
        "reward": Value("float64"),
        "iteration": Value("int32"),
        "step": Value("int32"),
    }
)


def main() -> None:
    """Store, query, select and report."""
    work = read_work()
    disable_caching()
    disable_progress_bars()
    parts, count, num_steps = {"append": 0.0}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.arrow"
        with path.open("wb") as file, ArrowWriter(stream=file, features=FEATURES) as writer:
            for _, groups in steps(work["shape"]):
                begin = time.perf_counter()
                rows = [t for group in groups for t in group.trajectories]
                writer.write_batch(columns(rows), writer_batch_size=len(rows))
                file.flush()
                os.fsync(file.fileno())
                parts["append"] += time.perf_counter() - begin
                count += len(rows)
                num_steps += 1
            begin = time.perf_counter()
            writer.finalize(close_stream=False)
            parts["append"] += time.perf_counter() - begin
        limits = {"append": plain_write_s(Path(folder), num_steps)}
        begin = time.perf_counter()
        stored = Dataset.from_file(str(path))
        rates = success_rates(stored)
        parts["query"] = time.perf_counter() - begin
        begin = time.perf_counter()
        selected = select(stored, rates)
        selected.to_parquet(str(Path(folder) / "expert.parquet"))
        parts["select"] = time.perf_counter() - begin
    report(parts, count=count, check=len(selected), package="datasets", limits=limits)


def columns(rows: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """Return a step's records by column."""
    records = [as_row(row) for row in rows]
    return {name: [record[name] for record in records] for name in FEATURES}


def success_rates(stored: Dataset) -> "pd.Series[float]":
    """Return the fraction correct of each problem."""
    light = stored.select_columns(["problem_id", "reward"]).with_format("pandas")[:]
    return light.groupby("problem_id")["reward"].mean()


def select(stored: Dataset, rates: "pd.Series[float]") -> Dataset:
    """Return the newest different successes of each hard problem."""
    hard = set(rates[rates <= MAX_SUCCESS_RATE].index)
    found = stored.filter(
        lambda problem, verdict: [
            v == "correct" and p in hard for p, v in zip(problem, verdict, strict=True)
        ],
        input_columns=["problem_id", "verdict"],
        batched=True,
    )
    texts = found.select_columns(["problem_id", "completion_text"]).with_format("pandas")[:]
    kept = texts.drop_duplicates(keep="last").groupby("problem_id").tail(CAP)
    return found.select(kept.index)


if __name__ == "__main__":
    main()
