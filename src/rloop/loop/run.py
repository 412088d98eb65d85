"""The method: explore, select, fine-tune the policy the iteration started from, evaluate; repeat.

RLoop (arXiv 2511.04285). RL's weights are thrown away at the end of an iteration, its trajectories
are not. Every phase below is idempotent: one that the manifest knows to be complete returns what
it produced.
"""

from rloop.loop.phases import Phases
from rloop.types import PolicyRef


def run_loop(phases: Phases) -> PolicyRef:
    """Run every phase that is not complete yet; return the last iteration's policy."""
    recipe = phases.recipe
    base = policy = phases.base
    phases.evaluate(policy, iteration=0)
    if recipe.coldstart is not None:
        base = policy = phases.coldstart(policy)
        phases.evaluate(policy, iteration=0)

    iteration = 0
    while iteration < phases.last_iteration:
        iteration += 1
        explored = phases.explore(base if recipe.explore.replay_per_group else policy, iteration)
        if recipe.expert is None or recipe.finetune is None:
            policy = explored
            if recipe.explore.average_every:
                phases.evaluate(policy, iteration)
            continue
        expert_set = phases.select(iteration)
        start = {"iteration_start": policy, "base": base, "explored": explored}[
            recipe.finetune.init
        ]
        policy = phases.finetune(start, expert_set, iteration)
        phases.evaluate(policy, iteration)
    return policy
