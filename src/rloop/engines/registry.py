"""The engine that a recipe names, built late: nothing heavy is imported before this call."""

from importlib.util import find_spec

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify
from rloop.errors import EngineUnavailable


def build_engine(recipe: Recipe, verify: Verify) -> Engine:
    """Return the recipe's engine; EngineUnavailable says what is missing for it."""
    if recipe.engine.name == "trl":
        require_packages(recipe)
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
    require_packages(recipe)
    from rloop.engines.trl.launch import help_out, only_helps

    if not only_helps(recipe):
        return False
    help_out(recipe)
    return True


def require_packages(recipe: Recipe) -> None:
    """Raise EngineUnavailable where a package is missing that a recipe on TRL needs."""
    wanted = {"trl": ("engine.name=trl", "pip install 'rloop-rl[trl]'")}
    if recipe.engine.lora is not None:
        wanted["peft"] = ("engine.lora on engine.name=trl", "pip install 'rloop-rl[peft]'")
    if recipe.explore.sampler == "vllm":
        wanted["vllm"] = ("explore.sampler=vllm on engine.name=trl", "pip install 'trl[vllm]'")
    if recipe.engine.trl.launch.preset == "zero3":
        wanted["deepspeed"] = ("engine.trl.launch.preset=zero3", "pip install deepspeed")
    for package, (setting, remedy) in wanted.items():
        if find_spec(package) is None:
            raise EngineUnavailable(
                f"{setting} needs the package {package}, which is not installed. Install it: "
                f"{remedy}."
            )
