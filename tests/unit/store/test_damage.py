"""Files cut at every byte and with single bits flipped: read as they were written, or named.

Every path that reads trajectories goes through the same check of the footer first, so cuts and
flips there are tried on all bytes with one of them; page bodies are left to parquet's own
checksums, tried here on a sample and on every byte in the soak test. Headers of pages have no
checksum: a query that asks for one column may count other rows then, and reading all columns, as
`rloop store verify` does, names the file.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe

from rloop.errors import StoreError
from rloop.loop.manifest import Manifest
from rloop.run_directory import read_run
from rloop.session.process import resume
from rloop.store.expert import (
    EXAMPLE_COLUMNS,
    read_examples,
    read_problems,
    stream_examples,
    write_expert_set,
)
from rloop.store.parquet import read_groups
from rloop.store.schema import SCHEMA
from rloop.store.trajectories import TrajectoryStore

Read = Callable[[], Any]


def trajectory_file(folder: Path) -> Path:
    """Write a step of four groups: two texts that repeat, one that is not ASCII, an empty one."""
    place = place_at(1)
    texts = [("abcdef" * 3, True), ("x\u00e9y", False), ("", False)]
    groups = [group_at(place, f"sums/train/{number}", texts) for number in range(4)]
    return TrajectoryStore(folder).append(place, groups)


def trajectory_readers(folder: Path) -> Iterator[Read]:
    """Yield every way to read trajectories, each with a store of its own that has seen nothing."""
    store = TrajectoryStore(folder)
    yield store.count
    yield lambda: store.query("select * from trajectories").to_pylist()
    yield lambda: store.query(
        "select count(*) as n from trajectories where reward > 0.5"
    ).to_pylist()
    yield lambda: store.query(
        "select count(*) as n from trajectories where problem_id = 'sums/train/2'"
    ).to_pylist()
    yield lambda: store.rows(1, "explore", 1).to_pylist()
    yield lambda: pa.concat_tables(store.stream()).to_pylist()
    yield lambda: store.light(["seed"]).columns.to_pylist()
    yield lambda: store.pool([1]).columns.to_pylist()
    yield lambda: store.pool([1]).take(np.arange(12), list(SCHEMA.names)).to_pylist()


def expert_file(folder: Path) -> Path:
    """Write an expert set of the successes of `trajectory_file`."""
    trajectory_file(folder)
    rows = TrajectoryStore(folder).rows(1, "explore", 1).slice(0, 3)
    problem: dict[str, object] = {"problem_id": "sums/train/0", "task": "sums", "outcome": "kept"}
    return write_expert_set(
        folder, 1, trajectories=rows.select(EXAMPLE_COLUMNS), weights=[1.0] * 3, problems=[problem]
    )


def expert_readers(folder: Path) -> Iterator[Read]:
    yield lambda: read_examples(folder, 1)
    yield lambda: pa.concat_tables(stream_examples(folder)).to_pylist()
    yield lambda: read_problems(folder, 1).to_pylist()


Case = tuple[Callable[[Path], Path], Callable[[Path], Iterator[Read]]]
FILES: dict[str, Case] = {
    "trajectories": (trajectory_file, trajectory_readers),
    "expert": (expert_file, expert_readers),
}
files = pytest.mark.parametrize("kind", FILES)


def unlike(read: Read, wanted: Any, path: Path) -> str:
    """Return what is wrong with what a reader does with a damaged file; empty when all is well."""
    try:
        return "" if read() == wanted else "other rows"
    except StoreError as error:
        return "" if path.name in str(error) else f"an error without the name: {error}"


@files
def test_a_file_cut_at_every_byte_is_named(tmp_path, kind):
    write, readers = FILES[kind]
    path = write(tmp_path)
    wanted = next(readers(tmp_path))()
    size = path.stat().st_size
    for offset in reversed(range(size)):
        os.truncate(path, offset)
        with pytest.raises(StoreError, match=path.name):
            next(readers(tmp_path))()
    assert wanted


@files
def test_every_reader_names_a_file_that_was_cut(tmp_path, kind):
    write, readers = FILES[kind]
    path = write(tmp_path)
    whole = path.read_bytes()
    wanted = [read() for read in readers(tmp_path)]
    start = footer_start(path)
    for offset in (
        0,
        4,
        len(whole) // 3,
        start - 1,
        start,
        start + 9,
        len(whole) - 8,
        len(whole) - 1,
    ):
        path.write_bytes(whole[:offset])
        said = [unlike(r, w, path) for r, w in zip(readers(tmp_path), wanted, strict=True)]
        assert not any(said), (offset, said)


def footer_start(path: Path) -> int:
    """Return where the footer begins: its length stands before the last four bytes."""
    data = path.read_bytes()
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def flipped(whole: bytes, at: int, rng: random.Random) -> bytes:
    data = bytearray(whole)
    data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


@files
def test_a_bit_flipped_in_every_byte_of_the_footer_and_its_checksum_is_named(tmp_path, kind):
    write, readers = FILES[kind]
    path = write(tmp_path)
    whole, start, rng = path.read_bytes(), footer_start(path), random.Random(0)
    with path.open("r+b", buffering=0) as file:
        for at in (*range(start - 28, start - 12), *range(start - 8, len(whole))):
            os.pwrite(file.fileno(), flipped(whole, at, rng)[at : at + 1], at)
            with pytest.raises(StoreError, match=path.name):
                next(readers(tmp_path))()
            os.pwrite(file.fileno(), whole[at : at + 1], at)


def check_flips(kind: str, folder: Path, positions: Callable[[int], list[int]]) -> None:
    """Check all readers on a file with one bit flipped at each position in turn."""
    write, readers = FILES[kind]
    path = write(folder)
    whole, rng = path.read_bytes(), random.Random(1)
    wanted = [read() for read in readers(folder)]
    num_unnoticed = 0
    for at in positions(len(whole)):
        path.write_bytes(flipped(whole, at, rng))
        said = [unlike(r, w, path) for r, w in zip(readers(folder), wanted, strict=True)]
        if any(said):
            num_unnoticed += 1
            assert set(said) == {"", "other rows"}, (at, said)
            with pytest.raises(StoreError, match=path.name):
                list(read_groups(path))
    assert num_unnoticed <= len(whole) // 1000


@files
def test_a_bit_flipped_anywhere_is_named_or_without_effect(tmp_path, kind):
    """Of the 60 positions none is in the one byte of a page header that changes what is read."""
    check_flips(kind, tmp_path, lambda size: sorted(random.Random(2).sample(range(size), 60)))


@pytest.mark.soak
@files
def test_a_bit_flipped_in_every_byte_is_named_by_who_reads_all_of_it(tmp_path, kind):
    check_flips(kind, tmp_path, lambda size: list(range(size)))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A complete run of one iteration."""
    folder = tmp_path_factory.mktemp("whole")
    code, found = begin(toy_recipe(folder, iterations=1), folder, scripted())
    assert code == 0
    return found


def damage(path: Path) -> Iterator[int]:
    """Flip one bit in every byte of a file, then cut it at every byte; yield after each."""
    whole, rng = path.read_bytes(), random.Random(3)
    with path.open("r+b", buffering=0) as file:
        for at in range(len(whole)):
            os.pwrite(file.fileno(), flipped(whole, at, rng)[at : at + 1], at)
            yield at
            os.pwrite(file.fileno(), whole[at : at + 1], at)
    for offset in reversed(range(len(whole))):
        os.truncate(path, offset)
        yield offset


def for_resume(run_dir: Path) -> Any:
    """Read what `rloop resume` reads first."""
    manifest = Manifest(run_dir)
    manifest.check_logged()
    return manifest.completed(), manifest.in_progress, manifest.recipes


def for_report(run_dir: Path) -> Any:
    """Read what the report reads; a digest whose own name is damaged leaves the rest as it was."""
    record = read_run(run_dir)
    return [record.manifest[key] for key in ("phases", "recipes", "metrics")], record.metrics


@pytest.mark.parametrize("name", ["manifest.json", "metrics.jsonl"])
def test_a_record_cut_or_flipped_at_every_byte_is_named_by_report_and_resume(run_dir, name):
    path = run_dir / name
    whole = path.read_bytes()
    resumed, reported = for_resume(run_dir), for_report(run_dir)
    try:
        for at in damage(path):
            assert not unlike(lambda: for_resume(run_dir), resumed, path), at
            if at % 17 == 0:  # both read by the same two functions; this one is slow
                assert not unlike(lambda: for_report(run_dir), reported, path), at
    finally:
        path.write_bytes(whole)


def test_a_cut_log_stops_resume_itself_and_the_report_of_it(run_dir):
    path = run_dir / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])  # whole lines: no JSON is broken
    try:
        with pytest.raises(StoreError, match=r"metrics\.jsonl has .* it was cut; restore it"):
            resume(run_dir, scripted())
        with pytest.raises(StoreError, match=r"metrics\.jsonl has .* it was cut; restore it"):
            read_run(run_dir)
    finally:
        path.write_bytes(whole)


def test_events_cut_at_every_byte_are_those_before_the_cut(run_dir):
    """They tell the time that things took; nothing is computed from them."""
    path = run_dir / "events.jsonl"
    whole, events = path.read_bytes(), read_run(run_dir).events
    try:
        for offset in range(len(whole)):
            path.write_bytes(whole[:offset])
            assert read_run(run_dir).events == events[: whole[:offset].count(b"\n")]
    finally:
        path.write_bytes(whole)


def test_a_manifest_changed_by_hand_is_refused_until_its_digest_is_removed(run_dir):
    path = run_dir / "manifest.json"
    whole = path.read_bytes()
    data = json.loads(whole)
    data["phases"]["1/select"]["kept_count"] += 1
    try:
        path.write_text(json.dumps(data))
        with pytest.raises(StoreError, match='remove its line "digest"'):
            Manifest(run_dir)
        del data["digest"]
        path.write_text(json.dumps(data))
        assert Manifest(run_dir).result("1/select")
    finally:
        path.write_bytes(whole)
