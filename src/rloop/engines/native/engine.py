"""The native engine: one model on one device that samples and learns, alive across phases."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from rloop.config import Recipe
from rloop.engines.base import LIVE, ExploreStep, FinetuneStep, PromptReport, Verify
from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.engines.native.order import ProblemOrder
from rloop.engines.native.policies import (
    LoadedPolicy,
    load_policy,
    prepare_policy,
    resolve_device,
    resolve_dtype,
    save_policy,
)
from rloop.engines.native.prompts import PromptBuilder
from rloop.engines.native.reinforce import Reinforcer
from rloop.engines.native.rollout import Roller
from rloop.engines.native.sampler import Sampler
from rloop.errors import EngineError
from rloop.types import Example, Group, Place, PolicyRef, Problem


class NativeEngine:
    """Implements `engines.base.Engine` in plain PyTorch on Hugging Face models."""

    def __init__(self, recipe: Recipe, verify: Verify) -> None:
        """Choose device and precision; no model is loaded yet."""
        self._recipe = recipe
        self._verify = verify
        self._device = resolve_device(recipe.engine.device)
        self._dtype = resolve_dtype(recipe.engine.dtype, self._device)
        attention.register()
        self._policy: LoadedPolicy | None = None
        self._loaded: PolicyRef | None = None
        self._learner: Learner | None = None
