"""The Tinker engine: policies are adapters on a server, which samples and trains them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from math import isfinite
from pathlib import Path

from rloop.algo.losses import UpdateCounts
from rloop.algo.objective import Objective
from rloop.disk import write_text
from rloop.engines.base import Sampled, SampleRequest, TrainingSequence
from rloop.engines.tinker.gradients import (
    AdamClock,
    Gradient,
    Reduction,
    Rows,
    check_objective,
    gradient,
    linear_pass,
    named_pass,
    server_loss,
)
from rloop.engines.tinker.model import Model, SavedModel, find_reduction, grad_norm
from rloop.engines.tinker.protocol import Server, side_by_side
from rloop.errors import EngineError, NonFinitePolicy
from rloop.policies.adapter import base_name, write_adapter
from rloop.policies.checkpoint import load_renderer
from rloop.policies.directory import first_line, is_adapter, written_whole
from rloop.policies.prepare import prepare_policy
from rloop.policies.renderer import Renderer
from rloop.policies.stop_texts import StopTexts
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.types import FinishReason, PolicyRef, stable_hash

logger = logging.getLogger(__name__)

SERVER_FILE = "tinker.json"
"""In a policy's directory and in a saved state: where the server has the same."""


class TinkerEngine:
    """Implements `engines.base.Engine` with a server of the Tinker protocol."""

    def __init__(self, recipe: Recipe) -> None:
        """Store the server's address; only the first request can fail."""
        config = recipe.engine.tinker
        assert config is not None, "a recipe with engine.name=tinker names its server"
        self._config = config
        self._recipe = recipe
        source = Path(recipe.policy.path).expanduser()
        local = str(source.resolve()) if source.is_dir() else recipe.policy.path
        self._base_model = config.base_model or local
        self._server = Server(config)
        self._held: PolicyRef | None = None
        self._saved: SavedModel | None = None
        self._renderer: Renderer | None = None
        self._model: Model | None = None
        self._start: Model | None = None
        self._optimizer: OptimizerConfig | None = None
        self._begun: SavedModel | None = None

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Find the policy's tokenizer and configuration; the server has its weights."""
        self._refuse_server()
        path = prepare_policy(
            source,
            directory,
            seed=seed,
            trust_remote_code=self._recipe.policy.trust_remote_code,
            needs_chat_template=self._recipe.prompt.template is None,
            needs_weights=False,
        )
        if not self._server.offers.clips_gradients:
            logger.warning(
                "The Tinker server %s does not clip gradients: optimizer.grad_clip does nothing.",
                self._server.url,
            )
        policy = PolicyRef(path=path, name="base")
        self.load(policy)
        return policy

    def load(self, policy: PolicyRef) -> None:
        """Load this policy: the server's base model, or an adapter that it has saved."""
        if policy == self._held and self._optimizer is None:
            return
        self._unload()
        saved = _read(policy.path, self._server.url) if is_adapter(policy.path) else None
        self._renderer = load_renderer(
            policy.path,
            self._recipe.prompt,
            trust_remote_code=self._recipe.policy.trust_remote_code,
        )
        self._held, self._saved = policy, saved

    @property
    def renderer(self) -> Renderer:
        """The renderer of the loaded policy."""
        if self._renderer is None:
            raise EngineError("The engine has no policy: load one first.")
        return self._renderer

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        Requests that share a prompt become one request, with the first one's seed.
        """
        source: dict[str, str] = {"base_model": self._base_model}
        if self._model is not None or self._saved is not None:
            source = {"sampling_session_id": self._on_server().sampler()}
        groups = [
            [index for index, _ in members]
            for _, members in groupby(enumerate(requests), key=lambda pair: pair[1].prompt_ids)
        ]

        def draw(group: Sequence[int]) -> list[tuple[int, Sampled]]:
            found = self._sample(requests[group[0]], len(group), settings, source)
            return list(zip(group, found, strict=True))

        for found in side_by_side(draw, groups, self._config.max_in_flight):
            yield from found

    def _sample(
        self, first: SampleRequest, count: int, settings: SamplingConfig, source: Mapping[str, str]
    ) -> list[Sampled]:
        """Return `count` completions of one prompt."""
        body = {
            **source,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": list(first.prompt_ids)}]},
            "num_samples": count,
            "sampling_params": {
                "max_tokens": settings.max_completion_tokens,
                "seed": first.seed % 2**31,
                "stop": list(self.renderer.stop_ids),
                "temperature": settings.temperature,
                "top_k": settings.top_k or -1,
                "top_p": settings.top_p,
            },
            "type": "sample",
        }
        sequences = self._server.do("asample", body)["sequences"]
        if len(sequences) != count:
            raise EngineError(
                f"The Tinker server {self._server.url} gave {len(sequences)} completions of a "
                f"prompt, not {count}."
            )
        found = []
        stops = StopTexts(self.renderer.decode, settings.stop)
        for one in sequences:
            ids, logprobs = tuple(one["tokens"]), tuple(one.get("logprobs") or ())
            if len(ids) != len(logprobs) or not ids:
                raise EngineError(
                    f"The Tinker server {self._server.url} gave a completion of {len(ids)} tokens "
                    f"with {len(logprobs)} log-probabilities; rloop needs one for each."
                )
            # Servers accept stop tokens or stop texts, not both.
            end = stops.end(ids)
            reason: FinishReason = one["stop_reason"] if end is None else "stop"
            found.append(Sampled(ids[:end], logprobs[:end], reason))
        return found

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin to train the loaded policy, with a fresh optimizer or a saved one."""
        self._unload()
        self._optimizer, self._begun = optimizer, self._saved
        if not optimizer.learning_rate:
            return
        saved = self._saved if state is None else _read(state, self._server.url)
        self._model = self._new(saved, seed=seed, keeps_moments=state is not None)

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Do one optimizer update on all the sequences and return its metrics."""
        if self._optimizer is None:
            raise EngineError("No policy is in training: begin first.")
        counts = UpdateCounts(
            num_tokens=sum(len(s.completion_ids) for s in sequences), num_sequences=len(sequences)
        )
        metrics = {
            "learning_rate": learning_rate,
            "loss_tokens_count": float(counts.num_tokens),
            "trained_sequences_count": 0.0,
            "skipped_updates_count": 0.0,
        }
        trained = [s for s in sequences if _has_gradient(s, objective)]
        if not self._optimizer.learning_rate or not trained:
            return metrics
        model = self._on_server()
        metrics["trained_sequences_count"] = float(len(trained))
        found = self._add_gradient(model, trained, objective, counts)
        if found is None:
            return metrics | {"skipped_updates_count": 1.0}
        parameters = model.clock.parameters(
            learning_rate=learning_rate,
            weight_decay=self._optimizer.weight_decay,
            grad_clip=self._optimizer.grad_clip,
        )
        norm = grad_norm(model.step(parameters))
        model.clock.done += 1
        if norm is not None and not isfinite(norm):
            raise NonFinitePolicy(
                "The gradient of an update was NaN or infinite, and the server took a step with "
                "it. Lower the learning rate; `rloop resume` continues from the last saved state."
            )
        metrics.update(found.metrics)
        return metrics if norm is None else {**metrics, "grad_norm": norm}

    def _add_gradient(
        self,
        model: Model,
        sequences: Sequence[TrainingSequence],
        objective: Objective,
        counts: UpdateCounts,
    ) -> Gradient | None:
        """Have the server compute the update's gradient; None if it is not finite."""
        check_objective(objective, self._server.offers.losses, self._reduction)
        loss = server_loss(objective, self._server.offers.losses)
        if loss is not None:
            asked = named_pass(loss, sequences, objective, counts, self._reduction)
            logprobs = model.forward_backward(asked, sequences)
            _check_finite(logprobs)
            return gradient(sequences, logprobs, objective, counts)
        is_linear = objective.loss == "sft"
        unknown = [[0.0] * len(s.completion_ids) for s in sequences]
        logprobs = unknown if is_linear else model.forward(sequences, self._reduction)
        found = gradient(sequences, logprobs, objective, counts)
        if not all(
            map(isfinite, (*found.metrics.values(), *(x for r in found.factors for x in r)))
        ):
            return None
        asked = linear_pass(sequences, found.factors, self._reduction)
        logprobs = model.forward_backward(asked, sequences)
        _check_finite(logprobs)
        return gradient(sequences, logprobs, objective, counts) if is_linear else found

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Return [T] log-probabilities of each completion's tokens, at temperature 1 only."""
        if temperature not in (0.0, 1.0):
            raise EngineError(
                f"The Tinker protocol has no log-probabilities at temperature {temperature:g}: it "
                "scores at 1. Use explore.sampling.temperature=1."
            )
        model = self._on_server()
        if at_start and self._optimizer is not None and self._optimizer.learning_rate:
            self._start = self._start or self._new(self._begun, seed=0)
            model = self._start
        return [tuple(row) for row in model.forward(sequences, self._reduction)]

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the loaded policy as a base and an adapter, with its path on the server."""
        held, renderer = self._held, self.renderer
        assert held is not None, "what has a renderer is held"
        model = self._on_server()
        model.forget_moments()
        saved = model.save(name)
        base = base_name(held.path) if is_adapter(held.path) else str(self._base(held.path))
        with written_whole(directory, needed_bytes=0) as partial:
            write_adapter(model.archive(name), partial, base=base, source_dir=held.path, name=name)
            _write(partial, saved, self._server.url)
        self._drop_start()
        self._optimizer = None
        self._held, self._saved = PolicyRef(path=directory, name=name), saved
        self._renderer = renderer
        return self._held

    def save_state(self, directory: Path) -> None:
        """Have the server save weights and moments, and write their path."""
        with written_whole(directory, needed_bytes=0) as partial:
            is_frozen = self._optimizer is None or not self._optimizer.learning_rate
            if self._model is not None and not is_frozen:
                _write(partial, self._model.save(directory.name), self._server.url)

    def describe(self) -> Mapping[str, str]:
        """Return the server, its model and the trained part of the model."""
        offers = self._server.offers
        return {
            "device": f"Tinker server {self._server.url} ({offers.software} {offers.version})",
            "model": self._base_model,
            "parameters": f"adapter of rank {self._config.rank}",
        }

    def close(self) -> None:
        """Free the server's models and end the session."""
        self._unload()
        self._server.close()

    @cached_property
    def _reduction(self) -> Reduction:
        return find_reduction(self._server, self._config, self._base_model)

    def _refuse_server(self) -> None:
        """Raise EngineError now for anything that would make a later request fail."""
        offers, url = self._server.offers, self._server.url
        if offers.lacks:
            raise EngineError(
                f"The Tinker server {url} ({offers.software} {offers.version}) lacks "
                f"{', '.join(offers.lacks)}, which rloop needs. Use a newer server."
            )
        if self._base_model not in offers.models:
            raise EngineError(
                f"The Tinker server {url} does not serve {self._base_model}; it has "
                f"{', '.join(offers.models) or 'no model'}. Set engine.tinker.base_model."
            )
        explore = self._recipe.explore
        objective = Objective(loss=explore.loss, kl_coef=explore.kl_coef)
        for one in (objective, Objective(loss="sft")):
            check_objective(one, self._server.offers.losses, self._reduction)

    def _base(self, path: Path) -> Path | str:
        """Return the name of the adapter's base: the hub's name if it came from there."""
        source = Path(self._recipe.policy.path).expanduser()
        is_hub = "/snapshots/" in path.as_posix() and not source.exists()
        return self._recipe.policy.path if is_hub else path.resolve()

    def _new(self, saved: SavedModel | None, *, seed: int, keeps_moments: bool = False) -> Model:
        return Model(
            self._server,
            self._config,
            self._base_model,
            seed=seed,
            saved=saved,
            keeps_moments=keeps_moments,
        )

    def _on_server(self) -> Model:
        """Return the loaded policy as a model on the server, created if necessary."""
        if self._model is None:
            seed = stable_hash(self._recipe.seed, "held")
            self._model = self._new(self._saved, seed=seed)
        return self._model

    def _unload(self) -> None:
        if self._model is not None:
            self._model.unload()
        self._drop_start()
        self._model = self._optimizer = None

    def _drop_start(self) -> None:
        if self._start is not None:
            self._start.unload()
        self._start = self._begun = None


def _has_gradient(sequence: TrainingSequence, objective: Objective) -> bool:
    factor = sequence.weight if objective.loss == "sft" else sequence.advantage
    return factor != 0.0 or objective.kl_coef > 0.0


def _check_finite(logprobs: Rows) -> None:
    if not all(isfinite(p) for row in logprobs for p in row):
        raise NonFinitePolicy(
            "The policy in training gives NaN or infinite log-probabilities: its weights have "
            "grown until they overflow. Lower the learning rate of its training."
        )


def _write(directory: Path, saved: SavedModel, url: str) -> None:
    write_text(directory / SERVER_FILE, json.dumps({**asdict(saved), "server": url}, indent=2))


def _read(directory: Path, url: str) -> SavedModel:
    """Return the server's path of a policy or a state; EngineError if it is not recorded."""
    file = directory / SERVER_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return SavedModel(path=found["path"], clock=AdamClock(**found["clock"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{file} does not say where {url} has these weights ({first_line(error)}), and "
            f"weights cannot be uploaded to a server. Use a policy that a run on this server "
            f"wrote, or the base model."
        ) from error
