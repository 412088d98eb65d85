"""The engine that a recipe names, built late: nothing heavy is imported before this call."""

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify


def build_engine(recipe: Recipe, verify: Verify) -> Engine:
    """Return the recipe's engine; EngineUnavailable says what is missing for it."""
    from rloop.engines.native.engine import NativeEngine

    return NativeEngine(recipe, verify)
