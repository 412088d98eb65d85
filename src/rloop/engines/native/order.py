"""Which problems come next in exploration: a function of the seed and of how many were drawn."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from rloop.types import Place, Problem, stable_hash


class ProblemOrder:
    """Draws problems: every one once an epoch in shuffled order, or by weight.

    `drawn` is the whole state; set it to continue where a saved exploration stood.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        place: Place,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Order the problems by the run's seed and the iteration."""
        self._problems = tuple(problems)
        self._key = (place.seed, place.iteration, place.phase, "order")
        self._weights = None
        if weights is not None:
            values = np.array([weights[p.problem_id] for p in problems], dtype=np.float64)
            self._weights = values / values.sum()
        self.drawn = 0

    def draw(self, count: int, exclude: Collection[str] = ()) -> list[Problem]:
        """Return the next problems, all different and none excluded (fewer when there are too few).

        A step excludes the problems it has drawn already: their random streams would repeat.
        """
        seen = set(exclude)
        count = min(count, len(self._problems) - len(seen))
        chosen: list[Problem] = []
        while len(chosen) < count:
            problem = self._problems[self._index(self.drawn)]
            self.drawn += 1
            if problem.problem_id not in seen:
                seen.add(problem.problem_id)
                chosen.append(problem)
        return chosen

    def _index(self, number: int) -> int:
        epoch, position = divmod(number, len(self._problems))
        if self._weights is not None:
            rng = np.random.default_rng(stable_hash(*self._key, number))
            return int(rng.choice(len(self._problems), p=self._weights))
        rng = np.random.default_rng(stable_hash(*self._key, epoch))
        return int(rng.permutation(len(self._problems))[position])
