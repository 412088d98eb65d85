"""RLoop around TRL's trainers: TRL trains; rloop samples, judges, stores, selects and measures.

    python examples/with_trl.py recipes/tiny.yaml                         # one process
    torchrun --nproc-per-node 2 examples/with_trl.py recipes/tiny.yaml    # two, on CPUs
    accelerate launch --num_processes 8 examples/with_trl.py mine.yaml    # eight GPUs, replicas

Every process runs the same lines. Rank 0 alone writes runs/NAME-trl, which `rloop report`, `view`
and `store` read. It cannot be resumed; for that, and for what `NOT_HERE` lists, use `rloop run`.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from rloop.engines.native.engine import NativeEngine
from rloop.engines.rollout import Rollout
from rloop.evaluation.phase import Evaluator
from rloop.loop.manifest import Manifest
from rloop.loop.problems import load_problems
from rloop.loop.rl import sampling_metrics
from rloop.loop.select import select_and_write
from rloop.observe.run_log import RunLog
from rloop.recipe.config import OptimizerConfig, Recipe
from rloop.recipe.load import load_recipe, resolved_json
from rloop.report.page import write_report
from rloop.store.expert import read_examples
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.types import Example, Place, PolicyRef, stable_hash

NOT_HERE = {
    "explore": "advantage loss updates_per_step refill_rounds replay_per_group focus entropy_coef "
    "overlong_buffer_tokens mask_truncated early_stop",
    **{"expert": "weight", "finetune": "init", "evaluate": "every", "engine": "lora"},
}
"""Keys of a recipe that must keep their defaults."""


class WithTRL:
    """The method in its order: `run`, and below it what `run` calls."""

    def __init__(self, recipe: Recipe, run_dir: Path, pool: VerifierPool) -> None:
        """Prepare the base policy and the problems; rank 0 opens the run directory."""
        self.recipe, self.run_dir = recipe, run_dir
        self.process = PartialState(cpu=recipe.engine.device == "cpu")
        self.is_first, self.size = self.process.is_main_process, self.process.num_processes
        if recipe.explore.prompts_per_step % self.size:
            raise SystemExit(f"{self.size} processes must divide explore.prompts_per_step.")
        own = recipe.engine.model_copy(update={"device": str(self.process.device)})
        self.engine = NativeEngine(recipe.model_copy(update={"engine": own}))
        self.rollout = Rollout(engine=self.engine, verify=pool, rewards=recipe.rewards)
        self.store = TrajectoryStore(run_dir)
        self.place = partial(Place, run=recipe.name, seed=recipe.seed)  # names random streams too
        self.base_counts: Any = {}
        base: list[Any] = [None]
        if self.is_first:
            if run_dir.exists():
                raise SystemExit(f"{run_dir} is there already: move it, or add name=OTHER.")
            run_dir.mkdir(parents=True)
            (run_dir / "config.json").write_text(resolved_json(recipe))
            self.log, self.manifest = RunLog(run_dir), Manifest(run_dir)
            folder = run_dir / "policies" / "base"
            base[0] = self.engine.prepare(recipe.policy.path, folder, seed=recipe.seed)
        self.base: PolicyRef = broadcast_object_list(base)[0]
        self.engine.load(self.base)
        self.problems = load_problems(recipe, pool).fitting(self.engine.renderer.report, recipe)

    def run(self) -> None:
        """Do every iteration."""
        recipe, policy = self.recipe, self.base
        self.evaluate(policy, 0)
        if recipe.coldstart is not None:
            template = recipe.coldstart.solution_template
            solutions = self.engine.renderer.examples(self.problems.coldstart, template)
            place = self.place(iteration=0, phase="coldstart", policy="coldstart")
            policy = self.finetune(policy, solutions, place)
            self.evaluate(policy, 0)
        for iteration in range(1, recipe.iterations + 1):
            self.explore(policy, iteration)  # fills the store; RL's weights are thrown away
            expert_set = self.select(iteration)
            name = f"iter-{iteration:03d}"
            place = self.place(iteration=iteration, phase="finetune", policy=name)
            policy = self.finetune(policy, expert_set, place)  # of the iteration's start policy
            self.evaluate(policy, iteration)

    def explore(self, start: PolicyRef, iteration: int) -> None:
        """Do RL from the policy with GRPOTrainer; every completion of every step is stored."""
        config = self.recipe.explore
        name = f"explored-{iteration:03d}"
        place = self.place(iteration=iteration, phase="explore", policy=name)
        problems = {problem.problem_id: problem for problem in self.problems.train}
        self.engine.load(start)

        def rollout(names: list[str], trainer: GRPOTrainer) -> dict[str, list[Any]]:
            """Sample and judge this process's groups; TRL gives each name `group_size` times."""
            self.engine.copy_weights(trainer.accelerator.get_state_dict(trainer.model))
            here = replace(place, step=trainer.state.global_step + 1)
            mine = [problems[name] for name in names[:: config.group_size]]
            found = self.rollout.groups(mine, config.group_size, config.sampling, here)
            groups = sorted(found, key=lambda group: mine.index(group.problem))
            everyones = gather_object(groups)
            if self.is_first:
                self.store.append(here, everyones)
                num_mixed = sum(group.is_mixed for group in everyones)
                self.log.metrics(here, sampling_metrics(everyones, num_mixed))
            members = [t for group in groups for t in group.trajectories]
            return {
                "prompt_ids": [list(t.completion.prompt_ids) for t in members],
                "completion_ids": [list(t.completion.completion_ids) for t in members],
                "logprobs": [list(t.completion.behavior_logprobs) for t in members],
                "judged": [None if t.has_error else t.reward for t in members],
            }

        def reward(judged: list[float | None], **_: object) -> list[float | None]:
            return judged

        arguments = GRPOConfig(
            max_steps=config.steps,
            num_generations=config.group_size,
            per_device_train_batch_size=config.group_size,  # a pass takes a group
            gradient_accumulation_steps=config.prompts_per_step // self.size,
            max_completion_length=config.sampling.max_completion_tokens,
            temperature=config.sampling.temperature,
            epsilon=config.clip_low,
            epsilon_high=config.clip_high,
            delta=config.importance_cap,
            beta=config.kl_coef,
            **self.options(config.optimizer, place),
        )
        names = Dataset.from_dict({"prompt": list(problems)})  # `rollout` renders the prompts
        GRPOTrainer(str(start.path), reward, arguments, names, rollout_func=rollout).train()
        if self.is_first:
            self.manifest.complete(f"{iteration}/explore", {"steps": config.steps})

    def select(self, iteration: int) -> list[Example]:
        """Keep the successes on hard problems as the expert set."""
        if self.is_first:
            counts = select_and_write(self.store, self.run_dir, self.recipe, iteration)
            self.log.metrics(self.place(iteration=iteration, phase="select"), counts)
            self.manifest.complete(f"{iteration}/select", counts)
        self.process.wait_for_everyone()
        return read_examples(self.run_dir, iteration)

    def finetune(self, start: PolicyRef, examples: Sequence[Example], place: Place) -> PolicyRef:
        """Imitate stored token ids with SFTTrainer, beginning at `start`."""
        recipe = self.recipe
        config = recipe.coldstart if place.phase == "coldstart" else recipe.finetune
        if config is None or not examples:
            raise SystemExit(f"Iteration {place.iteration} has nothing to fine-tune on.")
        arguments = SFTConfig(
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size // self.size,
            max_length=None,
            **self.options(config.optimizer, place),
        )
        ids = [[*e.prompt_ids, *e.completion_ids] for e in examples]
        labels = [[-100] * len(e.prompt_ids) + [*e.completion_ids] for e in examples]
        rows = Dataset.from_dict({"input_ids": ids, "labels": labels})
        trainer = SFTTrainer(str(start.path), arguments, train_dataset=rows)
        trainer.train()
        kept = PolicyRef(path=self.run_dir / "policies" / place.policy, name=place.policy)
        trainer.save_model(str(kept.path))
        self.process.wait_for_everyone()
        if self.is_first:
            self.manifest.complete(f"{place.iteration}/{place.phase}", {"policy": kept.name})
        return kept

    def evaluate(self, policy: PolicyRef, iteration: int) -> None:
        """Sample the held-out problems; rank 0 measures what is stored, as `rloop run` does."""
        config, tasks = self.recipe.evaluate, self.problems.evaluate
        place = self.place(iteration=iteration, phase="evaluate", policy=policy.name)
        self.engine.load(policy)
        for task, problems in tasks.items():
            with self.process.split_between_processes(list(problems)) as mine:
                found = self.rollout.groups(mine, config.samples, config.sampling, place)
            everyones = gather_object(list(found))
            if self.is_first:
                self.store.append(place, everyones, part=f"{policy.name}-{task}")
        if self.is_first:
            stored = Evaluator(rollout=self.rollout, tasks=tasks, config=config, store=self.store)
            result = stored.evaluate(place, base_counts=self.base_counts)
            self.base_counts = self.base_counts if iteration else result.counts
            self.log.metrics(place, result.metrics)
            key = f"{iteration}/evaluate/{policy.name}"
            self.manifest.complete(key, {"metrics": result.metrics})

    def options(self, optimizer: OptimizerConfig, place: Place) -> dict[str, Any]:
        """Return what both trainers are told."""
        is_cpu, is_constant = self.process.device.type == "cpu", optimizer.schedule == "constant"
        return {
            # In float32, so that small updates are not rounded away.
            "model_init_kwargs": {"dtype": "float32"},
            "learning_rate": optimizer.learning_rate,
            "lr_scheduler_type": "constant_with_warmup" if is_constant else "cosine",
            "warmup_steps": optimizer.warmup_frac,
            "weight_decay": optimizer.weight_decay,
            "max_grad_norm": optimizer.grad_clip or math.inf,
            "gradient_checkpointing": self.recipe.engine.gradient_checkpointing,
            "seed": stable_hash(place.seed, place.iteration, place.phase) % 2**31,
            "use_cpu": is_cpu,
            "bf16": not is_cpu,
            "output_dir": str(self.run_dir / "trl"),
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
        }


def main() -> None:
    """Run the recipe named on the command line."""
    if len(sys.argv) < 2:
        raise SystemExit("Name a recipe: python examples/with_trl.py recipes/tiny.yaml")
    recipe = load_recipe(Path(sys.argv[1]), sys.argv[2:])
    for section, names in NOT_HERE.items():
        config = getattr(recipe, section)
        if config is None:
            raise SystemExit(f"The recipe has no {section}, so it is not RLoop: use `rloop run`.")
        for name in names.split():
            if getattr(config, name) != type(config).model_fields[name].default:
                raise SystemExit(f"{section}.{name} is not done here: use `rloop run`.")
    run_dir = Path("runs") / f"{recipe.name}-trl"
    workers, timeout_s = recipe.tasks.verifier_workers, recipe.tasks.verifier_timeout_s
    with VerifierPool(workers, timeout_s) as pool:
        loop = WithTRL(recipe, run_dir, pool)
        loop.run()
    if loop.is_first:
        print(f"Report: {write_report(run_dir)}")  # noqa: T201


if __name__ == "__main__":
    main()
