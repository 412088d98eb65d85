"""Supervised fine-tuning on stored token ids: the order of the examples and their updates."""

from collections.abc import Iterator, Sequence

import numpy as np

from rloop.algo.losses import Objective
from rloop.engines.base import FinetuneStep
from rloop.engines.native.learner import Learner
from rloop.engines.native.microbatch import TrainingSequence
from rloop.engines.native.policies import LoadedPolicy
from rloop.engines.native.prompts import PromptBuilder, check_embedded, encode
from rloop.engines.native.schedule import split_evenly
from rloop.errors import EngineError
from rloop.tasks.references import check_solutions
from rloop.types import Example, Place, Problem, stable_hash


def tune(
    learner: Learner,
    examples: Sequence[Example],
    place: Place,
    *,
    epochs: int,
    batch_size: int,
    num_done: int = 0,
) -> Iterator[FinetuneStep]:
    """Yield each update of `epochs` passes after the first `num_done`.

    The order of an epoch depends on the place's seed alone. An epoch is cut into as few updates as
    `batch_size` allows, of nearly equal size.
    """
    sequences = [
        TrainingSequence(
            prompt_ids=example.prompt_ids,
            completion_ids=example.completion_ids,
            weight=example.weight,
        )
        for example in examples
    ]
    per_epoch = updates_per_epoch(len(sequences), batch_size)
    step = 0
    for epoch in range(epochs):
        seed = stable_hash(place.seed, place.iteration, place.phase, "order", epoch)
        order = np.random.default_rng(seed).permutation(len(sequences)).tolist()
        for indices in split_evenly(order, per_epoch):
            step += 1
            if step <= num_done:
                continue
            batch = [sequences[index] for index in indices]
            metrics = learner.update(batch, Objective(loss="sft"))
            yield FinetuneStep(step=step, num_steps=epochs * per_epoch, metrics=metrics)


def updates_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return how many updates of at most `batch_size` examples a pass over them needs."""
    return -(-num_examples // batch_size)


def encode_solutions(
    policy: LoadedPolicy,
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    solution_template: str,
) -> list[Example]:
    """Return each problem's prompt and solution as token ids that end as a turn of the chat
    template does, else in EOS.
    """
    check_solutions(problems, solution_template)
    examples, context = [], policy.context
    for problem in problems:
        # Not str.format: solutions are full of braces.
        text = solution_template.replace("{solution}", problem.solution or "")
        text = text.replace("{answer}", problem.answer)
        try:
            ids = encode(policy.tokenizer, text)
        except EngineError as error:
            raise EngineError(f"The solution of {problem.problem_id}: {error}") from error
        prompt_ids, completion_ids = prompts.build(problem).ids, (*ids, policy.end_id)
        what = f"The solution of {problem.problem_id}"
        check_embedded(completion_ids, policy.num_embeddings, what)
        num_tokens = len(prompt_ids) + len(completion_ids)
        if context is not None and num_tokens > context:
            raise EngineError(
                f"The prompt and the solution of {problem.problem_id} have {num_tokens} tokens, "
                f"more than the {context} of the policy's context. Leave that problem out of the "
                "cold start's file, or take a model with a longer context."
            )
        examples.append(
            Example(
                problem_id=problem.problem_id,
                prompt_ids=prompt_ids,
                completion_ids=completion_ids,
            )
        )
    return examples
