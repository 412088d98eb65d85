"""The steps of a run with what tells where to look: reward, mixed groups, errors, truncation."""

from collections import Counter
from dataclasses import dataclass

from rloop.store.index import GroupIndex, StepFile

_COUNTS = """
    select file, any_value(policy) as policy, string_agg(distinct task, ', ' order by task) as task,
        count(*) as num_groups, sum(size)::bigint as size, sum(num_correct)::bigint as num_correct,
        sum(num_error)::bigint as num_error, sum(num_truncated)::bigint as num_truncated,
        sum(tokens)::bigint as tokens, sum(reward) as reward,
        count(*) filter (is_mixed) as num_mixed,
        count(*) filter (num_correct = size) as num_all_correct,
        count(*) filter (num_correct > 0) as num_solved
    from groups where iteration = ? group by file
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A file of the store as a list shows it; counts are None until it is counted.

    Example: StepLine(file=StepFile(...), label="step 4", counts=StepCounts(...), damage="")
    """

    file: StepFile
    label: str
    counts: "StepCounts | None"
    damage: str
    """What is wrong with the file; empty for a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """What a file holds, added up."""

    policy: str
    task: str
    num_groups: int
    size: int
    """Trajectories."""
    num_correct: int
    num_error: int
    num_truncated: int
    tokens: int
    reward: float
    num_mixed: int
    num_all_correct: int
    num_solved: int
    """Groups with a correct completion."""

    @property
    def num_all_wrong(self) -> int:
        """Return the groups whose rewards do not differ and are not all correct."""
        return max(0, self.num_groups - self.num_mixed - self.num_all_correct)


def step_lines(index: GroupIndex, iteration: int, phase: str) -> list[StepLine]:
    """Return the steps of a phase in an iteration, in the order of training.

    A large evaluation is several files; from the second on they are numbered.
    """
    counts = {row.pop("file"): StepCounts(**row) for row in index.query(_COUNTS, [iteration])}
    damaged, lines = index.damaged, []
    parts: Counter[tuple[str, str]] = Counter()
    for key, file in index.files.items():
        if (file.iteration, file.phase) != (iteration, phase):
            continue
        found = counts.get(key)
        label = step_label(file, found.policy if found else "")
        parts[label, found.task if found else ""] += 1
        number = parts[label, found.task if found else ""]
        label += f", part {number}" if number > 1 else ""
        lines.append(StepLine(file=file, label=label, counts=found, damage=damaged.get(key, "")))
    return lines


def step_label(file: StepFile, policy: str = "") -> str:
    """Return what a reader calls a file: `step 4`, or `explored-002@4` of a policy measured."""
    if file.phase == "explore":
        return f"step {file.step}"
    return f"{policy or file.part}{f'@{file.step}' if file.step else ''}"


def neighbours(
    index: GroupIndex, file: StepFile, problem_id: str = ""
) -> tuple[StepFile | None, StepFile | None]:
    """Return the files of the same phase before and after this one, over all iterations.

    With a problem, those that have it, so that one problem can be followed from policy to policy.
    """
    keys = [key for key, other in index.files.items() if other.phase == file.phase]
    if problem_id:
        rows = index.query("select distinct file from groups where problem_id = ?", [problem_id])
        having = {row["file"] for row in rows}
        keys = [key for key in keys if key in having or key == file.key]
    place = keys.index(file.key)
    before = index.files[keys[place - 1]] if place else None
    after = index.files[keys[place + 1]] if place + 1 < len(keys) else None
    return before, after
