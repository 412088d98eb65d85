"""Fixed inputs for comparing losses and metrics with peers, and what the peers make of them.

`python tests/peer_numbers.py` prints verl's numbers, the table of test_parity_verl.py. Needs

    pip install --no-deps verl==0.9.1 tensordict==0.15.3 pyvers==0.2.3 omegaconf==2.4.0 \\
        codetiming==1.4.0 orjson cloudpickle

--no-deps because verl 0.9.1 asks for an older transformers, for hydra, which needs another antlr4
than math-verify, and for Ray, which its losses do not use: an empty stand-in lets them be imported.

`python tests/peer_numbers.py lighteval` and `... lm_eval` print the tables of
test_parity_evaluation.py. They need

    pip install --no-deps lighteval==0.13.0 lm_eval==0.4.13

What else lighteval imports (for metrics that are not compared) has an empty stand-in too.
"""

import importlib.machinery
import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
REWARDS_PG = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
LENGTHS_B = [3, 2, 4]
ADVANTAGES_B = [1.5, -0.5, -0.75]
POLICY = [[-0.3, -1.2, -0.05], [-2.0, -0.7], [-0.9, -0.1, -1.5, -0.4]]
"""Log-probabilities by sequence; the ratios to BEHAVIOR lie inside and outside the clip range."""
BEHAVIOR = [[-1.2, -1.1, -0.05], [-1.6, -0.75], [-1.4, -0.6, -1.3, -0.35]]
REFERENCE = [[-0.5, -1.0, -0.06], [-1.0, -0.7], [-0.8, -0.3, -1.5, -0.9]]

NUM_CORRECT = {
    1: [0, 1, 1, 0, 0],
    8: [8, 0, 3, 1, 5, 7, 0, 2, 8],
    32: [0, 1, 2, 9, 16, 24, 25, 31, 32, 0, 5],
    256: [0, 1, 3, 17, 128, 192, 249, 255, 256],
}
"""Correct samples of each problem, by samples per problem."""
KS = {1: (1,), 8: (1, 2, 4, 8), 32: (1, 8, 32), 256: (1, 8, 64, 256)}


def padded(rows: list[list[float]]) -> list[list[float]]:
    """Return the rows padded with zeros to the longest."""
    width = max(map(len, rows))
    return [row + [0.0] * (width - len(row)) for row in rows]


def unpadded(rows: list[list[float]]) -> list[float]:
    """Return the numbers of the tokens alone, row after row."""
    return [number for row, n in zip(rows, LENGTHS_B, strict=True) for number in row[:n]]


class Anything(types.ModuleType):
    """A module with a class for every name asked of it."""

    def __getattr__(self, name: str) -> type:
        """Return an empty class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def verl_numbers() -> dict[str, list[float]]:
    """Return verl's losses with their gradients, divergences and advantages."""
    stand_in = Anything("ray")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("ray", None)
    sys.modules.setdefault("ray", stand_in)
    warnings.simplefilter("ignore")
    import numpy as np
    import torch
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    def losses(name: str, mode: str, clip_low: float) -> list[float]:
        config: Any = ActorConfig(
            strategy="fsdp",
            rollout_n=1,
            use_dynamic_bsz=True,
            clip_ratio_low=clip_low,
            clip_ratio_high=CLIP_HIGH,
            clip_ratio_c=1e6,  # no dual clip
        )
        policy_BT = torch.tensor(padded(POLICY), requires_grad=True)
        loss, _ = core_algos.get_policy_loss_fn(name)(
            old_log_prob=torch.tensor(padded(BEHAVIOR)),
            log_prob=policy_BT,
            advantages=torch.tensor(ADVANTAGES_B).unsqueeze(-1).expand_as(policy_BT),
            response_mask=mask_BT,
            loss_agg_mode=mode,
            config=config,
        )
        (grad_BT,) = torch.autograd.grad(loss, [policy_BT])
        return [loss.item(), *unpadded(grad_BT.tolist())]

    mask_BT = torch.tensor(padded([[1.0] * n for n in LENGTHS_B]))
    policy_BT, reference_BT = torch.tensor(padded(POLICY)), torch.tensor(padded(REFERENCE))
    rewards_B1 = torch.tensor(REWARDS_PG).reshape(-1, 1)
    group_B = np.repeat(np.arange(len(REWARDS_PG)), len(REWARDS_PG[0]))
    ones_B1 = torch.ones_like(rewards_B1)
    grpo = core_algos.compute_grpo_outcome_advantage
    rloo = core_algos.compute_rloo_outcome_advantage
    return {
        "dapo": losses("vanilla", "token-mean", CLIP_LOW),
        "gspo": losses("gspo", "seq-mean-token-mean", CLIP_LOW),
        "cispo": losses("cispo", "token-mean", 1.0),  # 1: no lower clip
        "k3": unpadded(core_algos.kl_penalty(policy_BT, reference_BT, "low_var_kl").tolist()),
        "grpo": grpo(rewards_B1.clone(), ones_B1, group_B)[0].flatten().tolist(),
        "dr_grpo": grpo(rewards_B1.clone(), ones_B1, group_B, norm_adv_by_std_in_grpo=False)[0]
        .flatten()
        .tolist(),
        "rloo": rloo(rewards_B1.clone(), ones_B1, group_B)[0].flatten().tolist(),
    }


class StandIns:
    """Finds an empty package wherever none of that name is installed."""

    def __init__(self, *names: str) -> None:
        """Stand in for these packages and all inside them."""
        self._names = names

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Return a specification for a name that is ours."""
        is_ours = name.split(".")[0] in self._names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_ours else None  # type: ignore[arg-type]  # a loader by its two methods

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the empty package."""
        return Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


def lighteval_numbers() -> dict[str, float]:
    """Return lighteval's avg@n and pass@k: its means over problems of its own sample metrics."""
    sys.meta_path.append(StandIns("sacrebleu", "sklearn", "pytablewriter", "nltk", "scipy"))
    warnings.simplefilter("ignore")
    import numpy as np
    from lighteval.metrics.metrics_sample import AvgAtN, PassAtK
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    doc = Doc(query="1+1=", choices=["2"], gold_index=0)
    found = {}
    for n, num_correct in NUM_CORRECT.items():
        answers = [ModelResponse(text=["2"] * c + ["3"] * (n - c)) for c in num_correct]
        average = [AvgAtN(n=n).compute(doc, response) for response in answers]
        found[f"{n} avg@{n}"] = float(np.mean(average))
        for k in KS[n]:
            passed = [PassAtK(k=k, n=n).compute(doc, response) for response in answers]
            found[f"{n} pass@{k}"] = float(np.mean(passed))
    return found


def lm_eval_numbers() -> dict[str, float]:
    """Return lm-eval's pass@k, as its CRUXEval tasks compute it; the verdicts are ours.

    HumanEval's is a script of the hub that the package does not hold, with the same estimator.
    """
    package = importlib.util.find_spec("lm_eval")
    assert package is not None, "lm_eval is not installed"
    assert package.origin is not None, "lm_eval is a package"
    file = Path(package.origin).parent / "tasks" / "cruxeval" / "utils.py"
    spec = importlib.util.spec_from_file_location("cruxeval_utils", file)
    assert spec is not None, f"{file} cannot be imported"
    assert spec.loader is not None, f"{file} cannot be imported"
    utils: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    utils.check_correctness = lambda program, timeout: program == "right"  # runs no program
    found: dict[str, float] = {}
    for n, num_correct in NUM_CORRECT.items():
        programs = [["right"] * c + ["wrong"] * (n - c) for c in num_correct]
        passed = utils.pass_at_k([""] * len(programs), programs, list(KS[n]))
        found |= {f"{n} {name}": float(value) for name, value in passed.items()}
    return found


PEERS = {"verl": verl_numbers, "lighteval": lighteval_numbers, "lm_eval": lm_eval_numbers}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PEERS[(sys.argv[1:] or ["verl"])[0]]()) + "\n")
