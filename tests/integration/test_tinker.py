"""The Tinker engine on a real server: its gradient, whole runs, and what is killed on the way."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles_policies import make_problem
from doubles_runs import logged, toy_recipe, trajectories, with_mixed_groups, write_problems
from doubles_tinker import Between, TinkerServer, on_server
from safetensors.torch import load_file

from rloop.algo.losses import TokenBatch, UpdateCounts, compute_loss
from rloop.algo.objective import Objective
from rloop.engines.base import SampleRequest, TrainingSequence
from rloop.engines.native.batches import form_microbatches
from rloop.engines.native.logprobs import completion_logprobs
from rloop.engines.native.lora import LowRankWeights
from rloop.engines.tinker.engine import TinkerEngine
from rloop.engines.tinker.gradients import gradient, linear_pass, named_pass, server_loss
from rloop.engines.tinker.model import Model, find_reduction, grad_norm
from rloop.engines.tinker.protocol import Server
from rloop.observe.run_log import read_metrics
from rloop.policies.adapter import write_adapter
from rloop.policies.checkpoint import load_policy
from rloop.recipe.config import SamplingConfig
from rloop.recipe.engine import LoraConfig
from rloop.recipe.load import resolved_json
from rloop.report.export import export_policy
from rloop.types import PolicyRef

pytestmark = pytest.mark.tinker

OBJECTIVES = {
    "dapo": Objective(loss="dapo", clip_low=0.2, clip_high=0.28, importance_cap=2.0),
    "ppo": Objective(loss="dapo", clip_low=0.2, clip_high=0.28),
    "cispo": Objective(loss="cispo", clip_high=0.28),
    "gspo": Objective(loss="gspo", clip_low=0.2, clip_high=0.28),
    "kl": Objective(loss="dapo", clip_low=0.2, clip_high=0.28, kl_coef=0.1),
    "sft": Objective(loss="sft"),
}
KEY = "tml-secret"
HUGE = 1e6
STEP = {
    "learning_rate": HUGE,
    "beta1": 0.0,
    "beta2": 0.0,
    "eps": HUGE,
    "weight_decay": 0.0,
    "grad_clip_norm": 0.0,
}
"""Adam without memory and with a huge epsilon: rate g / (|g| + epsilon) is the gradient g."""


class Bench:
    """A server's adapter that has learned a little, and the same one in the native engine."""

    def __init__(self, server: TinkerServer, folder: Path) -> None:
        recipe = on_server(toy_recipe(folder), server)
        engine = TinkerEngine(recipe)
        base = engine.prepare(recipe.policy.path, folder / "base", seed=0)
        assert recipe.engine.tinker is not None
        self.config, self.name = recipe.engine.tinker, recipe.policy.path
        self.folder, self.base = folder, base
        prompts = [engine.renderer.prompt(make_problem(n)).ids for n in range(4)]
        drawn = dict(
            engine.sample(
                [SampleRequest(ids, seed=n) for n, ids in enumerate(prompts)],
                SamplingConfig(max_completion_tokens=12),
            )
        )
        noise = np.random.default_rng(0)
        self.sequences = [
            TrainingSequence(
                prompt_ids=prompt,
                completion_ids=drawn[n].completion_ids[: 12 - 2 * n],
                behavior_logprobs=[
                    p + noise.normal(0.0, 0.4) for p in drawn[n].behavior_logprobs[: 12 - 2 * n]
                ],
                reference_logprobs=drawn[n].behavior_logprobs[: 12 - 2 * n],
                advantage=(1.0, -1.5, 0.5, -0.7)[n],
                weight=(1.0, 0.5, 2.0, 1.5)[n],
            )
            for n, prompt in enumerate(prompts)
        ]
        self.counts = UpdateCounts(
            num_tokens=sum(len(s.completion_ids) for s in self.sequences) + 5, num_sequences=5
        )
        engine.close()
        self.server = Server(self.config)
        self.reduction = find_reduction(self.server, self.config, self.name)
        model = Model(self.server, self.config, self.name, seed=1)
        factors = [[-1.0] * len(s.completion_ids) for s in self.sequences]
        for _ in range(3):
            model.forward_backward(
                linear_pass(self.sequences, factors, self.reduction), self.sequences
            )
            model.step(model.clock.parameters(learning_rate=0.02, weight_decay=0, grad_clip=0))
            model.clock.done += 1
        self.saved = model.save("start")
        self.start = self.adapter(model, "start")
        model.unload()

    def adapter(self, model: Model, name: str) -> dict[str, torch.Tensor]:
        directory = self.folder / name
        directory.mkdir()
        write_adapter(
            model.archive(name),
            directory,
            base=str(self.base.path),
            source_dir=self.base.path,
            name=name,
        )
        found = load_file(directory / "adapter_model.safetensors")
        return {key.removeprefix("base_model.model."): tensor for key, tensor in found.items()}

    def servers_gradient(self, objective: Objective, name: str) -> dict[str, torch.Tensor]:
        model = Model(self.server, self.config, self.name, seed=1, saved=self.saved)
        logprobs = model.forward(self.sequences, self.reduction)
        loss = server_loss(objective, self.server.offers.losses)
        if loss is None:
            factors = gradient(self.sequences, logprobs, objective, self.counts).factors
            asked = linear_pass(self.sequences, factors, self.reduction)
        else:
            asked = named_pass(loss, self.sequences, objective, self.counts, self.reduction)
        model.forward_backward(asked, self.sequences)
        model.step(STEP)
        after = self.adapter(model, name)
        model.unload()
        return {key: self.start[key] - after[key] for key in after}

    def natives_gradient(self, objective: Objective) -> dict[str, torch.Tensor]:
        loaded = load_policy(
            self.base.path,
            dtype=torch.float32,
            device=torch.device("cpu"),
            trust_remote_code=False,
        )
        lora = LoraConfig(rank=self.config.rank, alpha=32.0)
        weights = LowRankWeights(loaded.model, lora, seed=0, offload=False)
        with torch.no_grad():
            for name, master in weights.masters.items():
                master.copy_(self.start[f"{name}.weight"])
        weights.write()
        for one in self.sequences:
            (batch,) = form_microbatches([one], 1024, loaded.model)
            policy = completion_logprobs(loaded.model, batch, 1.0)
            is_rl, has_kl = objective.loss != "sft", objective.kl_coef > 0
            tokens = TokenBatch(
                policy_logprobs_N=policy.logprobs_N,
                behavior_logprobs_N=torch.tensor(one.behavior_logprobs) if is_rl else None,
                reference_logprobs_N=torch.tensor(one.reference_logprobs) if has_kl else None,
                advantages_N=torch.full_like(policy.logprobs_N, one.advantage),
                weights_N=torch.full_like(policy.logprobs_N, one.weight),
                lengths_B=[len(one.completion_ids)],
            )
            compute_loss(objective, tokens, self.counts).loss.backward()
        found = {f"{n}.weight": m.grad for n, m in weights.masters.items() if m.grad is not None}
        weights.close()
        return self.summed_where_shared(found)

    def summed_where_shared(self, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """SkyRL computes q, k and v as one product, and gate and up: they have one A among them."""
        return {
            key: torch.stack(
                [g for k, g in found.items() if torch.equal(self.start[k], self.start[key])]
            ).sum(0)
            for key in found
        }


@pytest.fixture(scope="module")
def bench(tinker_server: TinkerServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tinker_server, tmp_path_factory.mktemp("bench"))
    yield bench
    bench.server.close()


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_servers_gradient_is_natives(bench: Bench, name: str):
    theirs = bench.servers_gradient(OBJECTIVES[name], name)
    ours = bench.natives_gradient(OBJECTIVES[name])
    assert theirs.keys() == ours.keys()
    norm = sum(float(g.square().sum()) for g in ours.values()) ** 0.5
    off = sum(float((theirs[key] - ours[key]).square().sum()) for key in ours) ** 0.5
    assert norm > 1e-2
    assert off < 1e-4 * norm


def test_a_model_does_not_inherit_the_gradient_of_a_dropped_one(bench: Bench):
    """SkyRL 0.3.0 gives a new model the place of a dropped one, with what it accumulated."""
    killed = Model(bench.server, bench.config, bench.name, seed=1)
    factors = [[-1.0] * len(s.completion_ids) for s in bench.sequences]
    killed.forward_backward(linear_pass(bench.sequences, factors, bench.reduction), bench.sequences)
    killed.unload()
    model = Model(bench.server, bench.config, bench.name, seed=1)
    assert grad_norm(model.step(STEP)) == 0.0
    model.unload()


def write_recipe(folder: Path, server: TinkerServer, url: str | None = None) -> Path:
    recipe = toy_recipe(
        folder, explore__steps=2, explore__checkpoint_every=1, finetune__checkpoint_every=1
    )
    values = {"base_url": url or server.url, "patience_s": 60.0}
    recipe = on_server(with_mixed_groups(recipe), server, **values)
    path = folder / f"recipe-{'through' if url else 'straight'}.yaml"
    path.write_text(resolved_json(recipe))
    return path


def rloop(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "rloop", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TINKER_API_KEY": KEY},
    )


def written(run_dir: Path) -> list[Any]:
    order = "iteration, phase, step, policy, problem_id, member"
    query = "select iteration, phase, step, problem_id, member, completion_ids, "
    return trajectories(run_dir, query + f"reward from trajectories order by {order}")


class Whole:
    """A run that nothing disturbed."""

    def __init__(self, server: TinkerServer, folder: Path) -> None:
        self.folder, self.run_dir = folder, folder / "whole"
        between = Between(server.url, 0, lambda: None, is_after=False)
        recipe = write_recipe(folder, server, between.url)
        run = rloop("run", recipe, "--out", self.run_dir)
        said = run.communicate()[0]
        between.close()
        assert run.returncode == 0, said
        self.said, self.num_requests = said, between.seen


@pytest.fixture(scope="module")
def whole(tinker_server: TinkerServer, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tinker_server, tmp_path_factory.mktemp("whole"))


def files_with(text: str, run_dir: Path) -> set[str]:
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    return {path.name for path in files if text.encode() in path.read_bytes()}


def test_the_key_is_nowhere_in_a_run(whole: Whole):
    assert KEY not in whole.said
    assert not files_with(KEY, whole.run_dir)
    # The same search finds what is there.
    assert {"config.json", "environment.json"} <= files_with("http://127.0.0.1", whole.run_dir)
    assert {"manifest.json", "metrics.jsonl", "events.jsonl"} <= files_with('"', whole.run_dir)


def test_a_run_goes_from_end_to_end_and_its_policies_are_anyones(whole: Whole):
    assert "Tinker server http" in whole.said
    assert "does not clip gradients" in whole.said
    phases = {(line["iteration"], line["phase"]) for line in read_metrics(whole.run_dir)}
    assert {(2, "explore"), (2, "finetune"), (2, "evaluate")} <= phases
    rows = trajectories(whole.run_dir, "select completion_ids, behavior_logprobs from trajectories")
    assert all(len(r["completion_ids"]) == len(r["behavior_logprobs"]) > 0 for r in rows)
    policy = PolicyRef(path=whole.run_dir / "policies/iter-002", name="iter-002")
    place = whole.folder / "exported"
    export_policy(whole.run_dir, place, "iter-002")
    native = [
        load_policy(
            path, dtype=torch.float32, device=torch.device("cpu"), trust_remote_code=False
        ).model
        for path in (policy.path, place)
    ]
    assert not (place / "adapter_config.json").exists()
    one, other = (model(torch.tensor([[5, 9, 17]])).logits for model in native)
    assert torch.allclose(one, other, atol=1e-6)


def test_cold_start_refills_divergence_and_several_updates_a_step_run(
    tinker_server: TinkerServer, tmp_path: Path
):
    solved = write_problems(tmp_path / "solved.jsonl", 8, first=20)
    task = {"source": f"file:{solved}", "name": "solved", "verifier": "numeric"}
    rate = {"learning_rate": 1e-3}
    recipe = toy_recipe(
        tmp_path,
        iterations=1,
        coldstart={"task": task, "epochs": 1, "batch_size": 4, "optimizer": rate},
        explore__steps=2,
        explore__refill_rounds=1,
        explore__kl_coef=0.05,
        explore__updates_per_step=2,
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved_json(on_server(with_mixed_groups(recipe), tinker_server)))
    run = rloop("run", path, "--out", tmp_path / "run")
    said = run.communicate()[0]
    assert run.returncode == 0, said
    lines = read_metrics(tmp_path / "run")
    explored = [line for line in lines if line["phase"] == "explore"]
    assert any(line["explore/groups_count"] > 3 for line in explored)
    assert all(line["explore/kl_mean"] >= 0 for line in explored if "explore/kl_mean" in line)
    assert any("explore/kl_mean" in line for line in explored)
    losses = [line["coldstart/loss_mean"] for line in lines if line["phase"] == "coldstart"]
    assert len(losses) == 2


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 10))]
)
@pytest.mark.parametrize("victim", ["client", "server"])
def test_what_is_killed_at_any_request_goes_on_to_the_same_end(
    tinker_server: TinkerServer, whole: Whole, tmp_path: Path, victim: str, seed: int
):
    numbers_of = np.random.default_rng([seed, victim == "server"])
    number, is_after = int(numbers_of.integers(1, whole.num_requests)), bool(seed % 2)
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        if victim == "client":
            run.kill()
        else:
            tinker_server.kill()
            threading.Thread(target=tinker_server.start).start()

    between = Between(tinker_server.url, number, kill, is_after=is_after)
    # The same recipe but for the address, which decides no result.
    recipe = write_recipe(whole.folder, tinker_server, between.url)
    run_dir = tmp_path / "run"
    run = rloop("run", recipe, "--out", run_dir)
    said = run.communicate()[0]
    assert killed.is_set()
    if victim == "server" and run.returncode:
        assert "rloop resume" in said
    for _ in range(3):
        if run.returncode == 0:
            break
        wait_for(tinker_server.answers)
        run = rloop("resume", run_dir)
        said += run.communicate()[0]
    between.close()
    assert run.returncode == 0, said
    assert KEY not in said
    assert not files_with(KEY, run_dir)
    differing = [
        (row["iteration"], row["phase"], row["step"], row["problem_id"], row["member"])
        for row, expected in zip(written(run_dir), written(whole.run_dir), strict=True)
        if row != expected
    ]
    assert not differing, said
    for line, expected in zip(logged(run_dir), logged(whole.run_dir), strict=True):
        assert line == {
            key: value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-5)
            for key, value in expected.items()
        }


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
