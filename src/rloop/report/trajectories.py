"""A small sample of what the model wrote, right and wrong, out of every part of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from rloop.report.words import visible

MAX_SAMPLED = 72
MAX_CHARACTERS = 6000
"""Of a prompt and of a completion; the rest is left out and said to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One trajectory as the page shows it; all text is made visible, not yet escaped for HTML.

    Example: Shown(verdict="wrong", policy="explored-001", place="iteration 1, explore, step 12",
    problem_id="sums/7", num_tokens=14, prompt="1+1=", completion="3", answer="3", reason="",
    finish_reason="stop")
    """

    verdict: str
    policy: str
    place: str
    problem_id: str
    num_tokens: int
    prompt: str
    completion: str
    answer: str
    reason: str
    finish_reason: str


def sample_trajectories(run_dir: Path) -> tuple[list[Shown], int]:
    """Return a sample spread over iterations, phases, policies and verdicts, and the number of all.

    The choice depends on the trajectories alone, so the same run gives the same sample.
    """
    pattern = run_dir / "trajectories" / "**" / "*.parquet"
    if not any((run_dir / "trajectories").glob("**/*.parquet")):
        return [], 0
    with duckdb.connect() as connection:
        source = (
            f"read_parquet('{_quoted(pattern)}', union_by_name = true, hive_partitioning = false"
        )
        found = connection.execute(f"select count(*) from {source})").fetchone()
        chosen = connection.execute(_choice(source), [MAX_SAMPLED]).fetchall()
        names = [column[0] for column in connection.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in chosen]
    return [_shown(row) for row in rows], int(found[0]) if found else 0


def _choice(source: str) -> str:
    """Return the query: number each stratum in hash order, take one of every stratum in turn.

    Texts are read for the chosen rows only.
    """
    return f"""
        with ranked as (
            select filename, file_row_number, iteration, phase, policy, verdict,
                hash(group_id, member) as draw,
                row_number() over (
                    partition by iteration, phase, policy, verdict order by hash(group_id, member)
                ) as turn
            from {source}, filename = true, file_row_number = true)
        ),
        chosen as (select * from ranked order by turn, draw limit ?)
        select t.iteration, t.phase, t.policy, t.step, t.problem_id, t.verdict, t.reason, t.answer,
            t.finish_reason, t.prompt_text, t.completion_text, len(t.completion_ids) as num_tokens
        from {source}, filename = true, file_row_number = true) t
        semi join chosen using (filename, file_row_number)
        order by t.iteration desc, t.phase, t.policy desc, t.step desc, t.problem_id, t.member
    """


def _shown(row: dict[str, Any]) -> Shown:
    texts = {key: visible(str(value)) for key, value in row.items() if value is not None}
    step = f", step {texts['step']}" if row["step"] else ""
    return Shown(
        verdict=texts["verdict"],
        policy=texts.get("policy", ""),
        place=f"iteration {texts['iteration']}, {texts['phase']}{step}",
        problem_id=texts["problem_id"],
        num_tokens=row["num_tokens"],
        prompt=_cut(texts["prompt_text"]),
        completion=_cut(texts["completion_text"]),
        answer=texts.get("answer", ""),
        reason=texts.get("reason", ""),
        finish_reason=texts["finish_reason"],
    )


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]}\n[{left_out} more characters]"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
