"""The JSON objects of a run directory, and the log that they vouch for.

`manifest.json` carries a digest of itself, and the length and checksum of what the complete phases
have written to `metrics.jsonl`: a lost line or a flipped bit is noticed by whoever reads them.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rloop.disk import write_text
from rloop.errors import StoreError

DIGEST_KEY = "digest"
LOGGED_KEY = "metrics"
"""In the manifest: `bytes` and `crc32` of metrics.jsonl as the last complete phase left it."""
EVALUATION_KEY = "0/evaluation"
"""Phase of a manifest whose directory `rloop eval` began: one policy measured, none trained."""
RESCORED_KEY = "0/rescored"
"""Phase of a manifest whose directory holds another run's trajectories, judged again."""

Record = dict[str, Any]


def write_record(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object whole or not at all, with a digest of itself."""
    rest = {key: value for key, value in data.items() if key != DIGEST_KEY}
    write_text(path, json.dumps({**rest, DIGEST_KEY: _digest(rest)}, indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read an object without its digest; StoreError says that it is damaged.

    One without a digest is taken as it is.
    """
    data = read_object(path)
    digest = data.pop(DIGEST_KEY, None)
    if digest is not None and digest != _digest(data):
        raise StoreError(
            f"{path} has changed since it was written (its digest differs); restore it "
            "from a backup. "
            f'If you edited it, remove its line "{DIGEST_KEY}".'
        )
    return data


def read_object(path: Path) -> Record:
    """Read a JSON object that a run wrote; StoreError says that it is damaged."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path} is not valid JSON ({error}); restore it from a backup."
        ) from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} does not hold a JSON object; restore it from a backup.")
    return data


def logged_mark(path: Path) -> dict[str, int]:
    """Return the length and checksum of a log as it is now."""
    data = path.read_bytes()
    return {"bytes": len(data), "crc32": zlib.crc32(data)}


def check_logged(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Raise StoreError unless metrics.jsonl holds what the complete phases wrote to it."""
    mark, path = manifest.get(LOGGED_KEY), run_dir / "metrics.jsonl"
    if mark is None:
        return
    data = path.read_bytes() if path.exists() else b""
    remedy = "restore it from a backup, or keep what is left: `rloop store verify RUN --quarantine`"
    if len(data) < mark["bytes"]:
        raise StoreError(
            f"{path} has {len(data):,} bytes, complete phases wrote {mark['bytes']:,}: it was cut; "
            f"{remedy}."
        )
    if zlib.crc32(data[: mark["bytes"]]) != mark["crc32"]:
        raise StoreError(
            f"{path} has changed since it was written (its checksum differs); {remedy}."
        )


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
