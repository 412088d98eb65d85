"""RLoop in one file: the whole method without rloop.loop, the run directory or the console.

    python examples/minimal_loop.py recipes/tiny.yaml

Everything is in memory and nothing can be resumed; the numbers are those of `rloop run` with the
same recipe and seed. Read it to learn the method, copy it to change it.

    policy_0 = base
    for each iteration i:
        explore   RL from policy_i; what counts are the trajectories of EVERY step, not the weights
        select    the successes on hard problems are the expert set
        finetune  SFT of policy_i, which the iteration started from, on the expert set: policy_i+1
        evaluate  avg@n and pass@k on held-out problems
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rloop.algo.candidates import Candidates
from rloop.algo.selection import select_expert_set
from rloop.engines.base import Engine
from rloop.engines.native.engine import NativeEngine
from rloop.evaluation.phase import task_metrics
from rloop.evaluation.tallies import tally
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe
from rloop.tasks.collection import load_coldstart, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.types import Example, PhaseName, Place, PolicyRef, Problem, Trajectory


class MinimalLoop:
    """The loop over one engine; `history` holds the evaluations: (policy name, task, metrics)."""

    def __init__(self, recipe: Recipe, engine: Engine, folder: Path) -> None:
        """Load the problems and prepare the base policy."""
        self.recipe = recipe
        self.engine = engine
        self.folder = folder
        self.base = engine.prepare(recipe.policy.path, folder / "base", seed=recipe.seed)
        tasks = load_tasks(recipe.tasks)
        self.train = self.fitting(tasks.train)
        self.held_out = {name: self.fitting(these) for name, these in tasks.evaluate.items()}
        self.history: list[tuple[str, str, dict[str, float]]] = []

    def run(self) -> PolicyRef:
        """Do every iteration; return the last policy."""
        base = policy = self.base
        self.evaluate(policy, 0)
        if self.recipe.coldstart is not None:
            base = policy = self.coldstart(policy)
            self.evaluate(policy, 0)
        for iteration in range(1, self.recipe.iterations + 1):
            pool = self.explore(policy, iteration)
            experts = self.select(pool)
            init = self.recipe.finetune.init if self.recipe.finetune else "iteration_start"
            start = base if init == "base" else policy
            policy = self.fine_tune(start, experts, iteration, "finetune", f"iter-{iteration:03d}")
            self.evaluate(policy, iteration)
        return policy

    def explore(self, start: PolicyRef, iteration: int) -> list[Trajectory]:
        """Do RL from the policy; keep every trajectory of every step and drop the weights."""
        place = self.place(iteration, "explore")
        pool: list[Trajectory] = []
        num_steps = self.recipe.explore.steps
        for step in self.engine.explore(start, self.train, place, num_steps=num_steps):
            pool += [t for group in step.groups for t in group.trajectories]
            reward = step.metrics["reward_mean"]
            print(f"  iteration {iteration} step {step.step}: reward {reward:.3f}")  # noqa: T201
        return pool

    def select(self, pool: Sequence[Trajectory]) -> list[Example]:
        """Keep the successes on hard problems."""
        config = self.recipe.expert
        if config is None:
            raise SystemExit("This loop needs a recipe with expert and finetune.")
        chosen = select_expert_set(candidates(pool), config, seed=self.recipe.seed)
        return [
            Example(
                problem_id=pool[row].problem.problem_id,
                prompt_ids=pool[row].completion.prompt_ids,
                completion_ids=pool[row].completion.completion_ids,
                weight=weight,
            )
            for row, weight in zip(chosen.rows.tolist(), chosen.weights.tolist(), strict=True)
        ]

    def coldstart(self, policy: PolicyRef) -> PolicyRef:
        """Teach the task's own solutions first."""
        config = self.recipe.coldstart
        if config is None:
            return policy
        held_out = [problem for these in self.held_out.values() for problem in these]
        loaded = load_coldstart(config, held_out, data_dir=self.recipe.tasks.data_dir)
        problems = self.fitting(loaded.problems)
        examples = self.engine.examples_from_solutions(policy, problems, config.solution_template)
        return self.fine_tune(policy, examples, 0, "coldstart", "coldstart")

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        iteration: int,
        phase: PhaseName,
        name: str,
    ) -> PolicyRef:
        """Imitate the examples, starting from `start`."""
        for _ in self.engine.fine_tune(start, examples, self.place(iteration, phase)):
            pass
        return self.engine.save_policy(self.folder / name, name)

    def evaluate(self, policy: PolicyRef, iteration: int) -> None:
        """Measure avg@n and pass@k on held-out problems."""
        config = self.recipe.evaluate
        place = self.place(iteration, "evaluate")
        for task, problems in self.held_out.items():
            groups = self.engine.sample(policy, problems, config.samples, place)
            counts = {group.problem.problem_id: tally(group) for group in groups}
            metrics = task_metrics(counts, config)
            self.history.append((policy.name, task, metrics))
            shown = "  ".join(
                f"{name} {metrics[name]:.3f} [{metrics[name + '_low']:.3f}, "
                f"{metrics[name + '_high']:.3f}]"
                for name in (f"avg@{config.samples}", *(f"pass@{k}" for k in config.k))
            )
            print(f"{policy.name:>12} on {task}: {shown}")  # noqa: T201

    def fitting(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return the problems whose prompt is not too long."""
        return self.engine.fit_prompts(self.base, problems).kept

    def place(self, iteration: int, phase: PhaseName) -> Place:
        """Return a place; it names the random streams."""
        seed, name = self.recipe.seed, self.recipe.name
        return Place(run=name, seed=seed, iteration=iteration, phase=phase)


def candidates(pool: Sequence[Trajectory]) -> Candidates:
    """Lay the pool out in columns, which is what selection reads."""
    problems = {t.problem.problem_id: t.problem.task for t in pool}
    number = {problem_id: index for index, problem_id in enumerate(problems)}
    reasons = np.array([t.completion.finish_reason for t in pool])
    return Candidates(
        problem_ids=list(problems),
        tasks=list(problems.values()),
        problem_index=np.array([number[t.problem.problem_id] for t in pool]),
        correct=np.array([t.verdict.is_correct for t in pool]),
        judged=np.array([t.verdict.kind != "error" for t in pool]),
        stopped=reasons == "stop",
        truncated=reasons == "length",
        iteration=np.array([t.place.iteration for t in pool]),
        step=np.array([t.place.step for t in pool]),
        member=np.array([t.member for t in pool]),
        text_hash=np.unique([t.completion.completion_text for t in pool], return_inverse=True)[
            1
        ].astype(np.uint64),
        num_tokens=np.array([len(t.completion.completion_ids) for t in pool]),
        behavior_logprob_sum=np.array([sum(t.completion.behavior_logprobs) for t in pool]),
        completion_ids=lambda rows: [pool[row].completion.completion_ids for row in rows],
    )


def main() -> None:
    """Run the recipe named on the command line."""
    if len(sys.argv) < 2:
        raise SystemExit("Name a recipe: python examples/minimal_loop.py recipes/tiny.yaml")
    recipe = load_recipe(Path(sys.argv[1]), sys.argv[2:])
    workers, timeout_s = recipe.tasks.verifier_workers, recipe.tasks.verifier_timeout_s
    with VerifierPool(workers, timeout_s) as pool, tempfile.TemporaryDirectory() as folder:
        MinimalLoop(recipe, NativeEngine(recipe, pool), Path(folder)).run()


if __name__ == "__main__":
    main()
