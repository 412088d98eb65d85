"""When an exploration ends on evidence."""

from rloop.config_fields import Count, NonNegative, Positive, Strict


class EarlyStopConfig(Strict):
    """When exploration ends before `explore.steps`: each rule is off when absent."""

    pass_at_k_falls: Count | None = None
    """Held-out pass@k (largest k) fell this many evaluations in a row (needs `evaluate.every`)."""
    min_entropy: NonNegative | None = None
    """Mean policy entropy below this (nats per token)."""
    max_grad_norm: Positive | None = None
    """Gradient norm before clipping above this."""
    patience_steps: Count = 3
    """Steps in a row that an entropy or gradient rule must hold."""
    min_steps: Count = 1
    """Steps that an exploration has at least, whatever the rules say."""

    @property
    def has_rules(self) -> bool:
        """Whether any rule is on."""
        rules = self.model_dump(exclude={"patience_steps", "min_steps"})
        return any(limit is not None for limit in rules.values())
