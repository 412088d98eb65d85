"""rloop: turn a base language model into a better reasoner by RLoop (arXiv 2511.04285).

import rloop
run = rloop.train(model="Qwen/Qwen2.5-1.5B-Instruct", task="gsm8k", iterations=3)
run.policy("final"), run.metrics(), run.trajectories(), run.report()
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from rloop.api import Run, resume, train

__all__ = ["Run", "__version__", "resume", "train"]


def __getattr__(name: str) -> object:
    """Return a name of `rloop.api`, imported when it is first asked for."""
    if name in __all__:
        return getattr(import_module("rloop.api"), name)
    raise AttributeError(f"module 'rloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
