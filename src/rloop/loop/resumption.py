"""What a run that goes on will skip and do again, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from rloop.loop.state import Manifest
from rloop.recipe.config import Recipe
from rloop.recipe.methods import last_phase
from rloop.store.trajectories import TrajectoryStore


def plan(manifest: Manifest, store: TrajectoryStore, recipe: Recipe) -> Iterator[str]:
    """Yield what is complete, where the run goes on, and which steps are done again."""
    is_complete = last_phase(recipe.model_dump(mode="json")) in manifest.phases
    phases: dict[str, list[str]] = {}
    for key in manifest.completed():
        iteration, _, name = key.partition("/")
        phases.setdefault(iteration, []).append(name.replace("/", " "))
    complete = [f"iteration {i} ({', '.join(names)})" for i, names in phases.items()]
    if is_complete:
        yield "The run is complete; `--set iterations=N` lets it go on."
    else:
        yield f"Skipping what is complete: {', '.join(complete) or 'nothing'}."
    point = manifest.in_progress
    if point is None:
        return
    iteration, _, name = point["key"].partition("/")
    where = f"{name.replace('/', ' ')} of iteration {iteration}"
    if name == "explore":
        yield from _exploration(where, int(iteration), point, store)
    elif name.startswith("evaluate"):
        yield f"Going on with {where}; problems that are stored are not sampled again."
    elif point["step"]:
        yield f"Going on with {where} after update {point['step']}."
    else:
        yield f"Beginning {where} again."


def _exploration(
    where: str, iteration: int, point: Mapping[str, Any], store: TrajectoryStore
) -> Iterator[str]:
    step = last = int(point["step"])
    while store.count(iteration=iteration, phase="explore", step=last + 1):
        last += 1
    saved = f"the saved point at step {step}" if step else "there is no saved point yet"
    yield f"Going on with {where} after step {step}." if step else f"Beginning {where} again."
    if last > step:
        steps = f"step {last}" if last == step + 1 else f"steps {step + 1} to {last}"
        reason = f"{saved} does not cover {'it' if last == step + 1 else 'them'}" if step else saved
        yield (
            f"Redoing {steps}: {reason}. What was sampled is set aside in trajectories/.superseded."
        )
