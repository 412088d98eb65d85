"""A small sample of what the model wrote, right and wrong, out of every part of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.report.words import visible
from rloop.store.trajectories import TrajectoryStore

MAX_SAMPLED = 72
MAX_CHARACTERS = 6000
"""Of a prompt and of a completion; the rest is left out and said to be."""

_SAMPLE = f"""
    with ranked as (
        select policy, group_id, member, hash(group_id, member) as draw, row_number() over (
            partition by iteration, phase, policy, verdict order by hash(group_id, member)
        ) as turn
        from trajectories
    ),
    chosen as (
        select policy, group_id, member from ranked order by turn, draw, policy limit {MAX_SAMPLED}
    )
    select iteration, phase, policy, step, problem_id, verdict, reason, answer, reference,
        finish_reason, prompt_text, completion_text, completion_tokens
    from trajectories semi join chosen using (policy, group_id, member)
    order by iteration desc, phase, policy desc, step desc, problem_id, member
"""
"""Each part's trajectories in hash order, one of every part in turn until there are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One trajectory as the page shows it; all text is made visible, not yet escaped for HTML.

    Example: Shown(verdict="wrong", policy="explored-001", place="iteration 1, explore, step 12",
    problem_id="sums/7", num_tokens=14, prompt="1+1=", completion="3", answer="3", reference="2",
    reason="", finish_reason="stop")
    """

    verdict: str
    policy: str
    place: str
    problem_id: str
    num_tokens: int
    prompt: str
    completion: str
    answer: str
    """As extracted from the completion; empty where none was found."""
    reference: str
    reason: str
    finish_reason: str


def sample_trajectories(run_dir: Path) -> tuple[list[Shown], int]:
    """Return a sample spread over iterations, phases, policies and verdicts, and the number of all.

    The choice depends on the trajectories alone, so the same run gives the same sample.
    """
    store = TrajectoryStore(run_dir)
    return [_shown(row) for row in store.query(_SAMPLE).to_pylist()], store.count()


def _shown(row: dict[str, Any]) -> Shown:
    texts = {key: "" if value is None else visible(str(value)) for key, value in row.items()}
    step = f", step {texts['step']}" if row["step"] else ""
    return Shown(
        verdict=texts["verdict"],
        policy=texts["policy"],
        place=f"iteration {texts['iteration']}, {texts['phase']}{step}",
        problem_id=texts["problem_id"],
        num_tokens=row["completion_tokens"],
        prompt=_cut(texts["prompt_text"]),
        completion=_cut(texts["completion_text"]),
        answer=texts["answer"],
        reference=texts["reference"],
        reason=texts["reason"],
        finish_reason=texts["finish_reason"],
    )


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]}\n[{left_out} more characters]"
