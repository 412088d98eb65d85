"""The learner: sequences and an objective in, one optimizer update and its metrics out.

It knows token ids, advantages and weights, but no problems, rewards, or origins of sequences. The
same update serves RL and SFT: the objective says what the per-token numbers mean.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rloop.algo.losses import LossOutput, TokenBatch, UpdateCounts, compute_loss
from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native.batches import MicroBatch, check_sequences, form_microbatches
from rloop.engines.native.device import sum_dtype
from rloop.engines.native.lean_layers import lean_layers
from rloop.engines.native.logprobs import TokenLogprobs, check_architecture, completion_logprobs
from rloop.engines.native.memory import Budget, explained, return_freed
from rloop.engines.native.optimizer import MasterWeights
from rloop.engines.native.ranks import Ranks
from rloop.errors import EngineError
from rloop.recipe.config import OptimizerConfig
from rloop.recipe.engine import EngineConfig

OPTIMIZER_REMEDY = (
    "Add --set engine.offload_optimizer=true, which keeps it in CPU memory, or train low-rank "
    "changes: --set engine.lora='{rank: 16, alpha: 32}'."
)


class Learner:
    """Updates a model in place with a fresh optimizer; one learner per phase."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer_config: OptimizerConfig,
        engine_config: EngineConfig,
        *,
        budget: Budget | None = None,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        """Prepare updates of the model, which is shared with the sampler.

        A learning rate of 0 freezes the policy: there are no masters, and updates only report
        counts. A given budget of a micro-batch's tokens outlives the learner. The seed decides the
        initial values of adapters, and how weights are rounded. With `ranks` all processes do every
        update together, each with the gradient of a part of the sequences.
        """
        self._ranks = ranks
        torch.nn.Module.eval(model)
        check_architecture(model)
        self._model = model
        self._engine_config = engine_config
        self._num_steps = 0
        self._budget = budget or token_budget(engine_config)
        self._masters: MasterWeights | None = None
        if optimizer_config.learning_rate > 0.0:
            with explained("float32 weights for the optimizer", OPTIMIZER_REMEDY):
                self._masters = MasterWeights(
                    model, optimizer_config, engine_config, seed=seed, ranks=ranks
                )

    def at_start(self) -> AbstractContextManager[None]:
        """Make the model the start policy inside the block; only for adapters or if frozen."""
        return nullcontext() if self._masters is None else self._masters.at_start()

    def update(
        self,
        sequences: Sequence[TrainingSequence],
        objective: Objective,
        *,
        learning_rate: float,
    ) -> dict[str, float]:
        """Do one optimizer update on all the sequences and return its metrics.

        The loss's denominators count every given sequence, also those with a zero advantage (or, in
        SFT, weight); these cost nothing unless a KL penalty or entropy bonus acts on them. Leave
        out groups without a signal. A non-finite loss or gradient skips the step: the weights stay,
        and `skipped_updates_count` is 1. If memory runs out, the update starts over in smaller
        micro-batches. Means are over the tokens trained on; a frozen policy reports only counts.
        """
        check_sequences(sequences)
        _check_complete(sequences, objective)
        counts = UpdateCounts(
            num_tokens=sum(len(s.completion_ids) for s in sequences), num_sequences=len(sequences)
        )
        active = [s for s in sequences if _has_gradient(s, objective)]
        metrics = {
            "learning_rate": learning_rate,
            "loss_tokens_count": float(counts.num_tokens),
            "trained_sequences_count": float(0 if self._masters is None else len(active)),
            "skipped_updates_count": 0.0,
        }
        if self._masters is None or not active:
            return metrics
        masters = self._masters
        totals = self._gradients(masters, active, objective, counts)
        grad_norm = masters.grad_norm()
        metrics |= totals.metrics(has_kl=objective.kl_coef > 0.0) | {"grad_norm": grad_norm}
        if isfinite(grad_norm) and isfinite(totals.loss_mean):
            self._step(masters, learning_rate, grad_norm)
        else:
            masters.drop_gradients()
            metrics["skipped_updates_count"] = 1.0
        return metrics

    def _gradients(
        self,
        masters: MasterWeights,
        sequences: Sequence[TrainingSequence],
        objective: Objective,
        counts: UpdateCounts,
    ) -> "_Totals":
        """Leave the gradient of all the sequences in the masters; return the update's totals."""
        ranks = self._ranks
        mine = sequences if ranks is None else ranks.share(sequences)

        def accumulate(microbatch_tokens: int) -> _Totals:
            masters.drop_gradients()  # from an attempt that ran out of memory
            return self._accumulate(mine, objective, counts, microbatch_tokens)

        if ranks is None:
            return self._budget.within(accumulate)
        totals = ranks.agree(lambda: self._budget.within(accumulate))
        masters.add_gradients(ranks)
        totals.add_others(ranks)
        return totals

    def _step(self, masters: MasterWeights, rate: float, grad_norm: float) -> None:
        """Move the masters and the model by the accumulated gradient."""
        if self._num_steps == 0:
            return_freed()  # the optimizer creates its state now
        with explained("the optimizer's state", OPTIMIZER_REMEDY):
            masters.step(learning_rate=rate, grad_norm=grad_norm)
        self._num_steps += 1

    def _accumulate(
        self,
        sequences: Sequence[TrainingSequence],
        objective: Objective,
        counts: UpdateCounts,
        microbatch_tokens: int,
    ) -> "_Totals":
        """Run every micro-batch forward and backward; gradients end up in the masters."""
        totals = _Totals(self._model.device)
        is_on = self._engine_config.gradient_checkpointing
        with _checkpointing(self._model, is_on=is_on), lean_layers(self._model):
            for batch in form_microbatches(sequences, microbatch_tokens, self._model):
                result = completion_logprobs(
                    self._model,
                    batch,
                    objective.temperature,
                    is_entropy_trained=objective.entropy_coef > 0.0,
                )
                tokens, is_own_N = _token_batch(batch, result, objective)
                output = compute_loss(objective, tokens, counts)
                output.loss.backward()  # type: ignore[no-untyped-call]
                totals.add(output, tokens, result.entropy_N, is_own_N)
        return totals

    def save(self, directory: Path) -> None:
        """Write masters and moments to an existing directory (safetensors) from rank 0; a frozen
        learner has none.
        """
        if self._masters is not None:
            self._masters.save(directory)

    def load(self, directory: Path) -> None:
        """Continue after the update at which the state was saved, to the bit, including the
        model."""
        if self._masters is not None:
            self._masters.load(directory)

    def close(self) -> None:
        """Free masters, gradients and moments; the model keeps its weights."""
        if self._masters is not None:
            self._masters.close()
            self._masters = None


def token_budget(config: EngineConfig) -> Budget:
    """Return the budget of tokens in one forward and backward pass."""
    hint = "" if config.gradient_checkpointing else " or --set engine.gradient_checkpointing=true"
    return Budget(
        "engine.microbatch_tokens",
        config.microbatch_tokens,
        "in more, smaller passes; the gradient is the same up to rounding",
        hint=hint,
    )


class _Totals:
    """Sums over an update's tokens, kept on the device so that micro-batches need not wait."""

    def __init__(self, device: torch.device) -> None:
        self._num_tokens = 0
        self._sums = torch.zeros(6, dtype=sum_dtype(device), device=device)
        self._gap_max = torch.zeros((), device=device)
        self._has_behavior = False

    @torch.no_grad()
    def add(
        self,
        output: LossOutput,
        tokens: TokenBatch,
        entropy_N: torch.Tensor,
        is_own_N: torch.Tensor,
    ) -> None:
        """Add one micro-batch; `is_own_N` is 0 for tokens that are replayed, else 1."""
        gap_N = torch.zeros_like(entropy_N)
        if tokens.behavior_logprobs_N is not None:
            self._has_behavior = True
            gap_N = (tokens.policy_logprobs_N - tokens.behavior_logprobs_N).abs() * is_own_N
        parts = (
            output.loss,
            entropy_N.sum(),
            output.is_clipped_N.sum(),
            gap_N.sum(),
            output.kl_N.sum(),
            is_own_N.sum(),
        )
        self._sums += torch.stack([part.detach().to(self._sums.dtype) for part in parts])
        self._gap_max = torch.maximum(self._gap_max, gap_N.max())
        self._num_tokens += len(entropy_N)

    def add_others(self, ranks: Ranks) -> None:
        """Add the sums of the other processes."""
        counts = torch.tensor(
            [self._num_tokens, self._has_behavior],
            dtype=self._sums.dtype,
            device=self._sums.device,
        )
        ranks.add([self._sums, counts])
        ranks.maximum([self._gap_max])
        self._num_tokens, self._has_behavior = int(counts[0]), bool(counts[1])

    @property
    def loss_mean(self) -> float:
        """The update's loss, already divided by its denominators."""
        return float(self._sums[0])

    def metrics(self, *, has_kl: bool) -> dict[str, float]:
        """Return the means over the tokens trained on; empty if there were none."""
        if self._num_tokens == 0:
            return {}
        loss, *sums = self._sums.tolist()
        entropy, clipped, gap, kl, num_own = sums
        found = {"loss_mean": loss, "entropy_mean": entropy / self._num_tokens}
        if self._has_behavior:
            found["clip_frac"] = clipped / self._num_tokens
        if self._has_behavior and num_own:
            found |= {"gap_mean": gap / num_own, "gap_max": float(self._gap_max)}
        if has_kl:
            found["kl_mean"] = kl / self._num_tokens
        return found


def _check_complete(sequences: Sequence[TrainingSequence], objective: Objective) -> None:
    """Raise if the objective needs log-probabilities that were not given."""
    needs = {
        "behavior_logprobs": objective.loss != "sft",
        "reference_logprobs": objective.kl_coef > 0.0,
    }
    for name, is_needed in needs.items():
        absent = [i for i, s in enumerate(sequences) if is_needed and getattr(s, name) is None]
        if absent:
            raise EngineError(
                f"Training sequence {absent[0]} has no {name}, which loss {objective.loss!r} with "
                f"kl_coef {objective.kl_coef} needs; give one for each completion token."
            )


def _has_gradient(sequence: TrainingSequence, objective: Objective) -> bool:
    """Whether the sequence's own part of the loss can move the policy."""
    factor = sequence.weight if objective.loss == "sft" else sequence.advantage
    return factor != 0.0 or objective.kl_coef > 0.0 or objective.entropy_coef > 0.0


def _token_batch(
    batch: MicroBatch, policy: TokenLogprobs, objective: Objective
) -> tuple[TokenBatch, torch.Tensor]:
    """Combine the micro-batch's stored values with the policy's log-probabilities.

    Also returns [N], which is 0 for tokens that are replayed, else 1.
    """
    is_rl, has_kl = objective.loss != "sft", objective.kl_coef > 0.0
    advantages_N, weights_N, is_own_N, behavior_N, reference_N = batch.columns(
        lambda s: s.advantage,
        lambda s: s.weight,
        lambda s: float(not s.is_replayed),
        lambda s: (is_rl and s.behavior_logprobs) or 0.0,
        lambda s: (has_kl and s.reference_logprobs) or 0.0,
    )
    tokens = TokenBatch(
        policy_logprobs_N=policy.logprobs_N,
        entropy_N=policy.entropy_N,
        behavior_logprobs_N=behavior_N if is_rl else None,
        reference_logprobs_N=reference_N if has_kl else None,
        advantages_N=advantages_N,
        weights_N=weights_N,
        lengths_B=batch.lengths_B,
    )
    return tokens, is_own_N


@contextmanager
def _checkpointing(model: PreTrainedModel, *, is_on: bool) -> Iterator[None]:
    """Recompute activations of the decoder layers inside the block.

    Only the layers themselves are put into training mode, as transformers requires; all modules
    inside them stay in evaluation mode, so there is no dropout with or without checkpointing.
    """
    if not is_on:
        yield
        return
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise EngineError(
            f"This {model.config.model_type} model has no layers that can be checkpointed. "
            "Use --set engine.gradient_checkpointing=false."
        )
    switch: Any = model
    switch.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        switch.gradient_checkpointing_disable()
