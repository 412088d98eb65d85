"""rloop's engine with the policy of the work."""

from pathlib import Path
from typing import Any

from rloop.engines.native.engine import NativeEngine
from rloop.recipe.config import PromptConfig
from rloop.recipe.engine import EngineConfig
from rloop.recipe.load import load_recipe
from rloop.types import PolicyRef

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def load_engine(work: dict[str, Any], *, is_endless: bool = False) -> NativeEngine:
    """Return the engine at a recipe's defaults, on the work's device and in its precision.

    It decodes as many rows as the work asks for. If it is endless, no token ends a completion.
    """
    config = EngineConfig(device=work["device"], dtype=work["dtype"])
    rows = work["shape"].get("rows", config.max_batch)
    changes = {
        "engine": config.model_copy(update={"max_batch": rows}),
        "prompt": PromptConfig(template="{problem}"),
    }
    engine = NativeEngine(load_recipe(RECIPE, []).model_copy(update=changes))
    engine.load(PolicyRef(path=Path(work["directory"]), name="base"))
    if is_endless:
        engine.renderer.stop_ids = ()
    return engine
