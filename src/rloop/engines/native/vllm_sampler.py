"""vLLM in the place of the native sampler: the same requests in, the same completions out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.vllm_model import VllmModel
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

SEED_BITS = 63
"""vLLM takes seeds as signed 64-bit numbers."""


@dataclass(frozen=True, slots=True)
class VllmSampler:
    """Samples from one policy in memory with a vLLM that outlives it.

    A seed gives the same completion again from the same vLLM among the same requests; alone or in
    other company, where rounding does not change with the number of rows. It is never the native
    sampler's: the two draw differently from the same distribution.
    """

    policy: LoadedPolicy
    vllm: VllmModel

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        The policy's weights of this moment are handed over first. Log-probabilities are those at
        the temperature over the whole vocabulary, before top-p and top-k.
        """
        if not requests:
            return
        self.vllm.take_weights(self.policy.model)
        written = self.vllm.write(
            [request.prompt_ids for request in requests],
            [request.seed % 2**SEED_BITS for request in requests],
            settings,
            stop_ids=self.policy.stop_ids,
        )
        for index, ids, logprobs in written:
            is_stop = ids[-1] in self.policy.stop_ids
            yield index, Sampled(ids, logprobs, "stop" if is_stop else "length")
