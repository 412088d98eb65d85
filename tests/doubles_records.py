"""Groups of trajectories as an engine would make them, for tests of what stores them."""

from collections.abc import Sequence

from rloop.types import Completion, Group, PhaseName, Place, Problem, Trajectory, Verdict


def place_at(
    step: int = 1, *, iteration: int = 1, phase: PhaseName = "explore", policy: str = "explored-001"
) -> Place:
    """Return a place of the run `test`, seed 0."""
    return Place(run="test", seed=0, iteration=iteration, phase=phase, step=step, policy=policy)


def group_at(
    place: Place,
    problem_id: str = "sums/train/0",
    completions: Sequence[tuple[str, bool]] = (("2", True), ("3", False)),
    task: str = "sums",
) -> Group:
    """Return a group of (completion text, correct); ids are the text's characters and EOS, 0."""
    problem = Problem(
        problem_id=problem_id, task=task, question="1+1", answer="2", verifier="numeric"
    )
    trajectories = []
    for member, (text, is_correct) in enumerate(completions):
        ids = (*map(ord, text), 0)
        trajectories.append(
            Trajectory(
                place=place,
                problem=problem,
                group_id=f"{place.iteration}/{place.phase}/{place.step}/{problem_id}",
                member=member,
                policy_version=place.step - 1,
                completion=Completion(
                    prompt_text="1+1=",
                    prompt_ids=(49, 43, 49, 61),
                    completion_text=text,
                    completion_ids=ids,
                    behavior_logprobs=(-0.5,) * len(ids),
                    finish_reason="stop",
                ),
                verdict=Verdict(
                    kind="correct" if is_correct else "wrong",
                    answer=text or None,
                    verifier_version="numeric/1",
                ),
                reward=float(is_correct),
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                template_version="abc",
            )
        )
    return Group(problem=problem, trajectories=tuple(trajectories))
