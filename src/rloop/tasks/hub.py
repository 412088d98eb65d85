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
    where = f"hub:{name}, split {split!r},"
    try:
        with _cache_only(datasets.config) if silence else nullcontext():
            return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = f"the hub does not answer: {silence}" if silence else _one_line(error)
        raise TaskError(
            f"{where} cannot be read ({reason}): check the name, the split and the connection, or "
            "put the file in tasks.data_dir"
        ) from error
    except Exception as error:  # DatasetGenerationError, and what else `datasets` has
        raise TaskError(
            f"{where} is there and cannot be read ({_one_line(_cause(error))}): its files have "
            "unlike columns, or one is broken. Choose some with params: {name: CONFIGURATION}, or "
            "download one and use file:PATH"
        ) from error


def _cause(error: BaseException) -> BaseException:
    """Return what an error was raised from at first: the outer ones say only that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException) -> str:
    """Return an error's words on one line, the middle left out where there are many."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 320 else f"{words[:200]} ... {words[-100:]}"


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
