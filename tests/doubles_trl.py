"""TRL's workers for tests: two processes that outlive the engines, because they start slowly."""

from collections.abc import Callable
from typing import Any

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify
from rloop.engines.trl.engine import TrlEngine
from rloop.engines.trl.group import Workers
from rloop.engines.trl.launch import start_workers
from rloop.engines.trl.messages import Message


def on_trl(recipe: Recipe, *, processes: int = 1, **engine: Any) -> Recipe:
    """Return the recipe on TRL, with other values of its engine section."""
    data = recipe.model_dump()
    data["engine"] |= {"name": "trl", "device": "cpu", "dtype": "float32", **engine}
    data["engine"]["trl"]["launch"]["processes"] = processes
    return Recipe.model_validate(data)


class Pair:
    """Two processes, started when an engine first asks them, closed by `close` alone."""

    def __init__(self) -> None:
        self._workers: Workers | None = None

    def build(self, recipe: Recipe, verify: Verify) -> Engine:
        return TrlEngine(on_trl(recipe, processes=2), verify, start=self._start)

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()

    def _start(self, recipe: Recipe) -> Workers:
        if self._workers is None:
            self._workers = start_workers(recipe)
        return Lasting(self._workers.ask)


class Lasting:
    """Workers that an engine cannot close."""

    def __init__(self, ask: Callable[[Message], Message]) -> None:
        self.ask = ask

    def close(self) -> None:
        """Leave them running."""
