"""A run directory of any size, without a model: `python benchmarks/large_run.py DIR`.

The files are those of a real run: the store's own writer, the real selection, logs and manifest
with the keys of the native engine. What is in them is made up, see `synthetic.py`: rewards rise in
both iterations while held-out pass@k falls late. It is for measuring whatever reads a run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from synthetic import Book, Policy, Problems, sample_table

from rloop.evaluation.phase import task_metrics
from rloop.evaluation.tallies import Counts, stored_tallies
from rloop.loop.manifest import Manifest
from rloop.loop.select import select_and_write
from rloop.observe.run_log import RunLog
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe, resolved_json
from rloop.session.environment import add_engine, environment
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName, Place

ITERATIONS = 2
GROUP_SIZE = 16
SAMPLES = 16
EVALUATE_EVERY = 10
STEP_S, EVALUATION_S = 60.0, 45.0
BEGIN_S = 1_767_225_600.0
TRAIN, HELD_OUT = "sums", "held_out_sums"
RECIPE = """\
# Made up by benchmarks/large_run.py; nothing was trained.
name: synthetic
seed: 0
iterations: {iterations}
policy: {{path: "random:llama-2x64"}}
tasks:
  train: [{{source: "reasoning_gym:chain_sum", name: sums, size: {problems}, verifier: numeric}}]
  evaluate:
    - {{source: "reasoning_gym:chain_sum", name: held_out_sums, size: 100, verifier: numeric}}
explore:
  steps: {steps}
  prompts_per_step: {prompts}
  group_size: {group_size}
  sampling: {{max_completion_tokens: {max_tokens}}}
  optimizer: {{learning_rate: 1e-6}}
expert: {{max_success_rate: 0.75, per_problem_cap: 4}}
finetune: {{epochs: 2, batch_size: 128, optimizer: {{learning_rate: 2e-5}}}}
evaluate:
  samples: {samples}
  k: [1, 4, 8, 16]
  every: {every}
  sampling: {{max_completion_tokens: {max_tokens}}}
engine: {{device: cpu}}
"""


def main(arguments: Sequence[str]) -> int:
    """Write the run directory and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="new run directory")
    parser.add_argument("--trajectories", type=int, default=1_000_000, help="explored, in all")
    parser.add_argument("--steps", type=int, default=500, help="RL steps, in all")
    parser.add_argument("--tokens", type=int, default=200, help="per completion, about")
    parser.add_argument("--problems", type=int, default=5_000, help="in the training task")
    options = parser.parse_args(arguments)
    if options.directory.exists():
        parser.error(f"{options.directory} exists; name a new directory")
    run = SyntheticRun.begin(options)
    run.write()
    sys.stdout.write(f"{run.store.count():,} trajectories in {options.directory}\n")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRun:
    """The parts of a run while it is made up."""

    directory: Path
    recipe: Recipe
    num_tokens: int
    train: Problems
    held_out: Problems
    store: TrajectoryStore
    log: RunLog
    manifest: Manifest
    clock: list[float]
    """Seconds since 1970, as the events tell it."""

    @classmethod
    def begin(cls, options: argparse.Namespace) -> "SyntheticRun":
        """Write recipe, config and environment."""
        directory: Path = options.directory
        directory.mkdir(parents=True)
        source, steps = directory / "recipe.yaml", max(1, options.steps // ITERATIONS)
        groups = options.trajectories / (steps * ITERATIONS * GROUP_SIZE)
        text = RECIPE.format(
            iterations=ITERATIONS,
            problems=options.problems,
            steps=steps,
            prompts=max(1, min(options.problems, round(groups))),
            group_size=GROUP_SIZE,
            samples=SAMPLES,
            every=EVALUATE_EVERY,
            max_tokens=4 * options.tokens,
        )
        source.write_text(text)
        recipe = load_recipe(source, ())
        (directory / "config.json").write_text(resolved_json(recipe))
        (directory / "environment.json").write_text(json.dumps(environment(Path(__file__))))
        add_engine(directory / "environment.json", {"device": "none: made up"})
        book, rng = Book(), np.random.default_rng(0)
        return cls(
            directory=directory,
            recipe=recipe,
            num_tokens=options.tokens,
            train=Problems(book, TRAIN, options.problems, rng),
            held_out=Problems(book, HELD_OUT, 100, rng),
            store=TrajectoryStore(directory),
            log=RunLog(directory),
            manifest=Manifest(directory),
            clock=[BEGIN_S],
        )

    def write(self) -> None:
        """Write every phase as the loop would."""
        self.manifest.complete("0/prepare", {"policy": "base", "path": "policies/base"})
        counts = {"train": self.train.size, "coldstart": 0, HELD_OUT: self.held_out.size}
        self.manifest.complete("0/problems", {"digest": "synthetic", "counts": counts})
        base = self.evaluate(0, 0, "base", policy_at(0, 0.0), None)
        for iteration in range(1, ITERATIONS + 1):
            self.explore(iteration, base)
            kept = self.select(iteration)
            self.finetune(iteration, kept)
            policy = policy_at(iteration, 0.0)
            self.evaluate(iteration, 0, f"iter-{iteration:03d}", policy, base)
        self.log.close()

    def explore(self, iteration: int, base: Counts) -> None:
        """Write the RL steps of an iteration, with evaluations on the way."""
        name, steps, sampled = f"explored-{iteration:03d}", self.recipe.explore.steps, 0
        began = self.clock[0]
        for step in range(1, steps + 1):
            place = self.place(iteration, "explore", step, name)
            rng = np.random.default_rng([iteration, step])
            chosen = rng.choice(
                self.train.size, self.recipe.explore.prompts_per_step, replace=False
            )
            progress = (step - 1) / steps
            policy = policy_at(iteration - 1, progress, memorised=0.8 * progress)
            table = self.sample(place, self.train, chosen, policy, GROUP_SIZE, rng)
            self.store.append_table(place, table)
            found = explore_metrics(table, policy, rng)
            sampled += int(found["sampled_tokens_count"])
            self.log.metrics(place, found)
            self.clock[0] += STEP_S
            if step % EVALUATE_EVERY == 0:
                later = policy_at(iteration - 1, step / steps)
                self.evaluate(iteration, step, name, later, base)
        place = self.place(iteration, "explore", 0, name)
        self.log.event("explore", place, began, self.clock[0] - began)
        result = {"policy": name, "path": f"policies/{name}", "steps": steps, "early_stop": None}
        self.manifest.complete(f"{iteration}/explore", result | {"sampled_tokens": sampled})

    def select(self, iteration: int) -> int:
        """Select as the loop does; return how many were kept."""
        place = self.place(iteration, "select", 0, "")
        counts = select_and_write(self.store, self.directory, self.recipe, iteration)
        self.log.metrics(place, counts)
        self.event("select", place, 5.0)
        self.manifest.complete(f"{iteration}/select", counts)
        return counts["kept_count"]

    def finetune(self, iteration: int, kept: int) -> None:
        """Write the metrics lines of the fine-tuning."""
        config, name = self.recipe.finetune, f"iter-{iteration:03d}"
        assert config is not None, "the recipe above fine-tunes"
        rng = np.random.default_rng([iteration, 0])
        num_updates = max(1, config.epochs * kept // config.batch_size)
        for update in range(1, num_updates + 1):
            loss = 0.35 + 0.3 * np.exp(-6 * update / num_updates) + rng.normal(0, 0.01)
            self.log.metrics(
                self.place(iteration, "finetune", update, name),
                learning(loss, 0.4, 1.2, config.optimizer.learning_rate, config.batch_size, rng),
            )
        self.event("finetune", self.place(iteration, "finetune", 0, name), 2.0 * num_updates)
        result = {"policy": name, "path": f"policies/{name}"}
        self.manifest.complete(f"{iteration}/finetune", result)

    def evaluate(
        self, iteration: int, step: int, name: str, policy: Policy, base: Counts | None
    ) -> Counts:
        """Write an evaluation; return its counts."""
        place = self.place(iteration, "evaluate", step, name)
        rng = np.random.default_rng([iteration, step, 1])
        everything = np.arange(self.held_out.size)
        table = self.sample(place, self.held_out, everything, policy, SAMPLES, rng)
        self.store.append_table(place, table, part=f"{name}-{HELD_OUT}")
        counts = stored_tallies(self.store, place)[HELD_OUT]
        found = task_metrics(counts, self.recipe.evaluate, base=base)
        found |= {"problems_count": self.held_out.size} | _lengths(table)
        metrics = {f"{HELD_OUT}/{key}": value for key, value in found.items()}
        self.log.metrics(place, metrics)
        self.event("evaluate", place, EVALUATION_S)
        if step == 0:
            self.manifest.complete(f"{iteration}/evaluate/{name}", {"metrics": metrics})
        return counts

    def sample(
        self,
        place: Place,
        problems: Problems,
        chosen: np.ndarray,
        policy: Policy,
        group_size: int,
        rng: np.random.Generator,
    ) -> pa.Table:
        """Return the rows of a step."""
        return sample_table(
            place,
            problems,
            chosen,
            policy,
            group_size=group_size,
            num_tokens=self.num_tokens,
            rng=rng,
        )

    def place(self, iteration: int, phase: PhaseName, step: int, policy: str) -> Place:
        """Return a place of this run."""
        return Place(
            run=self.recipe.name,
            seed=self.recipe.seed,
            iteration=iteration,
            phase=phase,
            step=step,
            policy=policy,
        )

    def event(self, name: str, place: Place, seconds: float) -> None:
        """Log what took this long, and let the time pass."""
        self.log.event(name, place, self.clock[0], seconds)
        self.clock[0] += seconds


def policy_at(iteration: int, progress: float, *, memorised: float = 0.0) -> Policy:
    """Return the policy after `iteration` iterations and a part (0 to 1) of another's RL.

    RL gains ability that flattens, and gives up breadth late; the next iteration starts from the
    ability with the breadth of the first. `memorised` is ability on the training problems alone.
    """
    gained = 0.35 * iteration + 0.6 * (1 - np.exp(-3 * progress))
    return Policy(
        ability=-0.6 + gained + memorised,
        steepness=0.6 + 0.1 * iteration + 1.5 * progress**3,
        narrowness=0.15 + 0.05 * iteration + 0.6 * progress,
        entropy=0.75 - 0.05 * iteration - 0.55 * progress,
    )


def explore_metrics(table: pa.Table, policy: Policy, rng: np.random.Generator) -> dict[str, float]:
    """Return the metrics of an RL step: what can be counted, counted; the rest made up."""
    rewards = table["reward"].to_numpy().reshape(-1, GROUP_SIZE)
    rate = rewards.mean(1)
    mixed = float(((rate > 0) & (rate < 1)).mean())
    lengths = _lengths(table)
    seconds = rng.normal(STEP_S, 1.0)
    return {
        "reward_mean": float(rewards.mean()),
        "groups_count": len(rewards),
        "groups_all_correct_frac": float((rate == 1).mean()),
        "groups_all_wrong_frac": float((rate == 0).mean()),
        "groups_mixed_frac": mixed,
        "groups_signal_frac": mixed,
        **{key: value for key, value in lengths.items() if key != "samples_count"},
        "trajectories_count": table.num_rows,
        **learning(0.0, policy.entropy, 0.3 + 0.4 * policy.steepness, 1e-6, rewards.size, rng),
        "clip_frac": float(rng.uniform(0, 0.004)),
        "gap_mean": float(rng.uniform(0.002, 0.004)),
        "gap_max": float(rng.uniform(0.1, 0.5)),
        "sample_s": seconds * 0.7,
        "learn_s": seconds * 0.3,
        "step_s": seconds,
        "tokens_per_s": lengths["sampled_tokens_count"] / (seconds * 0.7),
    }


def learning(
    loss: float,
    entropy: float,
    grad_norm: float,
    learning_rate: float,
    num_sequences: int,
    rng: np.random.Generator,
) -> Mapping[str, float]:
    """Return the metrics that every update has."""
    return {
        "learning_rate": learning_rate,
        "loss_tokens_count": 200.0 * num_sequences,
        "trained_sequences_count": float(num_sequences),
        "skipped_updates_count": 0.0,
        "loss_mean": float(loss + rng.normal(0, 0.005)),
        "entropy_mean": float(entropy + rng.normal(0, 0.01)),
        "grad_norm": float(grad_norm * rng.lognormal(0, 0.15)),
    }


def _lengths(table: pa.Table) -> dict[str, float]:
    tokens = table["completion_tokens"].to_numpy()
    return {
        "samples_count": table.num_rows,
        "sampled_tokens_count": int(tokens.sum()),
        "completion_tokens_mean": float(tokens.mean()),
        "truncated_frac": float(pc.mean(pc.equal(table["finish_reason"], "length")).as_py()),
        "verdict_error_frac": 0.0,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
