"""The method: explore, select, fine-tune the policy the iteration started from, evaluate; repeat.

RLoop (arXiv 2511.04285). At the end of an iteration RL's weights are thrown away, and its
trajectories are kept. Every phase below is idempotent: one that is complete in the manifest returns
what it produced.
"""

from rloop.loop.phases import Phases
from rloop.types import PolicyRef


def run_loop(phases: Phases) -> PolicyRef:
    """Run every phase that is not complete; return the last iteration's policy."""
    recipe, policy = phases.recipe, phases.base
    phases.evaluate(policy, iteration=0)
    if recipe.coldstart is not None:
        policy = phases.coldstart(policy)
        phases.evaluate(policy, iteration=0)

    for iteration in range(1, recipe.iterations + 1):
        start, explored = policy, phases.explore(policy, iteration)
        if recipe.finetune is None:  # plain RL
            policy = explored
        else:
            expert_set = phases.select(iteration)
            policy = phases.finetune(start, expert_set, iteration)
        if recipe.mix is not None:
            policy = phases.mix(start, explored, policy, iteration)
        if policy != explored:
            phases.evaluate(policy, iteration)
    return policy
