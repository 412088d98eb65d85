"""The plain decode step: any model that transformers can run, on any device.

Shape letters: R rows, V vocabulary.
"""

import logging
from functools import cache

import torch

from rloop.engines.native.cache import RowCache
from rloop.engines.native.draw import draw_tokens
from rloop.engines.native.fused import FusedStep
from rloop.engines.native.kernels import KernelsUnavailable
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

log = logging.getLogger(__name__)


class PlainStep:
    """Decodes one token of each row by the model's own forward pass."""

    def __init__(self, policy: LoadedPolicy) -> None:
        """Decode with the policy as it is at each call."""
        self._policy = policy

    def open_cache(self, num_rows: int, longest_prompt: int, max_tokens: int) -> RowCache:
        """Return the cache of a new batch, which `logits` reads and writes from now on."""
        self._cache = RowCache(num_rows, longest_prompt + max_tokens)
        return self._cache

    def logits(self, tokens_R: torch.Tensor, positions_R: torch.Tensor, reach: int) -> torch.Tensor:
        """Return the logits [R, V] after each row's token, which enters the cache at its position,
        below the reach.
        """
        self._cache.begin_step(positions_R, reach)
        mask_RS = torch.arange(reach, device=positions_R.device) <= positions_R[:, None]
        hidden = self._policy.decoder(
            input_ids=tokens_R[:, None],
            attention_mask=mask_RS[:, None, None, :],
            position_ids=positions_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self._policy.head(hidden[:, 0])
        return logits

    def draw(
        self, logits_RV: torch.Tensor, uniforms_R: torch.Tensor, settings: SamplingConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (tokens_R, logprobs_R) for float64 uniforms; see `draw.draw_tokens`."""
        return draw_tokens(logits_RV, uniforms_R, settings)


def choose_step(policy: LoadedPolicy, *, is_fused: bool) -> PlainStep | FusedStep:
    """Return the fused step on a CPU where the model and the machine allow it; else the plain one,
    and a warning says why.
    """
    if is_fused and policy.model.device.type == "cpu":
        try:
            return FusedStep(policy.model)
        except KernelsUnavailable as error:
            warn_once(f"Sampling is slower than it could be, without fused kernels: {error}.")
    return PlainStep(policy)


@cache
def warn_once(message: str) -> None:
    """Warn of what holds for a whole run."""
    log.warning(message)
