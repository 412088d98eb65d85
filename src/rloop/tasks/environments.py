"""Environments of the package `verifiers` as sources of problems.

An environment is somebody's program: it takes over signals, sets up logging, and may print. So it
is loaded in an interpreter of its own, which writes its problems to a file.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import TaskConfig
from rloop.tasks.readers import Row
from rloop.tasks.verifiers.rubric import ROUNDING, Environment, load_environment

LOAD_LIMIT_S = 600.0
"""Environments may download their data."""
ANSWERS = ("{answer}", r"\boxed{{answer}}", "<answer>{answer}</answer>", "#### {answer}")
THOUGHTS = ("", "<think>\nI am sure.\n</think>\n", "<reasoning>\nI am sure.\n</reasoning>\n")
NUM_ASKED = 8
"""Rows by which the form of a right completion is found."""
_COMMAND = """
import sys
sys.path[:] = {path!r}
from rloop.tasks.environments import main
main(*sys.argv[1:])
"""


def environment_rows(name: str, config: TaskConfig, split: str) -> list[Row | None]:
    """Return the problems of an environment's data set; None for one without an answer.

    `params` go to the environment, but for `correct_from`: the share of the rubric's full reward
    from which a completion counts as correct.
    """
    params = dict(config.params)
    correct_from = params.pop("correct_from", 1.0)
    if not isinstance(correct_from, int | float) or not 0 < correct_from <= 1:
        raise ConfigError(
            "params.correct_from must be a number above 0 and at most 1, the share of the full "
            f"reward from which a completion is correct, got {correct_from!r}"
        )
    asked = {"name": name, "params": params, "split": split, "correct_from": correct_from}
    with TemporaryDirectory(prefix="rloop-") as folder:
        path = Path(folder) / "rows.json"
        command = _COMMAND.format(path=[*sys.path, os.getcwd()])
        process = subprocess.Popen(
            [sys.executable, "-c", command, json.dumps(asked), str(path)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(LOAD_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise TaskError(f"verifiers:{name} did not load within {LOAD_LIMIT_S:g} s") from error
        finally:
            with suppress(ProcessLookupError):  # what the environment started goes too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not path.exists():
            raise TaskError(f"verifiers:{name} ended its process with status {status}")
        found = json.loads(path.read_text(encoding="utf-8"))
    if "error" in found:
        raise TaskError(found["error"])
    rows: list[Row | None] = found["rows"]
    return rows


def main(asked: str, path: str) -> None:
    """Write the problems that JSON asks for, or why there are none, and end the process."""
    os.dup2(2, 1)  # what an environment prints is no result
    given = json.loads(asked)
    try:
        found: dict[str, Any] = {"rows": _rows(**given)}
    except (ConfigError, TaskError) as error:
        found = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 -- the environment's own code
        words = " ".join(f"{type(error).__name__}: {error}".split())
        found = {"error": f"verifiers:{given['name']} cannot be read: {words[:400]}"}
    Path(path).write_text(json.dumps(found, default=str), encoding="utf-8")
    os._exit(0)  # without the environment's own end


def _rows(
    name: str, params: dict[str, Any], split: str, correct_from: float
) -> list[dict[str, Any] | None]:
    environment = load_environment(name, json.dumps(params, sort_keys=True))
    rows = json.loads(json.dumps(list(_data(name, environment.theirs, split)), default=str))
    answered = [row for row in rows if _answer(row)]
    if not answered:
        raise TaskError(
            f"verifiers:{name} has no answers in its column `answer`, so nothing can tell whether "
            "its rubric judges as it should: choose an environment that has them"
        )
    form = asyncio.run(_form(name, environment, answered[:NUM_ASKED], correct_from))
    common = {"dataset": name, "params": params, "correct_from": correct_from, "form": form}
    return [
        {"id": str(index), "problem": row["prompt"], "answer": row["answer"], "row": row, **common}
        if _answer(row)
        else None
        for index, row in enumerate(rows)
    ]


def _data(name: str, theirs: Any, split: str) -> Any:  # noqa: ANN401 (no types)
    """Return a split's data set; one without problems held out would give its training data."""
    has = {
        "train": theirs.dataset is not None or theirs.dataset_source is not None,
        "test": theirs.eval_dataset is not None or theirs.eval_dataset_source is not None,
    }
    if not has.get(split):
        there = " and ".join(name for name, is_there in has.items() if is_there)
        raise TaskError(
            f"verifiers:{name} has no split {split!r}; it has {there}. Without a test split leave "
            "the evaluation task out: 10 % of the training problems are then held out"
        )
    return theirs.get_dataset() if split == "train" else theirs.get_eval_dataset()


def _answer(row: Row) -> str:
    answer = row.get("answer")
    return str(answer).strip() if isinstance(answer, str | int | float) else ""


async def _form(
    name: str, environment: Environment, rows: Sequence[Row], correct_from: float
) -> str:
    """Return how a completion must give a row's answer, so that the rubric takes most of them."""
    found: list[tuple[int, float, str]] = []
    failures: list[BaseException] = []
    for form in (thoughts + answer for thoughts in THOUGHTS for answer in ANSWERS):
        texts = [form.replace("{answer}", _answer(row)) for row in rows]
        asked = [environment.score(row, text) for row, text in zip(rows, texts, strict=True)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        scores = [result for result in results if isinstance(result, float)]
        failures += [result for result in results if isinstance(result, BaseException)]
        num_right = sum(score >= correct_from - ROUNDING for score in scores)
        found.append((num_right, max(scores, default=-1.0), form))
        if num_right == len(rows):
            break
    num_right, _, form = max(found, key=lambda one: one[0])
    if num_right:
        return form
    _, most, form = max(found, key=lambda one: one[1])
    if most < 0:
        told = f"{type(failures[0]).__name__}: {failures[0]}"
        raise TaskError(f"the rubric of verifiers:{name} fails on every answer: {told}"[:400])
    remedy = "choose another environment"
    if most > 0:
        remedy = f"if {form!r} is right, set params.correct_from={most:.3g} or lower; else {remedy}"
    raise TaskError(
        f"verifiers:{name} gives no reference answer its full reward, the most is {most:.3g} of 1: "
        f"{remedy}"
    )
