"""How completions end, and which of their special tokens a verifier sees."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_policies import chat_tokenizer, make_problem, write_policy

from rloop.engines.base import SampleRequest
from rloop.engines.native import attention
from rloop.engines.native.sampler import Sampler
from rloop.errors import EngineError
from rloop.policies.checkpoint import LoadedPolicy, load_policy
from rloop.policies.renderer import find_turn_end, turn_end_warnings
from rloop.recipe.config import PromptConfig, SamplingConfig
from rloop.types import Problem

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
START, END, THINK, UNTHINK = 100, 101, 102, 103
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
BOS, EOS, PAD = 1, 2, 0


def load(path: Path, **prompt: Any) -> LoadedPolicy:
    return load_policy(
        path,
        dtype=torch.float32,
        device=torch.device("cpu"),
        trust_remote_code=False,
        attn_implementation=attention.register(),
        prompt=PromptConfig.model_validate(prompt),
    )


@pytest.fixture
def policy(tmp_path: Path) -> LoadedPolicy:
    """A base model whose EOS is `<eos>` while its chat template ends a turn with `<|im_end|>`."""
    tokenizer = chat_tokenizer(*SPECIAL, template=CHATML)
    return load(write_policy(tmp_path / "base", tokenizer, num_rows=104))


def solved(solution: str) -> Problem:
    problem = make_problem(3)
    return Problem(
        problem_id=problem.problem_id,
        task=problem.task,
        question=problem.question,
        answer="4",
        verifier="exact",
        solution=solution,
    )


# The end of a turn


def test_the_chat_templates_end_of_a_turn_is_an_end(policy):
    assert policy.stop_ids == (EOS, END)
    assert policy.renderer.end_id == END


def test_a_completion_stops_at_the_end_of_a_turn(policy):
    policy.head.register_forward_hook(
        lambda _module, _inputs, logits: logits.index_fill(-1, torch.tensor([END]), 50.0)
    )
    prompt = policy.renderer.prompt(make_problem(3))
    settings = SamplingConfig(max_completion_tokens=8)
    sampler = Sampler(policy, max_batch=2, prefill_tokens=64, is_fused=False)
    ((_, found),) = sampler.sample([SampleRequest(prompt.ids, seed=1)], settings)
    assert found.completion_ids == (END,)
    assert found.finish_reason == "stop"
    assert policy.renderer.decode(found.completion_ids) == ""


def test_a_cold_start_trains_the_end_of_a_turn(policy):
    (example,) = policy.renderer.examples([solved("so 4")], "{solution}")
    assert policy.renderer.tokenizer.decode(list(example.completion_ids)) == "so 4<|im_end|>"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("Q:{problem}\nA:", EOS),
        ("<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n", END),
    ],
)
def test_a_template_of_the_recipe_ends_a_turn_as_the_chat_template_only_where_it_writes_that(
    tmp_path, template, end
):
    tokenizer = chat_tokenizer(*SPECIAL, template=CHATML)
    path = write_policy(tmp_path / "base", tokenizer, num_rows=104)
    assert load(path, template=template).renderer.end_id == end


def test_all_ends_in_a_generation_config_count(tmp_path):
    path = write_policy(tmp_path / "base", chat_tokenizer(*SPECIAL), num_rows=104)
    file = path / "generation_config.json"
    content = json.loads(file.read_text()) | {"eos_token_id": [EOS, START]}
    file.write_text(json.dumps(content))
    policy = load(path)
    assert policy.stop_ids == (EOS, START)
    assert policy.renderer.end_id == EOS  # the template of the character tokenizer writes EOS


def test_a_turn_end_that_is_no_token_is_warned_of_with_both(tmp_path):
    template = CHATML.replace("<|im_end|>", "<turn over>")
    tokenizer = chat_tokenizer(template=template)
    (warning,) = turn_end_warnings(tokenizer, PromptConfig())
    assert "'<turn over>'" in warning
    assert "'<eos>'" in warning
    policy = load(write_policy(tmp_path / "base", tokenizer, num_rows=100))
    assert warning in policy.renderer.report([make_problem(3)]).warnings
    assert policy.stop_ids == (EOS,)


def test_a_turn_end_without_an_embedding_is_warned_of_and_not_trained(tmp_path):
    tokenizer = chat_tokenizer(*SPECIAL, template=CHATML)
    path = write_policy(tmp_path / "base", tokenizer, num_rows=101)
    assert load(path).renderer.end_id == EOS
    warnings = load(path, template="{problem}").renderer.report([make_problem(3)]).warnings
    assert not any("ends a turn" in warning for warning in warnings)
    (warning,) = turn_end_warnings(tokenizer, PromptConfig(), num_embeddings=101)
    assert "'<|im_end|>'" in warning


def test_a_template_that_ends_no_turn_says_nothing():
    tokenizer = chat_tokenizer(template="{% for m in messages %}{{ m.content }}{% endfor %}")
    assert find_turn_end(tokenizer, PromptConfig()) is None
    assert turn_end_warnings(tokenizer, PromptConfig()) == []


# Special tokens that are text


def test_tags_that_are_special_tokens_are_seen_and_the_frame_is_not(policy):
    ids = policy.renderer.tokenizer("<think>7?</think>8", add_special_tokens=False)["input_ids"]
    assert ids[0] == THINK
    assert policy.renderer.decode([*ids, END]) == "<think>7?</think>8"
    assert policy.renderer.decode([BOS, START, *ids, EOS, PAD, PAD]) == "<think>7?</think>8"


def test_without_tags_the_text_is_that_of_transformers(policy):
    tokenizer = policy.renderer.tokenizer
    ids = [START, *tokenizer("so 4", add_special_tokens=False)["input_ids"], 3, END]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "so 4"
    assert policy.renderer.decode(ids) == "so 4"


def test_an_end_that_is_no_special_token_is_not_text(tmp_path):
    tokenizer = chat_tokenizer(template=CHATML)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    policy = load(write_policy(tmp_path / "base", tokenizer, num_rows=102))
    assert policy.renderer.end_id == END
    ids = policy.renderer.tokenizer("4", add_special_tokens=False)["input_ids"]
    assert policy.renderer.decode([*ids, END]) == "4"


def test_tags_that_a_default_system_text_explains_are_still_seen(tmp_path):
    template = "{{ 'Think in <think></think>.\n' }}" + CHATML
    tokenizer = chat_tokenizer(*SPECIAL, template=template)
    policy = load(write_policy(tmp_path / "base", tokenizer, num_rows=104))
    assert policy.renderer.decode([THINK, UNTHINK, END]) == "<think></think>"


# Tokens and embeddings


def test_a_tokenizer_with_a_token_beyond_the_embedding_runs_and_says_so(tmp_path):
    tokenizer = chat_tokenizer("<image>")
    policy = load(write_policy(tmp_path / "base", tokenizer, num_rows=100))
    report = policy.renderer.report([make_problem(3)])
    assert len(report.kept) == 1
    assert any(
        "101 tokens" in warning and "100 embeddings" in warning for warning in report.warnings
    )
    with pytest.raises(EngineError, match="solution of toy/train/3 has the token 100"):
        policy.renderer.examples([solved("<image>")], "{solution}")


def test_a_solution_beyond_the_context_is_refused_with_both_numbers(tmp_path):
    tokenizer = chat_tokenizer()
    path = write_policy(tmp_path / "base", tokenizer, num_rows=100, max_position_embeddings=40)
    renderer = load(path).renderer
    # the prompt is <bos>Q:3+1=\nA: of 10 tokens: 10 + 29 + EOS = 40 fits, one more does not
    assert renderer.examples([solved("x" * 29)], "{solution}")
    with pytest.raises(EngineError, match="have 41 tokens, more than the 40"):
        renderer.examples([solved("x" * 30)], "{solution}")


def test_a_report_has_the_first_prompt_the_longest_and_the_context(tmp_path):
    path = write_policy(
        tmp_path / "base", chat_tokenizer(), num_rows=100, max_position_embeddings=40
    )
    problems = [make_problem(3), make_problem(1000), make_problem(10**40)]
    report = load(path, max_tokens=20).renderer.report(problems)
    assert report.first == "<bos>Q:3+1=\nA:"
    assert report.longest == (problems[1], 13)
    assert [problem for problem, _ in report.too_long] == problems[2:]
    assert report.context == 40
