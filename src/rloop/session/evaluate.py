"""The directory of `rloop eval`: a run's, in which one policy is measured and none is trained.

    runs/eval-iter-002/
      config.json  environment.json  manifest.json  events.jsonl  trajectories/
      metrics.jsonl    one evaluate line, of iteration 0

`session.process` begins and resumes it; everything that reads runs reads it too.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count, takewhile
from pathlib import Path

from rloop.loop.manifest import Manifest
from rloop.observe.metric_keys import split_key
from rloop.recipe.config import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric of one task with its interval.

    Example: Score(task="gsm8k", metric="pass@8", value=0.41, low=0.38, high=0.44)
    """

    task: str
    metric: str
    value: float
    low: float
    high: float


def scores_in(folder: Path) -> list[Score] | None:
    """Return the results of a complete evaluation; None if it is not complete."""
    for key, result in Manifest(folder).phases.items():
        if key.startswith("0/evaluate/"):
            return list(scores_of(result["metrics"]))
    return None


def scores_of(metrics: Mapping[str, float]) -> Iterator[Score]:
    """Yield the metrics of each task from the flat ones of an evaluation."""
    for key, value in metrics.items():
        found = split_key(key)
        if found is not None:
            low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
            yield Score(task=found[0], metric=found[1], value=value, low=low, high=high)


def free_folder(root: Path, recipe: Recipe, kind: str = "eval") -> Path:
    """Return `root/KIND-POLICY`, or with `-2`, `-3`, ... the first that holds nothing yet."""

    def is_free(folder: Path) -> bool:
        manifest = Manifest(folder)
        return not folder.exists() or (manifest.is_evaluation and not manifest.has_begun)

    return next(folder for folder in _folders(root, recipe, kind) if is_free(folder))


def unfinished(root: Path, recipe: Recipe) -> list[Path]:
    """Return the earlier folders of `free_folder` whose evaluations are incomplete."""
    named = list(takewhile(Path.exists, _folders(root, recipe)))
    begun = [one for one in named if Manifest(one).is_evaluation and Manifest(one).has_begun]
    return [one for one in begun if scores_in(one) is None]


def _folders(root: Path, recipe: Recipe, kind: str = "eval") -> Iterator[Path]:
    name = f"{kind}-{re.sub(r'[^A-Za-z0-9._-]+', '-', policy_name(recipe))[:80]}"
    return (root / one for one in chain([name], (f"{name}-{number}" for number in count(2))))


def policy_name(recipe: Recipe) -> str:
    """Return what an evaluation calls its policy. Example: `iter-002` of `policies/iter-002`."""
    return Path(recipe.policy.path).name
