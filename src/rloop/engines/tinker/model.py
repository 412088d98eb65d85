"""One adapter in training on a Tinker server: its verbs, and the count of its optimizer's steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from rloop.engines.base import TrainingSequence
from rloop.engines.tinker.gradients import (
    ZERO_MOMENTS,
    AdamClock,
    Pass,
    Reduction,
    Rows,
    datum,
    linear_pass,
)
from rloop.engines.tinker.protocol import SKYRL, Server
from rloop.errors import EngineError
from rloop.recipe.engine import TinkerConfig

CHUNK_SEQUENCES, CHUNK_TOKENS = 128, 65_536
"""Most tokens of one request, because servers limit its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """Where a server keeps weights and moments.

    Example: SavedModel(path="tinker://model_1a2b/weights/iter-001-9f", clock=AdamClock(done=4))
    """

    path: str
    clock: AdamClock


class Model:
    """A training client. It occupies the server until `unload`."""

    def __init__(
        self,
        server: Server,
        config: TinkerConfig,
        base_model: str,
        *,
        seed: int,
        saved: SavedModel | None = None,
        keeps_moments: bool = False,
    ) -> None:
        """Start with an adapter that changes nothing yet, or with a saved one.

        The moments of a saved adapter are kept or set to zero.
        """
        self._server = server
        self.clock = AdamClock()
        adapter = {
            "rank": config.rank,
            "seed": seed % 2**31,
            "train_unembed": False,
            "train_mlp": True,
            "train_attn": True,
        }
        body = {
            "session_id": server.session_id,
            "model_seq_id": server.next_number(),
            "base_model": base_model,
            "user_metadata": None,
            "lora_config": adapter,
            "type": "create_model",
        }
        created = server.call("create_model", body)
        self.id = str(server.result(str(created["request_id"]))["model_id"])
        self._sampler: str | None = None
        if server.offers.software == SKYRL:
            self._drop_inherited_gradient()
        if saved is not None:
            server.do(
                "load_weights",
                {
                    "model_id": self.id,
                    "path": saved.path,
                    "optimizer": keeps_moments,
                    "type": "load_weights",
                },
            )
            if keeps_moments or not server.offers.forgets_moments:
                self.clock = saved.clock

    def _drop_inherited_gradient(self) -> None:
        """Clear what SkyRL 0.3.0 leaves to a new model in the place of a dropped one: the gradient
        of a run that was killed between `forward_backward` and `optim_step`.

        A first step takes that gradient, and a second one clears the moments that this leaves.
        """
        while True:
            norm = grad_norm(self.step(ZERO_MOMENTS))
            self.clock = self.clock.cleared()
            if not norm:
                return

    def forward(self, sequences: Sequence[TrainingSequence], reduction: Reduction) -> Rows:
        """Return [T] log-probabilities of each completion's tokens."""
        plain = [datum(s, {"weights": [1.0] * len(s.completion_ids)}, reduction) for s in sequences]
        return self._run("forward", Pass(loss="cross_entropy", config=None, data=plain), sequences)

    def forward_backward(self, asked: Pass, sequences: Sequence[TrainingSequence]) -> Rows:
        """Add a gradient for the next step; return the log-probabilities."""
        return self._run("forward_backward", asked, sequences)

    def _run(self, verb: str, asked: Pass, sequences: Sequence[TrainingSequence]) -> Rows:
        submitted = []
        for chunk in _chunks(asked.data):
            given = {"data": chunk, "loss_fn": asked.loss, "loss_fn_config": asked.config}
            body = {"model_id": self.id, f"{verb}_input": given}
            submitted.append(self._server.submit(verb, body))
        found = [
            output["logprobs"]["data"]
            for request in submitted
            for output in self._server.result(request)["loss_fn_outputs"]
        ]
        return [
            row[len(row) - len(sequence.completion_ids) :]
            for row, sequence in zip(found, sequences, strict=True)
        ]

    def step(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """Take a step with the accumulated gradient; return the server's metrics."""
        body = {"model_id": self.id, "adam_params": parameters, "type": "optim_step"}
        self._sampler = None
        return dict(self._server.do("optim_step", body).get("metrics") or {})

    def forget_moments(self) -> None:
        """Set the moments to zero if the server cannot load weights without them."""
        if not self._server.offers.forgets_moments and self.clock.done:
            self.step(ZERO_MOMENTS)
            self.clock = self.clock.cleared()

    def save(self, name: str) -> SavedModel:
        """Have the server save weights and moments."""
        body = {"model_id": self.id, "path": _unique(name), "type": "save_weights"}
        found = self._server.do("save_weights", body)
        return SavedModel(path=str(found["path"]), clock=self.clock)

    def sampler(self) -> str:
        """Return a sampling session of the current weights."""
        if self._sampler is None:
            body = {
                "model_id": self.id,
                "sampling_session_seq_id": self._server.next_number(),
                "type": "save_weights_for_sampler",
            }
            found = self._server.do("save_weights_for_sampler", body)
            self._sampler = str(found["sampling_session_id"])
        return self._sampler

    def archive(self, name: str) -> bytes:
        """Return the adapter as an archive of peft's files."""
        body = {"model_id": self.id, "path": _unique(name), "type": "save_weights_for_sampler"}
        path = str(self._server.do("save_weights_for_sampler", body)["path"])
        owner, _, checkpoint = path.removeprefix("tinker://").partition("/")
        return self._server.download(f"training_runs/{owner}/checkpoints/{checkpoint}/archive")

    def unload(self) -> None:
        """Free the model on the server; if that fails, the end of the session does it."""
        self._server.tell("unload_model", {"model_id": self.id, "type": "unload_model"})


def find_reduction(server: Server, config: TinkerConfig, base_model: str) -> Reduction:
    """Return how the server reduces the losses of tokens.

    Tinker sums them. SkyRL sums or averages, depending on its back end, which it does not reveal.
    There the gradient norm of one sequence is compared with that of the same sequence twice.
    """
    if config.loss_reduction != "auto":
        return config.loss_reduction
    if server.offers.software != SKYRL:
        return "sum"
    one = TrainingSequence(prompt_ids=(0,), completion_ids=(1, 2))
    model = Model(server, config, base_model, seed=0)
    norms = list[float]()
    for copies in (1, 2):
        sequences = [one] * copies
        asked = linear_pass(sequences, [(-1.0, -1.0)] * copies, "sum")
        model.forward_backward(asked, sequences)
        norms.append(grad_norm(model.step(ZERO_MOMENTS)) or 0.0)
    model.unload()
    if not norms[0]:
        raise EngineError(
            f"The Tinker server {server.url} reports no gradient norm, so rloop cannot find out "
            f"whether it sums losses. Set engine.tinker.loss_reduction=sum or mean."
        )
    return "sum" if norms[1] > 1.5 * norms[0] else "mean"


def grad_norm(metrics: Mapping[str, float]) -> float | None:
    """Return the gradient norm of a step; None if the server does not report it."""
    return next((value for key, value in metrics.items() if key.endswith("grad_norm")), None)


def _chunks(data: Sequence[Any]) -> Iterator[list[Any]]:
    """Split a pass into requests."""
    chunk, num_tokens = list[Any](), 0
    for one in data:
        length = len(one["loss_fn_inputs"]["target_tokens"]["data"])
        if chunk and (len(chunk) == CHUNK_SEQUENCES or num_tokens + length > CHUNK_TOKENS):
            yield chunk
            chunk, num_tokens = [], 0
        chunk.append(one)
        num_tokens += length
    if chunk:
        yield chunk


def _unique(name: str) -> str:
    """Return a name that is new to the server, in characters that it accepts."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)
    return f"{plain}-{uuid4().hex[:8]}"
