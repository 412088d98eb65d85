"""RLoop in one file: the whole method without resuming, report or console.

    python examples/minimal_loop.py recipes/tiny.yaml

The numbers are those of `rloop run` with the same recipe and seed, for recipes without `mix`, early
stop, replay and `explore.focus: hard`. Read it to learn the method, copy it to change it; the steps
of RL and of SFT are in `rloop.loop.rl` and `rloop.loop.sft`.

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

from rloop.engines.base import Engine
from rloop.engines.registry import build_engine
from rloop.engines.rollout import Rollout
from rloop.evaluation.phase import task_metrics
from rloop.evaluation.tallies import tally
from rloop.loop.context import phase_seed
from rloop.loop.rl import RLState, RLTrainer
from rloop.loop.select import select_and_write
from rloop.loop.sft import sft_steps
from rloop.recipe.config import ColdstartConfig, FinetuneConfig, Recipe
from rloop.recipe.load import load_recipe
from rloop.store.expert import read_examples
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.load import load_coldstart, load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.rewards import Verify
from rloop.types import Example, PhaseName, Place, PolicyRef, Problem


class MinimalLoop:
    """The loop over one engine; `history` holds the evaluations: (policy name, task, metrics)."""

    def __init__(self, recipe: Recipe, engine: Engine, verify: Verify, folder: Path) -> None:
        """Load the problems and prepare the base policy; `folder` takes all that is made."""
        self.recipe, self.engine, self.folder = recipe, engine, folder
        self.rollout = Rollout(engine=engine, verify=verify, rewards=recipe.rewards)
        self.store = TrajectoryStore(folder)
        self.base = engine.prepare(recipe.policy.path, folder / "base", seed=recipe.seed)
        tasks = load_tasks(recipe.tasks)
        self.train = self.fitting(tasks.train)
        self.held_out = {name: self.fitting(these) for name, these in tasks.evaluate.items()}
        self.history: list[tuple[str, str, dict[str, float]]] = []

    def run(self) -> PolicyRef:
        """Do every iteration; return the last policy."""
        recipe = self.recipe
        if recipe.finetune is None:
            raise SystemExit("This loop needs a recipe with expert and finetune.")
        base = policy = self.base
        self.evaluate(policy, 0)
        if recipe.coldstart is not None:
            examples = self.solutions(recipe.coldstart)
            place = self.place(0, "coldstart", "coldstart")
            base = policy = self.fine_tune(policy, examples, recipe.coldstart, place)
            self.evaluate(policy, 0)
        for iteration in range(1, recipe.iterations + 1):
            self.explore(policy, iteration)
            select_and_write(self.store, self.folder, recipe, iteration)
            examples = read_examples(self.folder, iteration)
            start = base if recipe.finetune.init == "base" else policy
            place = self.place(iteration, "finetune", f"iter-{iteration:03d}")
            policy = self.fine_tune(start, examples, recipe.finetune, place)
            self.evaluate(policy, iteration)
        return policy

    def explore(self, start: PolicyRef, iteration: int) -> None:
        """Do RL from the policy; store every trajectory of every step and drop the weights."""
        config = self.recipe.explore
        place = self.place(iteration, "explore", f"explored-{iteration:03d}")
        self.engine.load(start)
        self.engine.begin(config.optimizer, seed=phase_seed(place))
        explorer = RLTrainer(rollout=self.rollout, config=config, problems=self.train, place=place)
        for step in explorer.steps(RLState()):
            self.store.append(step.groups[0].trajectories[0].place, step.groups)
            reward = step.metrics["reward_mean"]
            print(f"  iteration {iteration} step {step.step}: reward {reward:.3f}")  # noqa: T201

    def solutions(self, config: ColdstartConfig) -> list[Example]:
        """Return the task's own solutions, which a cold start teaches first."""
        held_out = [problem for these in self.held_out.values() for problem in these]
        loaded = load_coldstart(config, held_out, data_dir=self.recipe.tasks.data_dir)
        problems = self.fitting(loaded.problems)
        return self.engine.renderer.examples(problems, config.solution_template)

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        config: ColdstartConfig | FinetuneConfig,
        place: Place,
    ) -> PolicyRef:
        """Imitate the examples, starting from `start`; return the policy that the place names."""
        self.engine.load(start)
        self.engine.begin(config.optimizer, seed=phase_seed(place))
        for _ in sft_steps(self.engine, examples, config, place):
            pass
        return self.engine.save_policy(self.folder / place.policy, place.policy)

    def evaluate(self, policy: PolicyRef, iteration: int) -> None:
        """Measure avg@n and pass@k on held-out problems."""
        config, place = self.recipe.evaluate, self.place(iteration, "evaluate", policy.name)
        self.engine.load(policy)
        for task, problems in self.held_out.items():
            groups = self.rollout.groups(problems, config.samples, config.sampling, place)
            metrics = task_metrics({g.problem.problem_id: tally(g) for g in groups}, config)
            self.history.append((policy.name, task, metrics))
            shown = "  ".join(
                f"{name} {metrics[name]:.3f} [{metrics[name + '_low']:.3f}, "
                f"{metrics[name + '_high']:.3f}]"
                for name in (f"avg@{config.samples}", *(f"pass@{k}" for k in config.k))
            )
            print(f"{policy.name:>12} on {task}: {shown}")  # noqa: T201

    def fitting(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return the problems whose prompt is not too long."""
        return tuple(self.engine.renderer.report(problems).kept)

    def place(self, iteration: int, phase: PhaseName, policy: str) -> Place:
        """Return a place; it names the random streams, and the policy sampled from or made."""
        name, seed = self.recipe.name, self.recipe.seed
        return Place(run=name, seed=seed, iteration=iteration, phase=phase, policy=policy)


def main() -> None:
    """Run the recipe named on the command line."""
    if len(sys.argv) < 2:
        raise SystemExit("Name a recipe: python examples/minimal_loop.py recipes/tiny.yaml")
    recipe = load_recipe(Path(sys.argv[1]), sys.argv[2:])
    workers, timeout_s = recipe.tasks.verifier_workers, recipe.tasks.verifier_timeout_s
    with VerifierPool(workers, timeout_s) as pool, tempfile.TemporaryDirectory() as folder:
        MinimalLoop(recipe, build_engine(recipe), pool, Path(folder)).run()


if __name__ == "__main__":
    main()
