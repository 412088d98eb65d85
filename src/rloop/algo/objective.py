"""What an update minimises, as numbers: the equations are in `algo.losses`. No torch."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What an update minimises: a loss with its clip range, a KL penalty and an entropy bonus.

    Example: Objective(loss="dapo", clip_low=0.2, clip_high=0.28); Objective(loss="sft")
    """

    loss: str
    """A name in `algo.losses.LOSSES`."""
    clip_low: float = 0.0
    """Ratios are clipped below 1 - clip_low (`dapo`, `gspo`)."""
    clip_high: float = 0.0
    """Ratios are clipped above 1 + clip_high (`dapo`, `gspo`, `cispo`)."""
    importance_cap: float = inf
    """Cap on the ratio of a token with a negative advantage (`dapo`)."""
    kl_coef: float = 0.0
    """Weight of the KL (k3) from the reference policy; 0 turns it off."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus; 0 turns it off."""
    temperature: float = 1.0
    """Divides the logits: the sampling temperature in RL, 1 in SFT."""
