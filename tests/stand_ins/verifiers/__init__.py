"""A stand-in for the package `verifiers`, as rloop uses it: environments of one turn."""

import importlib
import inspect

__version__ = "0.3.1"


class Rubric:
    def __init__(self, funcs=None, weights=None):
        self.funcs = list(funcs or [])
        self.weights = list(weights or [1.0] * len(self.funcs))

    @property
    def has_group_rewards(self):
        return any("completions" in inspect.signature(f).parameters for f in self.funcs)

    async def score_rollout(self, state):
        known = {key: state.get(key) for key in ("prompt", "completion", "answer", "info")}
        total = 0.0
        for function, weight in zip(self.funcs, self.weights, strict=True):
            parameters = inspect.signature(function).parameters.values()
            takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
            given = known if takes_all else {p.name: known[p.name] for p in parameters}
            try:
                value = function(**given)
                value = await value if inspect.isawaitable(value) else value
            except Exception:  # noqa: BLE001 -- as the package does
                value = 0.0
            total += weight * float(value)
        state["reward"] = total

    async def cleanup(self, state):
        """Nothing is held."""


class MultiTurnEnv:
    tool_defs = ()

    def __init__(self, dataset=None, eval_dataset=None, rubric=None, system_prompt=None, **_):
        self.dataset_source = self.eval_dataset_source = None
        self.dataset, self.eval_dataset = dataset, eval_dataset
        self.rubric, self.system_prompt = rubric, system_prompt

    def _rows(self, rows):
        system = [{"role": "system", "content": self.system_prompt}] * bool(self.system_prompt)
        return [
            {**row, "prompt": [*system, {"role": "user", "content": row["question"]}]}
            for row in rows
        ]

    def get_dataset(self):
        return self._rows(self.dataset)

    def get_eval_dataset(self):
        return self._rows(self.eval_dataset)

    async def init_state(self, row, client, model):
        return dict(row)

    async def setup_state(self, state):
        return state


class SingleTurnEnv(MultiTurnEnv):
    pass


def load_environment(name, **params):
    return importlib.import_module(name.replace("-", "_")).load_environment(**params)
