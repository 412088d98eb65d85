"""The steps of a run with what tells where to look: reward, mixed groups, errors, truncation."""

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
    """Return the steps of a phase in an iteration, in the order of training."""
    counts = {row.pop("file"): StepCounts(**row) for row in index.query(_COUNTS, [iteration])}
    damaged = index.damaged
    return [
        StepLine(
            file=file,
            label=step_label(file, counts.get(key)),
            counts=counts.get(key),
            damage=damaged.get(key, ""),
        )
        for key, file in index.files.items()
        if file.iteration == iteration and file.phase == phase
    ]


def step_label(file: StepFile, counts: StepCounts | None = None) -> str:
    """Return what a reader calls a file: `step 4`, or `explored-002@4` with its task."""
    if file.phase == "explore":
        return f"step {file.step}"
    if counts is None:
        return f"{file.part or file.phase}{f', step {file.step}' if file.step else ''}"
    at = f"@{file.step}" if file.step else ""
    return f"{counts.policy}{at}"


def neighbours(index: GroupIndex, file: StepFile) -> tuple[StepFile | None, StepFile | None]:
    """Return the files of the same phase before and after this one, over all iterations."""
    keys = [key for key, other in index.files.items() if other.phase == file.phase]
    place = keys.index(file.key)
    before = index.files[keys[place - 1]] if place else None
    after = index.files[keys[place + 1]] if place + 1 < len(keys) else None
    return before, after
