"""Trajectories and problems in the form that TRL and inspect_ai read.

    TRL SFT    prompt, completion (text) with input_ids, completion_mask (the sampled tokens)
    TRL RL     prompt, solution
    inspect    a log of an evaluation: problem x member is sample x epoch

Checked with TRL 1.16.0 and inspect_ai 0.3.285.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rloop.errors import StoreError

Messages = list[dict[str, str]]
_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
_SIDES = ("prompt", "completion")
_IDENTITY = ("task", "problem_id", "iteration", "step", "member")
_IDS = pa.list_(pa.int32())
INSPECT_COLUMNS = (
    *("run", "iteration", "phase", "step", "policy", "policy_version", "task", "problem_id"),
    *("member", "prompt_ids", "prompt_text", "completion_text", "completion_tokens", "seed"),
    *("finish_reason", "answer", "reference", "correct", "verdict", "reason", "reward"),
    *("temperature", "top_p", "top_k", "verifier_version"),
)
PROBLEMS_SQL = """
    select task, problem_id, any_value(prompt_text) as prompt_text,
        any_value(reference) as reference, count(*) as num_trajectories,
        avg(correct::int) filter (where verdict != 'error') as success_rate
    from trajectories where phase = '{phase}' {condition}
    group by task, problem_id order by task, problem_id
"""
"""One row a problem, for `trl_problems`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """How a prompt's text lies around the problem's; empty texts mean that it is not known.

    Example: Chat(head="<|im_start|>user\\n", tail="<|im_end|>\\n<|im_start|>assistant\\n",
    system=None)
    """

    head: str = ""
    tail: str = ""
    system: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether prompts can be told as messages."""
        return bool(self.head or self.tail)

    def holds(self, prompt_text: str) -> bool:
        """Whether a prompt was made this way."""
        is_long = len(prompt_text) >= len(self.head) + len(self.tail)
        return is_long and prompt_text.startswith(self.head) and prompt_text.endswith(self.tail)

    def messages(self, prompt_text: str) -> Messages:
        """Return the messages that the chat template makes this prompt of.

        Without a chat the whole prompt is the user's message.
        """
        if not self.holds(prompt_text):
            raise StoreError(
                "A prompt of the run does not match its chat template, so it cannot be split into "
                f"messages: {prompt_text[:60]!r}. Use --format table."
            )
        content = prompt_text[len(self.head) : len(prompt_text) - len(self.tail)]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": content}]


def trl_examples(table: pa.Table) -> pa.Table:
    """Return what `SFTTrainer` imitates: the tokens as they were sampled, and their texts.

    Both in the same rows, for TRL takes `input_ids` where there are some, and trains on completions
    alone only where `prompt` and `completion` stand beside them.
    """
    prompts, completions = (table[f"{name}_ids"].combine_chunks() for name in _SIDES)
    lengths = np.stack([side.value_lengths().to_numpy() for side in (prompts, completions)], 1)
    both = pa.concat_arrays([prompts, completions])
    in_turn = np.arange(2 * len(table)).reshape(2, -1).T.ravel()
    offsets = np.concatenate([[0], lengths.sum(1).cumsum()]).astype(np.int32)
    weight = {"weight"}.intersection(table.column_names)
    mask = np.repeat(np.tile(np.array([0, 1], np.int8), len(table)), lengths.ravel())
    return pa.table(
        {
            **{side: table[f"{side}_text"] for side in _SIDES},
            "input_ids": pa.ListArray.from_arrays(offsets, both.take(in_turn).flatten(), type=_IDS),
            "completion_mask": pa.ListArray.from_arrays(offsets, mask),
            **{name: table[name] for name in (*_IDENTITY, *weight)},
        }
    )


def trl_problems(problems: Sequence[dict[str, Any]], chat: Chat) -> pa.Table:
    """Return what `GRPOTrainer` samples from; `solution` is what TRL's own rewards read."""
    texts = [row["prompt_text"] for row in problems]
    prompts = (
        pa.array(map(chat.messages, texts), _MESSAGES)
        if chat.is_known
        else pa.array(texts, pa.string())
    )
    solutions = pa.array([row["reference"] for row in problems], pa.string())
    kinds = {
        "task": pa.string(),
        "problem_id": pa.string(),
        "success_rate": pa.float64(),
        "num_trajectories": pa.int64(),
    }
    # How often each was tried and solved in the run, to choose by.
    history = {
        name: pa.array([row[name] for row in problems], kind) for name, kind in kinds.items()
    }
    return pa.table({"prompt": prompts, "solution": solutions, **history})


def inspect_log(rows: Sequence[Mapping[str, Any]], chat: Chat) -> dict[str, Any]:
    """Return one policy's samples of one task in one step as a log that inspect_ai reads.

    Rows have `INSPECT_COLUMNS`.

    A verdict is the score `C`, `I`, or `N` where the verifier failed; the reward is a second score.
    """
    first = rows[0]
    place = {key: first[key] for key in ("run", "iteration", "phase", "step", "policy")}
    verifier, problems = first["verifier_version"], {row["problem_id"] for row in rows}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    means = {
        str(verifier): sum(row["correct"] for row in rows) / len(rows),
        "reward": sum(row["reward"] for row in rows) / len(rows),
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": created,
            "task": first["task"],
            "task_id": "-".join(str(place[key]) for key in ("iteration", "phase", "step")),
            "dataset": {"name": first["task"], "samples": len(problems)},
            "model": f"rloop/{first['policy']}",
            "model_generate_config": {
                key: first[key] for key in ("temperature", "top_p", "top_k") if first[key]
            },
            "config": {"epochs": max(row["member"] for row in rows) + 1},
            "metadata": place,
        },
        "results": {
            "total_samples": len(rows),
            "completed_samples": len(rows),
            "scores": [
                {
                    "name": name,
                    "scorer": name,
                    "metrics": {"mean": {"name": "mean", "value": value}},
                }
                for name, value in means.items()
            ],
        },
        "stats": {"started_at": created, "completed_at": created},
        "samples": [_inspect_sample(row, chat) for row in rows],
    }


def _inspect_sample(row: Mapping[str, Any], chat: Chat) -> dict[str, Any]:
    prompt, completion = row["prompt_text"], row["completion_text"]
    messages = chat.messages(prompt) if chat.is_known else [{"role": "user", "content": prompt}]
    answer = {"role": "assistant", "content": completion, "source": "generate"}
    num_prompt, num_completion = len(row["prompt_ids"]), row["completion_tokens"]
    stop_reason = "max_tokens" if row["finish_reason"] == "length" else "stop"
    return {
        "id": row["problem_id"],
        "epoch": row["member"] + 1,
        "input": messages,
        "target": row["reference"],
        "messages": [*messages, answer],
        "output": {
            "model": f"rloop/{row['policy']}",
            "choices": [{"message": answer, "stop_reason": stop_reason}],
            "usage": {
                "input_tokens": num_prompt,
                "output_tokens": num_completion,
                "total_tokens": num_prompt + num_completion,
            },
        },
        "scores": {
            row["verifier_version"]: {
                "value": {"correct": "C", "wrong": "I"}.get(row["verdict"], "N"),
                "answer": row["answer"],
                "explanation": row["reason"] or None,
            },
            "reward": {"value": row["reward"]},
        },
        "metadata": {"seed": row["seed"], "policy_version": row["policy_version"]},
    }
