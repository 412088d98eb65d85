"""Rows from a data set on the Hugging Face hub, by the package `datasets`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rloop.errors import TaskError

Row = dict[str, Any]
ANSWER_LIMIT_S = 10.0
"""How long the hub may take to say that it is there."""


def read_hub_rows(name: str, config: str | None, split: str) -> list[Row]:
    """Return the rows of one split; TaskError says what is missing or out of reach.

    Where the hub does not answer at once only its cache on this machine is asked: `datasets` would
    try again for half a minute.
    """
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"hub:{name} needs the package datasets: pip install 'rloop-rl[hub]'"
        ) from error
    silence = why_out_of_reach(name)
    try:
        with _cache_only(datasets.config) if silence else nullcontext():
            return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        reason = f"the hub does not answer: {silence}" if silence else first_line
        raise TaskError(
            f"hub:{name}, split {split!r}, cannot be read ({reason:.160}): check the name, the "
            "split and the connection, or put the file in tasks.data_dir"
        ) from error


def why_out_of_reach(name: str) -> str:
    """Return why the hub does not answer about a data set, nothing when it does."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, timeout=ANSWER_LIMIT_S)
    except (HfHubHTTPError, HFValidationError):
        return ""  # an answer, which `datasets` puts into words
    except Exception as error:  # noqa: BLE001 -- whatever the hub's HTTP client of the day raises
        return str(error) or type(error).__name__
    return ""


@contextmanager
def _cache_only(settings: Any) -> Iterator[None]:  # noqa: ANN401 (a foreign module)
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, settings.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = settings.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, settings.HF_HUB_OFFLINE = before
