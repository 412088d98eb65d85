"""Rows to problems: which column holds what, which rows are wanted, what goes along as metadata."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from rloop.errors import ConfigError, TaskError
from rloop.tasks.readers import WrittenFloat
from rloop.tasks.solutions import boxed_answer
from rloop.types import Problem

Row = dict[str, Any]
_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+|\.\d)(?:\.?\d*)(?:[eE][-+]?\d+)?")
_JSON_MESSAGES = re.compile(r'\s*\[\s*\{\s*"(?:role|content)"\s*:')
_PYTHON_MESSAGES = re.compile(r"\s*\[\s*\{\s*'(?:role|content)'\s*:")
_USUAL_COLUMNS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "problem": (
        ("problem", "question"),
        ("prompt",),
        ("messages",),
        ("query", "input", "instruction"),
    ),
    "answer": (
        ("answer", "final_answer", "expected_answer", "ground_truth", "reward_model.ground_truth"),
        ("target", "label"),
    ),
    "solution": (("solution",),),
    "id": (("id",),),
}
"""Names that are found by themselves: those of the first group of which a source has any."""
_TRAJECTORIES = {"problem": "prompt_text", "answer": "reference"}
"""In a table of rloop's own trajectories `answer` is the policy's, not the reference; those of
rloop 0.1 have no column `question`."""
AnswerForm = Literal["plain", "list", "box"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a source's rows hold what; a dot leads into an object.

    Example: Columns(problem="prompt", answer="reward_model.ground_truth", solution=None, id=None,
    answer_form="plain")
    """

    problem: str
    answer: str
    solution: str | None = None
    id: str | None = None
    answer_form: AnswerForm = "plain"
    """`list`: text that is a JSON list of one text; `box`: what a worked solution boxes."""

    def summary(self) -> str:
        """Say which columns were taken, unless they have rloop's own names."""
        how = {"plain": "", "list": " (a list of one)", "box": " (its box)"}[self.answer_form]
        answer = f"{self.answer}{how}"
        is_ours = self.problem in _USUAL_COLUMNS["problem"][0] and answer == "answer"
        return "" if is_ours else f"problem from {self.problem}, answer from {answer}"


def value_at(row: Row, column: str) -> Any:  # noqa: ANN401 (whatever a file holds)
    """Return a column's value, None where there is none: by its name, else by its dotted path."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def check_filters(rows: Sequence[Row], filters: Mapping[str, Any], source: str) -> None:
    """Raise TaskError for a filter by a column that no row has."""
    for column in filters:
        if rows and not _has(rows, column):
            raise TaskError(_no_column(f"filters: {column}", column, rows, source))


def fits(row: Row, filters: Mapping[str, Any]) -> bool:
    """Whether a row's columns equal the value, or one of the values, that `filters` gives.

    Values are compared as they are and as text, so that 5 in a recipe finds "5" in a CSV file.
    """
    return all(_fits(row, *wanted) for wanted in filters.items())


def _fits(row: Row, column: str, wanted: object) -> bool:
    choices = wanted if isinstance(wanted, list | tuple) else [wanted]
    value = value_at(row, column)
    return any(value == choice or str(value) == str(choice) for choice in choices)


def find_columns(rows: Sequence[Row], fields: Mapping[str, str], source: str) -> Columns:
    """Return where the rows hold `problem`, `answer` and, where any does, `solution` and `id`.

    A TaskError says what no row has, or which columns may be meant, and what to write.
    """
    unknown = set(fields) - set(_USUAL_COLUMNS)
    if unknown:
        names = ", ".join(_USUAL_COLUMNS)
        raise ConfigError(f"fields may name {names}, got {sorted(unknown)[0]!r}.")
    if all(_has(rows, column) for column in _TRAJECTORIES.values()):
        asked = {"problem": "question"} if _has(rows, "question") else {}
        fields = {**_TRAJECTORIES, **asked, **fields}
    found = {name: _find(name, rows, fields, source) for name in _USUAL_COLUMNS}
    problem, answer, solution = found["problem"], found["answer"], found["solution"]
    if problem is None:
        raise TaskError(_no_usual_column("problem", rows, source))
    form: AnswerForm = "plain"
    if answer is None and solution is not None:
        answer, form = solution, _answer_form(rows, solution, problem, source)
    elif answer is not None and all(_listed(value_at(row, answer)) for row in rows):
        form = "list"
    if answer is None:
        raise TaskError(_no_usual_column("answer", rows, source))
    is_answer = solution == answer and form == "plain" and "solution" not in fields
    return Columns(
        problem=problem,
        answer=answer,
        solution=None if is_answer else solution,
        id=found["id"],
        answer_form=form,
    )


def _find(name: str, rows: Sequence[Row], fields: Mapping[str, str], source: str) -> str | None:
    """Return the column that `fields` names, else a usual one; None where there is none."""
    if name in fields:
        if not _has(rows, fields[name]):
            raise TaskError(_no_column(f"fields: {name}", fields[name], rows, source))
        return fields[name]
    for group in _USUAL_COLUMNS[name]:
        found = [column for column in group if _has(rows, column)]
        if len(found) > 1 and any(_differ(row, found) for row in rows):
            raise TaskError(
                f"{source} has {len(found)} columns that may contain the {name}, "
                f"{', '.join(found)}: "
                f"choose one, such as fields: {{{name}: {found[-1]}}}; it has {_names(rows)}"
            )
        if found:
            return found[0]
    return None


def _differ(row: Row, columns: Sequence[str]) -> bool:
    values = [_only(value_at(row, column)) for column in columns]
    return len({_text(value) or json.dumps(value, default=str) for value in values}) > 1


def _answer_form(rows: Sequence[Row], solution: str, problem: str, source: str) -> AnswerForm:
    """Return how `solution` holds the answer where no other column does: TRL's rewards read it so.

    Every one has a clear box, or beside TRL's `prompt` every one is a single line without a box.
    """
    texts = [_text(value_at(row, solution)) for row in rows]
    if all(boxed_answer(text) for text in texts):
        return "box"
    is_short = not any("\\boxed" in text or "\n" in text.strip() for text in texts)
    if problem == "prompt" and is_short:
        return "plain"
    raise TaskError(
        f"{source} has no column for the answer, and {solution!r} does not hold one in a box in "
        f"each row: add a column, or, where it is the answer itself, write fields: "
        f"{{answer: {solution}}}; it has {_names(rows)}"
    )


def _listed(value: object) -> str:
    """Return the text of a JSON list of one text, as some data sets for verl write their answers.

    Example: '["5"]' -> "5"
    """
    if not (isinstance(value, str) and value.startswith('["') and value.endswith('"]')):
        return ""
    try:
        items = json.loads(value)
    except ValueError:
        return ""
    return items[0] if len(items) == 1 and isinstance(items[0], str) else ""


def row_keys(rows: Sequence[Row | None], columns: Columns) -> tuple[list[str], int]:
    """Return a key for each row that no other has, and how many ids were missing or repeated.

    It is the row's id where no row before has it, else the row's number from 0 on.
    """
    if columns.id is None:
        return [str(index) for index in range(len(rows))], 0
    ids = [_text(value_at(row, columns.id)) if row else "" for row in rows]
    first = {key: index for index, key in reversed(list(enumerate(ids))) if key.strip()}
    taken = set(first)
    keys = []
    num_replaced = 0
    for index, row in enumerate(rows):
        key = ids[index]
        if first.get(key) != index:
            key = str(index)
            while key in taken:
                key = f"row-{key}"
            num_replaced += row is not None
        taken.add(key)
        keys.append(key)
    return keys, num_replaced


def to_problem(
    row: Row, columns: Columns, *, index: int, key: str, place: str, verifier: str
) -> Problem:
    """Return the problem a row holds; `place` is `task/split`, all other columns are metadata."""
    problem_id = f"{place}/{key}"
    where = f"{problem_id} (row {index + 1})"
    try:
        question, said = read_question(value_at(row, columns.problem))
    except ValueError as error:
        raise TaskError(f"{where}: column {columns.problem!r} holds {error}") from error
    question, answer = question or _text(value_at(row, columns.problem)), _answer(row, columns)
    for name, text in (("problem", question), ("answer", answer)):
        if not text.strip():
            raise TaskError(f"{where} has no {name}: {_why_empty(row, getattr(columns, name))}")
    used = {columns.problem, columns.answer, columns.solution}
    if columns.id is not None and key == _text(value_at(row, columns.id)):
        used.add(columns.id)
    rest = {name: value for name, value in row.items() if name not in used} | said
    solution = _text(value_at(row, columns.solution)) if columns.solution else ""
    _check_unicode([question, answer, solution, key, rest], where)
    return Problem(
        problem_id=problem_id,
        task=place.rpartition("/")[0],
        question=question,
        answer=answer,
        verifier=verifier,
        solution=solution or None,
        metadata=json.loads(json.dumps(rest, default=str)),
    )


def with_verifier(problems: list[Problem]) -> list[Problem]:
    """Give problems of a user's own file a verifier: `numeric` if all answers are plain numbers."""
    are_numbers = all(_PLAIN_NUMBER.fullmatch(problem.answer.strip()) for problem in problems)
    verifier = "numeric" if are_numbers else "math"
    return [replace(problem, verifier=verifier) for problem in problems]


def _answer(row: Row, columns: Columns) -> str:
    text = _text(_only(value_at(row, columns.answer)))
    if columns.answer_form == "box":
        return boxed_answer(text) or ""
    return _listed(text) if columns.answer_form == "list" else text


def _only(value: object) -> object:
    """Return the one item of a list of one, everything else as it is."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _why_empty(row: Row, column: str) -> str:
    value = _only(value_at(row, column))
    holds = f"column {column!r} holds {value!r:.60}"
    if isinstance(value, list) and value:
        return f"{holds}, which is several values: join them into one text, or keep one"
    if isinstance(value, dict) and value:
        key = next(iter(value))
        return f"{holds}, an object: name one of its keys in fields, such as {column}.{key}"
    return f"{holds}. Fix the row, or leave it out with `filters`"


def _check_unicode(texts: list[object], where: str) -> None:
    """Raise TaskError for half a character: no file and no tokenizer can hold it."""
    text = json.dumps(texts, default=str, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"{where} contains an unpaired surrogate, {text[error.start]!r}, half of a "
            "character: write the whole character, or delete it"
        ) from error


def _text(value: object) -> str:
    """Return text, and numbers in plain digits: 5.0 as 5, 1e-05 as 0.00001 unless so written.

    Nothing for anything else, nor for what is no number.
    """
    if isinstance(value, WrittenFloat):
        return value.text if "e" in value.text.lower() else _without_point_zero(value.text)
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return _without_point_zero(format(Decimal(repr(value)), "f"))
    if isinstance(value, Decimal) and value.is_finite():
        return _without_point_zero(format(value, "f"))
    return ""


def _without_point_zero(digits: str) -> str:
    """Return 5 for 5.0 and 5.00, but 2.50 as it is."""
    whole, _, decimals = digits.partition(".")
    return digits if decimals.strip("0") else whole


def _has(rows: Sequence[Row], column: str) -> bool:
    return any(column in row or value_at(row, column) is not None for row in rows)


def _names(rows: Sequence[Row]) -> str:
    """Return the columns of all rows, and the keys of those that hold objects."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else []
            names.update(dict.fromkeys(inner or [name]))
    return ", ".join(names)


def _no_column(setting: str, column: str, rows: Sequence[Row], source: str) -> str:
    return f"{source} has no column {column!r} ({setting}); it has {_names(rows)}"


def _no_usual_column(name: str, rows: Sequence[Row], source: str) -> str:
    usual = ", ".join(column for group in _USUAL_COLUMNS[name] for column in group)
    return (
        f"{source} has no column for the {name} (such as {usual}); it has {_names(rows)}. "
        f"Name the right one, fields: {{{name}: COLUMN}}, or add it"
    )


def read_question(value: object) -> tuple[str, dict[str, Any]]:
    """Return a prompt's question, nothing where there is none, and what else its messages say.

    The question is the last message of the user. The texts of system messages come back as
    `system_message`, all others as `other_messages`: they are not part of a prompt. ValueError says
    why messages cannot be read.

    Example: [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    -> ("1 + 1?", {"system_message": "Be brief."})
    """
    if isinstance(value, str) and _PYTHON_MESSAGES.match(value):
        raise ValueError("chat messages as Python text; save them as JSON or parquet")
    if isinstance(value, str) and _JSON_MESSAGES.match(value):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"chat messages as text that is not JSON ({error})") from error
    if isinstance(value, str):
        return value, {}
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return "", {}
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        return "", {}
    rest = [message for place, message in enumerate(messages) if place != asked[-1]]
    system = [_content(message) for message in rest if message["role"] == "system"]
    others = [message for message in rest if message["role"] != "system"]
    said = {"system_message": "\n\n".join(system), "other_messages": others}
    return _content(messages[asked[-1]]), {name: held for name, held in said.items() if held}


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and "content" in value


def _content(message: dict[str, Any]) -> str:
    """Return a message's text; ValueError for a picture or a sound in it."""
    content = message["content"]
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("text") is None:
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"a message with a part of type {kind!r:.40}; only text is supported")
        texts.append(str(part["text"]))
    return "".join(texts)
