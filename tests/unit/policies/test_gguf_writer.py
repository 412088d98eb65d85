"""Policies as GGUF files, read back by transformers and by rloop itself."""

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from rloop.errors import ConfigError, EngineError
from rloop.policies.gguf import convert_gguf
from rloop.policies.gguf_writer import SPLITTERS, write_gguf
from rloop.policies.random_model import write_random_model

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = "It's 12 + 345 = 357, isn't it?\n\n  Yes: x^2 is \\frac{1}{2}.\tNa\u00efve caf\u00e9"
WIDTHS = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


def split(name):
    parts = next(parts for parts, found in SPLITTERS.items() if found == name)
    steps = {
        "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        "words and bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "digits": pre_tokenizers.Digits(individual_digits=True),
    }
    return pre_tokenizers.Sequence(
        [steps.get(part) or pre_tokenizers.Split(Regex(part), "isolated") for part in parts]
    )


def tokenizer_split_as(name):
    backend = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    backend.pre_tokenizer = split(name)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )


@pytest.fixture
def policy(tmp_path):
    """Return what writes a tiny policy; its vectors are not all ones or zeros."""

    def write(kind="llama", name="qwen2", dtype=torch.float32, **changes):
        tokenizer = tokenizer_split_as(name)
        options = {
            "vocab_size": len(tokenizer) + 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "eos_token_id": tokenizer.eos_token_id,
        }
        config = AutoConfig.for_model(kind, **(WIDTHS | options | changes))
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        folder = tmp_path / "policy"
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return write


def logits(folder, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with torch.no_grad():
        return model(torch.tensor([[1, 70, 80, 90, 260, 2]])).logits


@pytest.mark.parametrize(
    ("kind", "name", "changes"),
    [
        ("llama", "smollm", {"tie_word_embeddings": True}),
        ("llama", "llama-bpe", {"num_key_value_heads": 4}),
        ("llama", "gpt-2", {"num_key_value_heads": 1}),
        ("qwen2", "qwen2", {"tie_word_embeddings": True}),
        ("qwen3", "qwen2", {"head_dim": 128}),  # the only width that transformers reads
    ],
)
def test_transformers_reads_the_same_model_tokenizer_and_template(
    policy, tmp_path, kind, name, changes
):
    folder = policy(kind, name, **changes)
    write_gguf(folder, tmp_path / "x.gguf", "f32", name="toy iter-001")
    # The file keeps the norms' epsilon in float32.
    torch.testing.assert_close(
        logits(tmp_path, gguf_file="x.gguf"), logits(folder), rtol=1e-4, atol=1e-5
    )
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert theirs.chat_template == TEMPLATE
    text = f"<|im_start|>{TEXT}<|im_end|>"
    ids = ours(text)["input_ids"]
    assert theirs.decode(ids) == text
    assert [theirs.convert_ids_to_tokens(i) for i in ids] == ours.convert_ids_to_tokens(ids)
    header = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert header["tokenizer.ggml.pre"].contents() == name
    assert header["general.name"].contents() == "toy iter-001"
    assert header["tokenizer.ggml.add_bos_token"].contents() is False
    assert header["tokenizer.ggml.tokens"].contents()[-4:] == [
        f"[PAD{i}]" for i in range(len(ours), len(ours) + 4)
    ]


def test_rloop_reads_its_own_file_to_the_bit(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path / "cache"))
    folder = policy(name="smollm", dtype=torch.bfloat16)
    write_gguf(folder, tmp_path / "new/x.gguf", "bf16", name="toy")
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    found = AutoModelForCausalLM.from_pretrained(convert_gguf(tmp_path / "new/x.gguf"))
    assert all(torch.equal(found.state_dict()[name], weight) for name, weight in weights.items())
    tokenizer = AutoTokenizer.from_pretrained(convert_gguf(tmp_path / "new/x.gguf"))
    assert tokenizer(TEXT)["input_ids"] == AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_smaller_types_round_as_they_say(policy, tmp_path, kind):
    folder = policy()
    write_gguf(folder, tmp_path / "x.gguf", kind, name="toy")
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    exact = weights["model.layers.1.mlp.up_proj.weight"].numpy()
    stored = found["blk.1.ffn_up.weight"]
    read = gguf.quants.dequantize(stored.data, stored.tensor_type)
    if kind == "f16":
        assert np.array_equal(read, exact.astype(np.float16).astype(np.float32))
    else:
        # 32 numbers share a scale of largest / 127, kept in float16
        largest = np.abs(exact.reshape(-1, 32)).max(axis=1, keepdims=True)
        error = np.abs(read - exact).reshape(-1, 32)
        assert (error <= largest / 127 * 0.5 + largest * 2.0**-11 + 1e-9).all()
        assert error.max() > 0
    norm = found["output_norm.weight"]
    assert norm.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(norm.data, weights["model.norm.weight"].numpy())


def test_positions_scaled_as_in_llama_3_divide_the_frequencies(policy, tmp_path):
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    folder = policy(name="llama-bpe", rope_parameters=scaling)
    write_gguf(folder, tmp_path / "x.gguf", "f32", name="toy")
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    plain = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)
    scaled = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb.inv_freq
    factors = torch.tensor(found["rope_freqs.weight"].data)
    torch.testing.assert_close(factors, plain / scaled)
    assert factors[[0, -1]].tolist() == [1.0, 8.0]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("gemma", {}, "is of the kind gemma"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "scales its positions by linear",
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
            "attends over a sliding window",
        ),
    ],
)
def test_models_that_llama_cpp_would_read_otherwise_are_refused(
    policy, tmp_path, kind, changes, words
):
    with pytest.raises(EngineError, match=rf"{words}.* Convert the directory with"):
        write_gguf(policy(kind, **changes), tmp_path / "x.gguf", "f32", name="toy")
    assert not (tmp_path / "x.gguf").exists()


def test_a_tokenizer_without_a_name_in_llama_cpp_is_refused(tmp_path):
    write_random_model("llama-1x32", tmp_path / "policy", seed=0)
    with pytest.raises(EngineError, match=r"not split as those of GPT-2, Llama 3, Qwen2 or SmolLM"):
        write_gguf(tmp_path / "policy", tmp_path / "x.gguf", "f32", name="toy")


def test_a_weight_that_f16_cannot_hold_is_refused_and_leaves_nothing(policy, tmp_path):
    folder = policy()
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 70_000.0
    model.save_pretrained(folder)
    with pytest.raises(EngineError, match=r"blk\.0\.ffn_up\.weight.* 70000\. Choose bf16 or f32"):
        write_gguf(folder, tmp_path / "x.gguf", "f16", name="toy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy"]
    write_gguf(folder, tmp_path / "x.gguf", "bf16", name="toy")
    with pytest.raises(ConfigError, match=r"x\.gguf exists"):
        write_gguf(folder, tmp_path / "x.gguf", "bf16", name="toy")
