"""Made-up trajectories as tables of the store, thousands at a time, without a model.

Completions are chains of sentences out of a fixed book; a token is a word, so ids and text agree in
length. Each problem has a chain of its own that the policy follows more closely the longer it
trains: diversity falls. Whether an answer is right follows a curve in the problem's difficulty that
gets steeper: easy problems become certain and hard ones are given up, so avg@n rises while pass@k
falls, which is what RL overfitting looks like. Knows nothing of files.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rloop.store.schema import SCHEMA, SCHEMA_VERSION
from rloop.types import Place

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SUBJECTS = "The total|The rest|Each box|Half of it|The second train|The sum|Her share|The price"
VERBS = "is at first|comes to|must be|cannot be more than|grows by|is less than|equals|leaves"
ENDINGS = (
    "apples, which we add to what was there before.\n",
    "after the first day, so the second day starts from that.\n",
    "when both sides are divided by the same number.\n",
    "and we check it by putting it back into the equation: x = {number}.\n",
    "\u2248 {number}, because the remainder is small.\n",
)
NUM_NUMBERS = 100
EOS = 0
WORDS_PER_SENTENCE = 13
"""About; what turns a number of tokens into a number of sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How well the imagined policy does at some moment.

    Example: Policy(ability=0.5, steepness=1.5, narrowness=0.4, entropy=0.6)
    """

    ability: float
    """The difficulty that it solves half of the time."""
    steepness: float
    """1: as unsure as the base; more: certain of easy problems, hopeless on hard ones."""
    narrowness: float
    """Chance that a sentence is the one of the problem's own chain."""
    entropy: float
    """Nats per token; the mean of -log-probability."""

    def success_rates(self, difficulty: FloatArray) -> FloatArray:
        """Return the chance of a right answer for problems of these difficulties."""
        return 1 / (1 + np.exp(-2.0 * self.steepness * (self.ability - difficulty)))


class Book:
    """Sentences as texts and as token ids, under one vocabulary of words."""

    def __init__(self) -> None:
        """Write the book; it is always the same."""
        texts = [
            f"{subject} {verb} {number} {ending.format(number=number + 1)}"
            for subject in SUBJECTS.split("|")
            for verb in VERBS.split("|")
            for ending in ENDINGS
            for number in range(2, NUM_NUMBERS, 7)
        ]
        self.num_sentences = len(texts)
        texts += [f"So the answer is \\boxed{{{number}}}." for number in range(NUM_NUMBERS)]
        vocabulary: dict[str, int] = {"</s>": EOS}
        ids = [[vocabulary.setdefault(w, len(vocabulary)) for w in t.split()] for t in texts]
        self._texts = pa.array(texts)
        self._ids = pa.array(ids, pa.list_(pa.int32()))

    def read(self, sentences: IntArray, ends: IntArray) -> tuple[pa.Array, pa.ListArray]:
        """Return texts and token ids (without EOS) of rows of sentences; `ends` cuts the rows."""
        starts = np.concatenate([[0], ends])
        chosen = self._ids.take(pa.array(sentences))
        lengths = np.concatenate([[0], np.cumsum(chosen.value_lengths().to_numpy())])
        text_rows = pa.ListArray.from_arrays(starts.astype(np.int32), self._texts.take(sentences))
        texts = pc.binary_join(text_rows, "")
        return texts, pa.ListArray.from_arrays(lengths[starts].astype(np.int32), chosen.flatten())

    def last(self, numbers: IntArray) -> IntArray:
        """Return the sentences that state these numbers as the answer."""
        return self.num_sentences + numbers


class Problems:
    """Problems of one task with difficulties, answers, prompts and chains of sentences."""

    def __init__(self, book: Book, task: str, size: int, rng: np.random.Generator) -> None:
        """Draw the problems."""
        self.book, self.task, self.size = book, task, size
        self.ids = pa.array([f"{task}/{index}" for index in range(size)])
        self.difficulty = rng.normal(0.5, 1.0, size)
        self.answers = rng.integers(0, NUM_NUMBERS, size)
        self.chains = rng.integers(0, book.num_sentences, (size, 256))
        sentences = rng.integers(0, book.num_sentences, size * 4)
        self.prompts, self.prompt_ids = book.read(sentences, np.arange(1, size + 1) * 4)


def sample_table(
    place: Place,
    problems: Problems,
    chosen: IntArray,
    policy: Policy,
    *,
    group_size: int,
    num_tokens: int,
    rng: np.random.Generator,
) -> pa.Table:
    """Return a step's rows: `group_size` completions of each chosen problem, in group order."""
    index = np.repeat(chosen, group_size)
    rates = policy.success_rates(problems.difficulty[index])
    correct = rng.random(len(index)) < rates
    truncated = ~correct & (rng.random(len(index)) < 0.1)
    numbers = np.where(correct, problems.answers[index], _wrong(problems.answers[index], rng))
    texts, ids = _completions(problems, index, numbers, truncated, policy, num_tokens, rng)
    lengths = ids.value_lengths().to_numpy()
    logprobs = -rng.exponential(policy.entropy, int(lengths.sum())).astype(np.float32)
    ends = np.cumsum(lengths)
    group_ids = [
        f"{place.iteration}/{place.phase}/{place.step}/{problems.task}/{problem}"
        for problem in chosen.tolist()
    ]
    answers = pa.array(numbers).cast(pa.string())
    columns = {
        "run": place.run,
        "iteration": place.iteration,
        "phase": place.phase,
        "step": place.step,
        "policy": place.policy,
        "policy_version": max(0, place.step - 1),
        "task": problems.task,
        "problem_id": problems.ids.take(index),
        "group_id": pa.array(group_ids).take(np.repeat(np.arange(len(chosen)), group_size)),
        "member": np.tile(np.arange(group_size), len(chosen)),
        "prompt_ids": problems.prompt_ids.take(index),
        "completion_ids": ids,
        "behavior_logprobs": pa.ListArray.from_arrays(ids.offsets, pa.array(logprobs)),
        "question": problems.prompts.take(index),
        "prompt_text": problems.prompts.take(index),
        "completion_text": texts,
        "finish_reason": pa.array(np.where(truncated, "length", "stop")),
        "answer": pc.if_else(truncated, pa.scalar(None, pa.string()), answers),
        "reference": pa.array(problems.answers[index]).cast(pa.string()),
        "correct": correct,
        "verdict": pa.array(np.where(correct, "correct", "wrong")),
        "reason": pa.array(np.where(truncated, "no answer", np.where(correct, "", "another"))),
        "reward": correct.astype(float),
        "score": None,
        "rewards": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": rng.integers(0, 2**63, len(index)),
        "verifier_version": "numeric/1",
        "template_version": "synthetic",
        "completion_tokens": lengths,
        "behavior_logprob_sum": np.add.reduceat(logprobs, ends - lengths, dtype=np.float64),
        "completion_hash": _hashes(texts),
        "schema_version": SCHEMA_VERSION,
    }
    arrays = [_column(columns[field.name], field.type, len(index)) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _completions(
    problems: Problems,
    index: IntArray,
    numbers: IntArray,
    truncated: npt.NDArray[np.bool_],
    policy: Policy,
    num_tokens: int,
    rng: np.random.Generator,
) -> tuple[pa.Array, pa.ListArray]:
    """Return texts and token ids; those that are not truncated end in an answer and EOS."""
    longest = problems.chains.shape[1] - 1
    mean = max(1.0, num_tokens / WORDS_PER_SENTENCE - 1)
    counts = np.clip(rng.gamma(8.0, mean / 8.0, len(index)).astype(np.int64), 1, longest)
    rows = np.repeat(index, counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    own = problems.chains[rows, within]
    other = rng.integers(0, problems.book.num_sentences, len(own))
    body = np.where(rng.random(len(own)) < policy.narrowness, own, other)
    ends = np.cumsum(counts)
    finished = np.flatnonzero(~truncated)
    sentences = np.insert(body, ends[finished], problems.book.last(numbers[finished]))
    texts, ids = problems.book.read(sentences, ends + np.cumsum(~truncated))
    offsets = ids.offsets.to_numpy()
    values = np.insert(ids.flatten().to_numpy(), offsets[1:][finished], EOS)
    moved = offsets + np.concatenate([[0], np.cumsum(~truncated)])
    return texts, pa.ListArray.from_arrays(moved.astype(np.int32), pa.array(values))


def _wrong(answers: IntArray, rng: np.random.Generator) -> IntArray:
    """Return other answers, a few of them much more often than the rest."""
    return (answers + 1 + rng.geometric(0.3, len(answers))) % NUM_NUMBERS


def _hashes(texts: pa.Array) -> list[int]:
    digests = (hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts.to_pylist())
    return [int.from_bytes(digest, "little") for digest in digests]


def _column(values: object, kind: pa.DataType, length: int) -> pa.Array:
    if values is None or isinstance(values, str | int | float):
        return pa.repeat(pa.scalar(values, kind), length)
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
