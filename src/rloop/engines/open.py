"""Opens the engine that a recipe names, so that the loop knows it by the seam alone."""

from importlib import import_module

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify

ENGINES = {"native": ("rloop.engines.native.engine", "NativeEngine")}
"""`engine.name` -> module and class, imported when a recipe asks for it."""


def open_engine(recipe: Recipe, verify: Verify) -> Engine:
    """Return the recipe's engine; it judges what it samples with `verify`."""
    module, name = ENGINES[recipe.engine.name]
    engine: Engine = getattr(import_module(module), name)(recipe, verify)
    return engine
