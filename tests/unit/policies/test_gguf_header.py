"""GGUF headers: as the gguf package wrote them, as its own reader reads them, and damaged."""

import time

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from rloop.policies.gguf_header import read_gguf_header
from rloop.policies.model_files import measure_model

SCALARS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
TENSORS = {
    "token_embd.weight": (50, 8),
    "blk.0.attn_q.weight": (12, 8),
    "blk.0.attn_k.weight": (4, 8),
    "output_norm.weight": (8,),
}


@pytest.fixture
def path(tmp_path):
    """Return a file with a value of each type before, between and after arrays."""
    found = tmp_path / "model.gguf"
    writer = GGUFWriter(found, "llama")
    for number, name in enumerate(SCALARS):
        getattr(writer, f"add_{name}")(f"a.{name}", 100 + number)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "", "fr\u00fch", "a" * 300])
    writer.add_float32("a.float32", 0.5)
    writer.add_array("tokenizer.ggml.scores", [0.25, 1.5, -2.0])
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", val=True)
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(20)
    for name, shape in TENSORS.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def test_values_and_shapes_are_those_that_the_gguf_package_reads(path):
    reader, header = GGUFReader(path), read_gguf_header(path, vocabulary=True)
    known = {name: field.contents() for name, field in reader.fields.items()}
    known = {name: value for name, value in known.items() if not name.startswith("GGUF.")}
    assert header.values == known
    assert header.values["tokenizer.ggml.tokens"] == ["<s>", "", "fr\u00fch", "a" * 300]
    known["tokenizer.ggml.tokens"] = None
    assert read_gguf_header(path).values == known
    assert header.values["a.int64"] == 107
    assert header.values["a.float64"] == 0.1
    assert header.shapes == {t.name: t.shape.tolist()[::-1] for t in reader.tensors}
    assert header.shapes["token_embd.weight"] == [50, 8]
    size = measure_model(str(path))
    assert size is not None
    # 50 x 8 + 12 x 8 + 4 x 8 + 8 = 536
    assert (size.parameters, size.query_width, size.kv_width, size.vocabulary) == (536, 12, 4, 50)


def test_a_file_cut_anywhere_in_its_header_is_refused_and_has_no_size(path):
    whole = path.read_bytes()
    end = GGUFReader(path).data_offset - 32  # the header's end is padded to 32 bytes at most
    for length in range(end):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"truncated or damaged|cannot mmap an empty file|begins"
        ):
            read_gguf_header(path)
    assert measure_model(str(path)) is None


def test_any_flipped_byte_is_read_or_refused_in_time(path):
    whole = bytearray(path.read_bytes())
    num_bytes, refused = GGUFReader(path).data_offset, set()
    begin = time.perf_counter()
    for place in range(num_bytes):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_gguf_header(path)
        except ValueError:
            refused.add(place)
    # magic and version are refused, and so are counts in their high bytes, without a try to read
    # as many; a letter of a name or a value is another one
    assert refused >= {*range(8), 15, 23}
    assert len(refused) < num_bytes
    assert time.perf_counter() - begin < 60


def test_what_is_no_gguf_or_of_another_version_is_named(path):
    whole = path.read_bytes()
    path.write_bytes(b"GGML" + whole[4:])
    with pytest.raises(ValueError, match="begins with b'GGML'"):
        read_gguf_header(path)
    path.write_bytes(whole[:4] + (1).to_bytes(4, "little") + whole[8:])
    with pytest.raises(ValueError, match="version 1"):
        read_gguf_header(path)
