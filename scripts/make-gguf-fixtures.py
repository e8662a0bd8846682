#!/usr/bin/env python3
"""Makes tests/fixtures/gguf: random blocks of every type that Quern reads, with what the package
`gguf` (pip) makes of them, and a small LLaMA file written by that package.

  python3 -m venv /tmp/venv && /tmp/venv/bin/pip install gguf numpy
  /tmp/venv/bin/python scripts/make-gguf-fixtures.py tests/fixtures/gguf
"""
import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
         "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
# Where a block has its float16 scales: random bytes there would be NaN or infinite at times.
HALVES = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "IQ4_NL": [0], "IQ4_XS": [0]}


def safetensors(path, tensors):
    """The format by its definition: length, JSON, data."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def blocks(out):
    rng = np.random.default_rng(1)
    tensors = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        count = 4 if weights == 256 else 8 if weights == 32 else 64
        raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for at in HALVES.get(name, []):
            scale = rng.uniform(-2, 2, count).astype(np.float16)
            raw[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
        if name in ("F32", "BF16"):
            values = rng.uniform(-2, 2, count).astype(np.float32)
            raw = values.view(np.uint8).reshape(count, 4)[:, 4 - size:].copy()
        floats = gguf.dequantize(raw, kind).astype(np.float32).reshape(-1)
        assert np.isfinite(floats).all(), name
        tensors[name + ".blocks"] = ("U8", raw.reshape(-1))
        tensors[name + ".floats"] = ("F32", floats)
    # What the package makes of floats, where it can quantize.
    values = rng.normal(0, 1, (8, 32)).astype(np.float32)
    tensors["values"] = ("F32", values.reshape(-1))
    for name in ("Q4_0", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        back = gguf.dequantize(gguf.quantize(values, kind), kind).astype(np.float32)
        tensors[name + ".requantized"] = ("F32", back.reshape(-1))
    safetensors(out / "blocks.safetensors", tensors)


def llama(out):
    """A LLaMA of two layers, its q and k permuted as llama.cpp's converter does it, beside the same
    tensors under the names and in the order of a Hugging Face checkpoint."""
    rng = np.random.default_rng(2)
    hidden, heads, kv, dim, ffn, layers, vocab = 32, 4, 2, 8, 64, 2, 262
    writer = gguf.GGUFWriter(out / "llama.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(dim)
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)] + ["\u2581", "a", "\u2581a"]
    types = [2, 3, 3] + [6] * 256 + [1] * 3
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores([0.0] * 259 + [-2.0, -3.0, -1.0])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    plain = {}

    def add(theirs, ours, shape, permute=0, norm=False):
        values = rng.normal(0, 0.1, shape).astype(np.float32 if norm else np.float16)
        plain[ours] = ("F32" if norm else "F16", values)
        if permute:
            values = (values.reshape(permute, 2, shape[0] // permute // 2, shape[1])
                      .swapaxes(1, 2).reshape(shape))
        writer.add_tensor(theirs, np.ascontiguousarray(values))

    add("token_embd.weight", "model.embed_tokens.weight", (vocab, hidden))
    for l in range(layers):
        b, m = f"blk.{l}.", f"model.layers.{l}."
        add(b + "attn_norm.weight", m + "input_layernorm.weight", (hidden,), norm=True)
        add(b + "attn_q.weight", m + "self_attn.q_proj.weight", (heads * dim, hidden), heads)
        add(b + "attn_k.weight", m + "self_attn.k_proj.weight", (kv * dim, hidden), kv)
        add(b + "attn_v.weight", m + "self_attn.v_proj.weight", (kv * dim, hidden))
        add(b + "attn_output.weight", m + "self_attn.o_proj.weight", (hidden, heads * dim))
        add(b + "ffn_norm.weight", m + "post_attention_layernorm.weight", (hidden,), norm=True)
        add(b + "ffn_gate.weight", m + "mlp.gate_proj.weight", (ffn, hidden))
        add(b + "ffn_up.weight", m + "mlp.up_proj.weight", (ffn, hidden))
        add(b + "ffn_down.weight", m + "mlp.down_proj.weight", (hidden, ffn))
    add("output_norm.weight", "model.norm.weight", (hidden,), norm=True)
    add("output.weight", "lm_head.weight", (vocab, hidden))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    safetensors(out / "llama.safetensors", plain)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    blocks(folder)
    llama(folder)
