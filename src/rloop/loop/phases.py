"""The phases of a run. Each returns what it produced, and does nothing if the manifest already has
it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rloop.errors import DegenerateRun, StoreError
from rloop.evaluation.tallies import Counts, stored_tallies
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, policy_from, policy_result
from rloop.loop.explore import Exploration
from rloop.loop.select import focus_weights, read_successes, select_and_write
from rloop.loop.sft import Finetuning
from rloop.recipe.config import ExpertConfig
from rloop.store.expert import read_examples
from rloop.tasks.references import check_solutions
from rloop.types import Example, Place, PolicyRef, stable_hash


class Phases:
    """The phases of one run, idempotent by manifest."""

    def __init__(self, context: Context) -> None:
        """Work in the context's run directory."""
        self._context = context
        self.recipe = context.recipe
        self.base = context.base
        self._base_counts: Mapping[str, Counts] = {}

    def evaluate(self, policy: PolicyRef, iteration: int) -> None:
        """Measure a policy on the held-out tasks, paired with the base policy of the loop.

        Iteration 0 is the base itself. The last policy measured there (after a cold start) is the
        one that the iterations are compared with.
        """
        context, key = self._context, f"{iteration}/evaluate/{policy.name}"
        place = context.place(iteration, "evaluate", policy=policy.name)
        if context.manifest.result(key) is None:
            context.begin(key)
            found = context.measure(policy, place, self._base_counts)
            self._alarms().evaluation(place, found.metrics)
            context.end(key, {"metrics": dict(found.metrics)})
        if iteration == 0:
            self._base_counts = self._stored_counts(place)
        context.drop_policies(before=iteration)

    def _stored_counts(self, place: Place) -> Mapping[str, Counts]:
        """Return an evaluation's counts from the store, which must have every problem."""
        counts, tasks = stored_tallies(self._context.store, place), self._context.problems.evaluate
        for task, problems in tasks.items():
            num_stored = sum(problem.problem_id in counts.get(task, {}) for problem in problems)
            if num_stored < len(problems):
                raise StoreError(
                    f"{self._context.run_dir / 'trajectories'} has only {num_stored} of the "
                    f"{len(problems)} problems of {task} on which {place.policy} was evaluated: "
                    "files are missing. Restore them from a backup, or begin a new run."
                )
        return counts

    def coldstart(self, policy: PolicyRef) -> PolicyRef:
        """Fine-tune the base on its task's own solutions."""
        context, config = self._context, self.recipe.coldstart
        assert config is not None, "coldstart is called only when the recipe has one"
        place = context.place(0, "coldstart", policy="coldstart")

        def examples() -> Sequence[Example]:
            problems, template = context.problems.coldstart, config.solution_template
            check_solutions(problems, template)
            return context.engine.renderer.examples(problems, template)

        self.base = self._tune(policy, examples, place)
        return self.base

    def explore(self, policy: PolicyRef, iteration: int) -> PolicyRef:
        """Do RL from the policy (with replay from the base); every trajectory goes to the store.

        The returned policy's directory exists only if something needs it: no fine-tuning follows,
        fine-tuning starts from the explored policy, or `keep_explored` is on.
        """
        context = self._context
        found = context.manifest.result(f"{iteration}/explore")
        if found is not None:
            explored = policy_from(found, context.run_dir)
        else:
            start = self.base if self.recipe.explore.replay_per_group else policy
            explored = self._explore(start, iteration)
        if self.recipe.finetune is None:
            context.drop_policies(before=iteration)
        return explored

    def _explore(self, policy: PolicyRef, iteration: int) -> PolicyRef:
        context, finetune, config = self._context, self.recipe.finetune, self.recipe.explore
        keep = finetune is None or finetune.init == "explored" or self.recipe.keep_explored
        keep |= self.recipe.mix is not None and self.recipe.mix.explored > 0
        weights = replayed = None
        if config.focus == "hard" and iteration > 1:
            weights = focus_weights(context.store, context.problems.train, before=iteration)
        if config.replay_per_group and iteration > 1:
            for earlier in range(1, iteration):
                context.check_stored(earlier, self._explored(earlier))
            replayed = read_successes(
                context.store, context.problems.train, before=iteration, seed=self.recipe.seed
            )
        exploration = Exploration(
            context,
            policy,
            iteration,
            base_counts=self._base_counts,
            keep_policy=keep,
        )
        return exploration.run(weights, replayed)

    def _explored(self, iteration: int) -> Mapping[str, Any]:
        """Return the manifest's result of a complete exploration."""
        found = self._context.manifest.result(f"{iteration}/explore")
        assert found is not None, f"iteration {iteration} has not explored yet"
        return found

    def select(self, iteration: int) -> int:
        """Keep the successes on hard problems as the expert set; return their number."""
        context, key = self._context, f"{iteration}/select"
        found = context.manifest.result(key)
        if found is not None:
            return int(found["kept_count"])
        context.begin(key)
        context.check_stored(iteration, self._explored(iteration))
        place = context.place(iteration, "select")
        with context.log.span("select", place):
            counts = select_and_write(context.store, context.run_dir, self.recipe, iteration)
        context.log.metrics(place, counts)
        context.console.say(
            "select: {pool_count} trajectories -> {successes_count} successes -> {hard_count} "
            "on hard problems -> {deduplicated_count} different -> {kept_count} kept".format_map(
                counts
            )
        )
        if not counts["kept_count"]:
            raise DegenerateRun(_nothing_selected(counts, self.recipe.expert))
        context.end(key, counts)
        return int(counts["kept_count"])

    def finetune(self, policy: PolicyRef, num_examples: int, iteration: int) -> PolicyRef:
        """Fine-tune the iteration's start policy, or as `finetune.init` says, on its expert set."""
        context, config = self._context, self.recipe.finetune
        assert config is not None, "finetune is called only when the recipe has it"
        start = {
            "iteration_start": lambda: policy,
            "base": lambda: self.base,
            "explored": lambda: policy_from(self._explored(iteration), context.run_dir),
        }[config.init]()
        name = f"{'iter' if self.recipe.mix is None else 'finetuned'}-{iteration:03d}"
        place = context.place(iteration, "finetune", policy=name)

        def examples() -> Sequence[Example]:
            kept = read_examples(context.run_dir, iteration)
            if len(kept) != num_examples:
                raise StoreError(
                    f"{context.run_dir / 'expert'} holds {len(kept)} examples of iteration "
                    f"{iteration}, {num_examples} were selected: the file was replaced. Restore it "
                    "from a backup."
                )
            return kept

        return self._tune(start, examples, place)

    def mix(
        self, start: PolicyRef, explored: PolicyRef, policy: PolicyRef, iteration: int
    ) -> PolicyRef:
        """Return the iteration's policy, a mean of weights; `policy` is the fine-tuned one, or for
        plain RL the explored one.
        """
        from rloop.policies.mean import mean_policy

        context, config, key = self._context, self.recipe.mix, f"{iteration}/mix"
        assert config is not None, "mix is called only when the recipe has it"
        found = context.manifest.result(key)
        if found is not None:
            return policy_from(found, context.run_dir)
        weights = (
            (policy, config.finetuned),
            (explored, config.explored),
            (start, config.start),
            (self.base, config.base),
        )
        parts = [(part, weight) for part, weight in weights if weight]
        absent = next((part.name for part, _ in parts if not part.path.exists()), None)
        if absent is not None:
            raise DegenerateRun(f"There is no {absent} to mix: RL broke its policy.")
        name = f"iter-{iteration:03d}"
        mixed = mean_policy(
            parts,
            context.policy_dir(name),
            name,
            seed=stable_hash(self.recipe.seed, name, "mix"),
            trust_remote_code=self.recipe.policy.trust_remote_code,
        )
        context.end(key, policy_result(mixed, context.run_dir))
        return mixed

    def _tune(
        self, start: PolicyRef, examples: Callable[[], Sequence[Example]], place: Place
    ) -> PolicyRef:
        context, key = self._context, f"{place.iteration}/{place.phase}"
        found = context.manifest.result(key)
        if found is not None:
            return policy_from(found, context.run_dir)
        return Finetuning(context, start, examples, place).run()

    def _alarms(self) -> Alarms:
        return Alarms(self.recipe, self._context.log, self._context.console)


def _nothing_selected(counts: Mapping[str, int], config: ExpertConfig | None) -> str:
    start = f"Nothing was selected: of {counts['pool_count']} trajectories "
    if not counts["successes_count"]:
        return (
            f"{start}none was a success ({counts['truncated_count']} were cut at the length "
            "limit). Choose easier problems or longer completions, or teach the format first "
            "(coldstart)."
        )
    return (
        f"{start}{counts['successes_count']} were successes, all on problems solved more often "
        f"than expert.max_success_rate={config and config.max_success_rate}. Raise it, or choose "
        "harder problems."
    )
