"""The methods that the switches of a recipe give, by name: RLoop, plain RL, RAFT, ReST-EM, ...

`Method.of` turns a recipe into another method's, with the same number of completions sampled in
RL: iterations x steps x prompts_per_step x group_size. Warm-up and cosine are fractions of a phase,
so they stretch with a method's own steps. `method_of` names the method of a recipe. Knows nothing
of engines: every method is a setting of the switches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rloop.errors import ConfigError
from rloop.recipe.config import Recipe

REPLAYED = 2
"""Successes that `replay` adds to a group."""
COVERED = 8
"""Successes of a problem that `coverage` keeps, where the recipe has no cap of its own."""

Data = dict[str, Any]
"""A resolved recipe as nested mappings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One setting of the switches.

    Example: Method(name="rl", title="Plain RL", description="one long exploration ...",
    source="...", apply=_plain_rl)
    """

    name: str
    """As `--methods` and run directories have it."""
    title: str
    description: str
    source: str
    """Where the method is from."""
    apply: Callable[[Data], None]
    """Sets the switches in place; the data have `expert` and `finetune`."""

    def of(self, recipe: Recipe) -> Recipe:
        """Return the recipe of this method under the same budget.

        ConfigError for a recipe that lacks what the other methods need: RL that learns, and a
        fine-tuning phase.
        """
        if recipe.expert is None or recipe.finetune is None:
            raise ConfigError(
                "Methods are made from a recipe of RLoop, and this one has expert and finetune set "
                "to null. Give both, as recipes/tiny.yaml does."
            )
        if recipe.explore.optimizer.learning_rate == 0:
            raise ConfigError(
                "Methods are made from a recipe of RLoop, and this one has explore.optimizer."
                "learning_rate=0, so that RL would learn nothing. Give RL's learning rate; raft "
                "and rest_em set it to 0 themselves."
            )
        data = recipe.model_dump(mode="json")
        self.apply(data)
        return Recipe.model_validate(data)


def _rloop(data: Data) -> None:
    data["finetune"]["init"] = "iteration_start"


def _plain_rl(data: Data) -> None:
    steps, every = data["explore"]["steps"], data["evaluate"]["every"]
    data["explore"]["steps"] = steps * data["iterations"]
    data["iterations"] = 1
    data["expert"] = data["finetune"] = None
    # RLoop measures RL's weights at the end of each exploration; so the points are the same.
    data["evaluate"]["every"] = every if 0 < every < steps else steps


def _frozen(data: Data) -> None:
    data["explore"]["optimizer"]["learning_rate"] = 0.0
    # What does not move needs no second measurement, and no rule that watches it move.
    data["evaluate"]["every"] = 0
    data["explore"]["early_stop"] = {}


def _raft(data: Data) -> None:
    _frozen(data)
    data["finetune"]["init"] = "iteration_start"


def _rest_em(data: Data) -> None:
    _frozen(data)
    data["finetune"]["init"] = "base"


def _keep_weights(data: Data) -> None:
    data["finetune"]["init"] = "explored"


def _from_base(data: Data) -> None:
    data["finetune"]["init"] = "base"


def _replay(data: Data) -> None:
    total = data["explore"]["steps"] * data["iterations"]
    if total % 2:
        raise ConfigError(
            "replay parts iterations x explore.steps into two halves, got "
            f"iterations={data['iterations']} of explore.steps={data['explore']['steps']}. Make "
            "one of them even."
        )
    data["iterations"] = 2
    data["explore"] |= {"steps": total // 2, "replay_per_group": REPLAYED}
    data["expert"] = data["finetune"] = None


def _coverage(data: Data) -> None:
    _rloop(data)
    data["expert"] |= {
        "per_problem_cap": data["expert"]["per_problem_cap"] or COVERED,
        "dedupe": True,
        "prefer": "diverse",
        "weight": "inverse_frequency",
    }


def _no_hardness(data: Data) -> None:
    data["finetune"]["init"] = "iteration_start"
    data["expert"]["max_success_rate"] = 1.0


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="rloop",
            title="RLoop",
            description="RL explores, its successes fine-tune the policy the iteration began with",
            source="arXiv 2511.04285",
            apply=_rloop,
        ),
        Method(
            name="rl",
            title="Plain RL",
            description="one exploration of iterations x steps RL steps, its weights are kept",
            source="the baseline of arXiv 2511.04285; DAPO, arXiv 2503.14476",
            apply=_plain_rl,
        ),
        Method(
            name="raft",
            title="RAFT",
            description="samples from the frozen policy, its successes fine-tune that policy",
            source="arXiv 2304.06767, 2504.11343",
            apply=_raft,
        ),
        Method(
            name="rest_em",
            title="ReST-EM",
            description="samples from the frozen policy, its successes fine-tune the base",
            source="arXiv 2312.06585",
            apply=_rest_em,
        ),
        Method(
            name="keep_weights",
            title="RLoop that keeps RL's weights",
            description="the fine-tuning starts from RL's weights: what the reset is worth",
            source="ablation of arXiv 2511.04285",
            apply=_keep_weights,
        ),
        Method(
            name="from_base",
            title="RLoop from the base",
            description="the fine-tuning starts from the base in every iteration",
            source="a variant that the paper leaves open",
            apply=_from_base,
        ),
        Method(
            name="no_hardness",
            title="RLoop without active learning",
            description="successes on easy problems are imitated too",
            source="ablation of arXiv 2511.04285",
            apply=_no_hardness,
        ),
        Method(
            name="coverage",
            title="RLoop that covers",
            description="each problem weighs alike, by its most different successes",
            source="rloop's own",
            apply=_coverage,
        ),
        Method(
            name="replay",
            title="RL with replay",
            description="half of the steps collect successes, RL from the base replays them",
            source="after RLEP, arXiv 2507.07451",
            apply=_replay,
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
    if finetune is None:
        return None if is_frozen else METHODS["replay" if explore.get("replay_per_group") else "rl"]
    if is_frozen:
        return METHODS["rest_em" if finetune["init"] == "base" else "raft"]
    if finetune["init"] != "iteration_start":
        return METHODS["from_base" if finetune["init"] == "base" else "keep_weights"]
    return METHODS[_kind_of_rloop(config.get("expert") or {})]


def _kind_of_rloop(expert: Mapping[str, Any]) -> str:
    if expert.get("weight") == "inverse_frequency" and expert.get("per_problem_cap"):
        return "coverage" if expert.get("prefer") == "diverse" else "rloop"
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
            "budget; raft and rest_em, whose policy does not move, run without."
        )
    names = {method.name for method in methods}
    if explore.focus == "hard" and recipe.iterations > 1 and "rl" in names:
        found.append(
            "explore.focus=hard works from iteration 2 on: rl, which has one, draws its problems "
            "uniformly."
        )
    return found
