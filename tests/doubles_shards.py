"""A process of `accelerate launch` that trains in shards of FSDP2 on a CPU: `... RECIPE FOLDER`.

accelerate makes replicas on CPUs; here its state is told that it shards, and the rest is its own
code and the engine's: prepare, gather, copy into a plain model, save.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from rloop.config import Recipe
from rloop.engines.trl.crew import Crew
from rloop.engines.trl.inference import Inference, plain_state
from rloop.engines.trl.messages import SavePolicy
from rloop.types import PolicyRef

IDS = torch.arange(2, 10)[None]


def main(recipe: Recipe, folder: Path) -> None:
    start = PolicyRef(path=folder / "base", name="base")
    # Its options come from what `accelerate launch` made of the preset.
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, str(plugin.state_dict_type)) == (2, SHARDED), plugin
    accelerator = Accelerator(cpu=True)
    for state in (PartialState, AcceleratorState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = plugin
    model = AutoModelForCausalLM.from_pretrained(start.path)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    weight = next(model.parameters())
    assert isinstance(weight, DTensor)
    assert 2 * weight.to_local().numel() == weight.numel()
    accelerator.backward(model(input_ids=IDS, labels=IDS).loss)
    optimizer.step()
    crew = Crew(None)
    inference = Inference(recipe, crew, torch.device("cpu"))
    gathered = accelerator.get_state_dict(model)
    policy = inference.copy(start, 1, lambda: plain_state(gathered, None))
    inference.save(policy, SavePolicy(directory=folder / "saved", name="saved"), start)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    if crew.rank == 0:
        torch.save(logits, folder / "logits.pt")
    crew.wait()


SHARDED = "StateDictType.SHARDED_STATE_DICT"

if __name__ == "__main__":
    main(Recipe.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
