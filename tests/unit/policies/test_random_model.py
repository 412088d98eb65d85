import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rloop.errors import EngineError
from rloop.policies.random_model import (
    CHARACTERS,
    character_tokenizer,
    write_random_model,
)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_random_model_is_small_and_loads_in_transformers(tmp_path, family):
    write_random_model(family, tmp_path / "base", seed=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.config.model_type == family
    assert model.dtype is torch.float32
    # A layer of Llama: 128 * (128 + 64 + 64 + 128) + 3 * 128 * 384 + 2 * 128 = 196,864; four of
    # them, 100 tokens * 128 and the last norm's 128 make 800,384. Qwen adds biases or norms.
    assert 800_384 <= model.num_parameters() < 803_000
    names = sorted(file.name for file in (tmp_path / "base").iterdir())
    assert "model.safetensors" in names
    assert not any(name.endswith(".bin") for name in names)


def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_random_model("llama-2x64", tmp_path / folder, seed=seed)
    a, b, c = ((tmp_path / f / "model.safetensors").read_bytes() for f in "abc")
    assert a == b
    assert a != c


def test_making_a_model_leaves_the_global_random_stream_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    write_random_model("qwen3-1x32", tmp_path / "m", seed=0)
    assert torch.equal(torch.rand(4), expected)


def test_layers_and_width_can_be_chosen(tmp_path):
    write_random_model("qwen2-2x64", tmp_path / "m", seed=0)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "m").config
    assert (config.num_hidden_layers, config.hidden_size) == (2, 64)
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 1)


@pytest.mark.parametrize("name", ["gpt2", "", "llama-2x50", "llama-0x64", "llama2x64", "llama-x"])
def test_unknown_random_model_names_the_known_ones(tmp_path, name):
    with pytest.raises(EngineError, match="random:llama, random:qwen2 or random:qwen3") as caught:
        write_random_model(name, tmp_path / "m", seed=0)
    assert f"random:{name} " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_characters_come_back_as_they_went_in(tmp_path):
    character_tokenizer().save_pretrained(tmp_path)
    for tokenizer in (character_tokenizer(), AutoTokenizer.from_pretrained(tmp_path)):
        ids = tokenizer(CHARACTERS)["input_ids"]
        assert len(ids) == 96  # 95 printable ASCII characters and the newline
        assert len(set(ids)) == 96
        assert tokenizer.decode(ids) == CHARACTERS
        assert tokenizer.decode([*tokenizer("a  b")["input_ids"], 2], skip_special_tokens=True) == (
            "a  b"
        )
        assert tokenizer("\u00e9")["input_ids"] == [tokenizer.unk_token_id]


def test_chat_template_works_with_and_without_a_system_message(tmp_path):
    character_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    user = {"role": "user", "content": "1+1=?"}

    def render(*messages, generate=True):
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generate
        )

    assert render(user) == "<bos>Q:1+1=?\nA:"
    assert render({"role": "system", "content": "Add."}, user) == "<bos>Add.\nQ:1+1=?\nA:"
    answered = render(user, {"role": "assistant", "content": "2"}, generate=False)
    assert answered == "<bos>Q:1+1=?\nA:2<eos>\n"
    ids = tokenizer(render(user), add_special_tokens=False)["input_ids"]
    # <bos>, then 10 characters: Q : 1 + 1 = ? newline A :
    assert (ids[0], len(ids)) == (tokenizer.bos_token_id, 11)
