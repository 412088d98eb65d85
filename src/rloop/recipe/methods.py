"""The methods that the switches of a recipe give, by name: RLoop, plain RL, RAFT, ReST-EM, ...

`Method.of` turns a recipe into another method's, with the same number of completions sampled in
RL: iterations x steps x prompts_per_step x group_size. Warm-up and cosine are fractions of a phase,
so they stretch with a method's own steps. `method_of` names the method of a recipe. Knows nothing
of engines: every method is a setting of the switches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rloop.errors import ConfigError
from rloop.recipe.config import Recipe

COVERED = 8
"""Successes of a problem that `coverage` keeps, where the recipe has no cap of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One setting of the switches.

    Example: Method(name="rest_em", title="ReST-EM", values=FROZEN | {"finetune.init": "base"})
    """

    name: str
    """As `--methods` and run directories have it."""
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys of the recipe and what they become."""
    explorations: int | None = None
    """Plain RL: how many explorations share the recipe's steps, without fine-tuning between them;
    None keeps the recipe's loop."""

    def of(self, recipe: Recipe) -> Recipe:
        """Return the recipe of this method under the same budget.

        ConfigError for a recipe that lacks what the other methods need: RL that learns, and a
        fine-tuning phase.
        """
        if recipe.expert is None or recipe.finetune is None:
            raise ConfigError(
                "Methods are derived from a recipe of RLoop, but this one has expert and finetune "
                "set to null. Give both, as recipes/tiny.yaml does."
            )
        if recipe.explore.optimizer.learning_rate == 0:
            raise ConfigError(
                "Methods are derived from a recipe of RLoop, but this one has explore.optimizer."
                "learning_rate=0, so RL would learn nothing. Give RL's learning rate; raft and "
                "rest_em set it to 0 themselves."
            )
        values = {**self.values, **self._plain_rl(recipe)}
        if self.name == "coverage":
            values["expert.per_problem_cap"] = recipe.expert.per_problem_cap or COVERED
        data = recipe.model_dump(mode="json")
        for key, value in values.items():
            *parents, last = key.split(".")
            section = data
            for parent in parents:
                section = section[parent]
            section[last] = value
        return Recipe.model_validate(data)

    def _plain_rl(self, recipe: Recipe) -> dict[str, Any]:
        """Return the values that share the recipe's steps between explorations of plain RL."""
        if self.explorations is None:
            return {}
        steps, every = recipe.explore.steps, recipe.evaluate.every
        if recipe.iterations * steps % self.explorations:
            raise ConfigError(
                f"{self.name} splits iterations x explore.steps into two halves, got "
                f"iterations={recipe.iterations} of explore.steps={steps}. Make one of them even."
            )
        values = {
            "iterations": self.explorations,
            "explore.steps": recipe.iterations * steps // self.explorations,
            "expert": None,
            "finetune": None,
        }
        if self.explorations == 1:
            # RLoop measures RL's weights after each exploration, so the points are the same.
            values["evaluate.every"] = every if 0 < every < steps else steps
        return values


RESET = {"finetune.init": "iteration_start"}
FROZEN = {
    "explore.optimizer.learning_rate": 0.0,
    # What does not move needs no second measurement, and no rule that watches it move.
    "evaluate.every": 0,
    "explore.early_stop": {},
}
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        # RL explores, its successes fine-tune the policy the iteration began with: arXiv 2511.04285
        Method(name="rloop", title="RLoop", values=RESET),
        # one exploration, its weights are kept: the paper's baseline; DAPO, arXiv 2503.14476
        Method(name="rl", title="Plain RL", explorations=1),
        # samples from the frozen policy, its successes fine-tune it: arXiv 2304.06767, 2504.11343
        Method(name="raft", title="RAFT", values=FROZEN | RESET),
        # the same, but its successes fine-tune the base: arXiv 2312.06585
        Method(name="rest_em", title="ReST-EM", values=FROZEN | {"finetune.init": "base"}),
        # ablation: fine-tuning starts from RL's weights, which tells what the reset is worth
        Method(
            name="keep_weights",
            title="RLoop without the reset",
            values={"finetune.init": "explored"},
        ),
        # a variant that the paper leaves open: fine-tuning starts from the base
        Method(
            name="from_base",
            title="RLoop, fine-tuned from the base",
            values={"finetune.init": "base"},
        ),
        # ablation: successes on easy problems are imitated too
        Method(
            name="no_hardness",
            title="RLoop without the hardness filter",
            values=RESET | {"expert.max_success_rate": 1.0},
        ),
        # ours: what every exploration so far has found, not the last one alone
        Method(
            name="accumulated",
            title="RLoop that accumulates",
            values=RESET | {"expert.window": "accumulated"},
        ),
        # ours: each problem weighs alike, by its most different successes
        Method(
            name="coverage",
            title="RLoop, one weight per problem",
            values=RESET
            | {
                "expert.dedupe": True,
                "expert.prefer": "diverse",
                "expert.weight": "inverse_frequency",
            },
        ),
        # grad log p(x) from samples: all successes, repeats too, and each problem weighs 1. In the
        # frozen form (raft) exactly the gradient of the log-likelihood that MaxRL ascends
        Method(
            name="likelihood",
            title="RLoop, likelihood weights",
            values=RESET
            | {
                "expert.max_success_rate": 1.0,
                "expert.per_problem_cap": None,
                "expert.dedupe": False,
                "expert.weight": "inverse_frequency",
            },
        ),
        # the mean of RL's weights and the base's: WiSE-FT, arXiv 2109.01903; for RL 2504.10478
        Method(
            name="rl_mix",
            title="Plain RL averaged with the base",
            values={"mix": {"base": 0.5, "explored": 0.5}},
            explorations=1,
        ),
        # the same for what RLoop hands over
        Method(
            name="rloop_mix",
            title="RLoop averaged with the base",
            values=RESET | {"mix": {"base": 0.5, "finetuned": 0.5}},
        ),
        # half of the steps collect successes, RL from the base replays two in each group: after
        # RLEP, arXiv 2507.07451
        Method(
            name="replay",
            title="RL with replay",
            values={"explore.replay_per_group": 2},
            explorations=2,
        ),
    )
}


def find_methods(names: str) -> list[Method]:
    """Return the methods of a comma-separated list, in its order; ConfigError for other names."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        got = f"{unknown[0]!r} is not one" if unknown else "none was named"
        raise ConfigError(f"--methods takes some of {', '.join(METHODS)}; {got}.")
    return [METHODS[name] for name in wanted]


def method_of(config: Mapping[str, Any]) -> Method | None:
    """Return the method that a resolved recipe is; None where RL is frozen and nothing follows."""
    finetune, explore = config.get("finetune"), config["explore"]
    is_frozen = explore.get("optimizer", {}).get("learning_rate") == 0
    if config.get("mix"):
        return METHODS["rl_mix" if finetune is None else "rloop_mix"]
    if finetune is None:
        return None if is_frozen else METHODS["replay" if explore.get("replay_per_group") else "rl"]
    if is_frozen:
        return METHODS["rest_em" if finetune["init"] == "base" else "raft"]
    if finetune["init"] != "iteration_start":
        return METHODS["from_base" if finetune["init"] == "base" else "keep_weights"]
    return METHODS[_kind_of_rloop(config.get("expert") or {})]


def _kind_of_rloop(expert: Mapping[str, Any]) -> str:
    if expert.get("window") == "accumulated":
        return "accumulated"
    if expert.get("weight") == "inverse_frequency" and expert.get("per_problem_cap"):
        return "coverage" if expert.get("prefer") == "diverse" else "rloop"
    if expert.get("weight") == "inverse_frequency" and not expert.get("dedupe"):
        return "likelihood"
    return "no_hardness" if expert.get("max_success_rate") == 1 else "rloop"


def last_phase(config: Mapping[str, Any]) -> str:
    """Return the key of a run's last phase, as the manifest has it. Example: `1/explore`."""
    last = int(config.get("iterations", 1))
    if config.get("finetune") is not None or config.get("mix") is not None:
        return f"{last}/evaluate/iter-{last:03d}"
    return f"{last}/explore"


def method_title(config: Mapping[str, Any]) -> str:
    """Return what a reader calls the method of a resolved recipe. Example: `Plain RL`."""
    method = method_of(config)
    return method.title if method else "Sampling from a frozen policy"


def budget_warnings(recipe: Recipe, methods: list[Method]) -> list[str]:
    """Return why methods of this recipe may sample more or less than each other after all."""
    found = []
    explore = recipe.explore
    if explore.refill_rounds:
        found.append(
            f"explore.refill_rounds={explore.refill_rounds} samples more where groups have no "
            "signal, so methods will differ in what they sample. Set it to 0 for equal budgets."
        )
    rules = explore.early_stop
    if rules.pass_at_k_falls or rules.min_entropy is not None or rules.max_grad_norm:
        found.append(
            "explore.early_stop ends an exploration early, so methods may sample less than their "
            "budget; raft and rest_em, whose policy does not move, ignore it."
        )
    names = {method.name for method in methods}
    if explore.focus == "hard" and recipe.iterations > 1 and "rl" in names:
        found.append(
            "explore.focus=hard works from iteration 2 on: rl, which has one iteration, draws its "
            "problems uniformly."
        )
    return found
