"""The engine that a recipe names, built late: nothing heavy is imported before this call."""

from importlib.util import find_spec

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify
from rloop.errors import EngineUnavailable


def build_engine(recipe: Recipe, verify: Verify) -> Engine:
    """Return the recipe's engine; EngineUnavailable says what is missing for it."""
    if recipe.engine.name == "trl":
        require_trl()
        from rloop.engines.trl.engine import TrlEngine

        return TrlEngine(recipe, verify)
    from rloop.engines.native.engine import NativeEngine

    return NativeEngine(recipe, verify)


def help_run(recipe: Recipe) -> bool:
    """Work for a run that another process holds, until it ends; False where this one holds it.

    That is so in all but the first process of a launcher, and on all but the first machine.
    """
    if recipe.engine.name != "trl":
        return False
    require_trl()
    from rloop.engines.trl.launch import help_out, only_helps

    if not only_helps(recipe):
        return False
    help_out(recipe)
    return True


def require_trl() -> None:
    """Raise EngineUnavailable where TRL is not installed."""
    if find_spec("trl") is None:
        raise EngineUnavailable(
            "engine.name is trl, but TRL is not installed. Install it: pip install 'rloop-rl[trl]'."
        )
