"""Rows from a data set on the Hugging Face hub, by the package `datasets`."""

from typing import Any

from rloop.errors import TaskError

Row = dict[str, Any]


def read_hub_rows(name: str, config: str | None, split: str) -> list[Row]:
    """Return the rows of one split; TaskError says what is missing or out of reach."""
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"hub:{name} needs the package datasets: pip install 'rloop-rl[hub]'"
        ) from error
    try:
        return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise TaskError(
            f"hub:{name}, split {split!r}, cannot be read ({first_line:.160}): check the name, the "
            "split and the connection, or put the file in tasks.data_dir"
        ) from error
