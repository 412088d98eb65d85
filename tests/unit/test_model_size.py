"""Model sizes from file headers."""

import json

from rloop.model_size import ModelSize, measure_model

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
    write_shard(tmp_path / "model-2.safetensors", up=[20, 8])
    # 50 x 8 + 8 + 20 x 8 = 568; kv width 2 heads x (8 / 4) = 4
    assert measure_model(str(tmp_path)) == ModelSize(
        parameters=568, layers=3, width=8, inner_width=20, kv_width=4, vocabulary=50
    )


def test_a_head_width_of_its_own_counts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"head_dim": 16}))
    write_shard(tmp_path / "model.safetensors", norm=[8])
    size = measure_model(str(tmp_path))
    assert size is not None
    assert size.kv_width == 32  # 2 heads x 16


def test_what_is_not_here_or_cannot_be_told_has_no_size(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert measure_model(str(tmp_path)) is None  # no weights
    write_shard(tmp_path / "model.safetensors", norm=[8])
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 8}))
    assert measure_model(str(tmp_path)) is None  # sizes under other names
    assert measure_model("random:llama") is None
    assert measure_model("package:no-such-package") is None
    assert measure_model("nobody/no-such-model-here") is None
