"""The engine that a recipe names, built late: nothing heavy is imported before this call."""

from rloop.config import Recipe
from rloop.engines.base import Engine


def build_engine(recipe: Recipe) -> Engine:
    """Return the recipe's engine."""
    from rloop.engines.native.engine import NativeEngine

    return NativeEngine(recipe)
