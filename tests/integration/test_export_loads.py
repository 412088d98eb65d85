"""A policy of the native engine, exported: its card's own code loads it and lets it write."""

import re
from typing import Any

import pytest
import torch
from doubles_runs import begin, toy_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from rloop.engines.registry import build_engine
from rloop.report.export import export_policy


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_exported_policy_is_unchanged_and_its_card_runs(
    tmp_path, monkeypatch, capsys, temperature
):
    settings = {"max_completion_tokens": 16, "temperature": temperature}
    recipe = toy_recipe(
        tmp_path,
        iterations=1,
        expert=None,
        finetune=None,
        explore__steps=1,
        evaluate__sampling=settings,
        prompt={"template": 'Say "{problem}"\n', "suffix": " = ?"},
    )
    code, run_dir = begin(recipe, tmp_path, build_engine)
    assert code == 0
    source = export_policy(run_dir, tmp_path / "mine")
    assert source == run_dir / "policies/explored-001"
    for file in source.iterdir():
        assert (tmp_path / "mine" / file.name).read_bytes() == file.read_bytes()
    card = (tmp_path / "mine/README.md").read_text()
    assert "This is the policy as RL left it in iteration 1 of 1" in card
    shown, for_vllm = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(for_vllm, "vLLM's", "exec")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    exec(shown, scope)
    assert scope["prompt"] == 'Say "What is 7 + 5? = ?"\n'
    model: Any = AutoModelForCausalLM.from_pretrained("mine")
    tokenizer = AutoTokenizer.from_pretrained("mine")
    ids = tokenizer(scope["prompt"], return_tensors="pt")["input_ids"]
    torch.manual_seed(0)
    options = {"temperature": 0.7, "top_p": 1.0, "top_k": 0} if temperature else {}
    written = model.generate(ids, max_new_tokens=16, do_sample=temperature > 0, **options)
    expected = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    assert capsys.readouterr().out == f"{expected}\n"
