"""Writes GGUF files of a shape with random weights: speed does not depend on what they are.

Blocks are random bytes under small scales, so a file is made about as fast as the disk takes it.
"""
import argparse
import os
import random
import struct

HALF = struct.pack("<e", 0.002)  # a scale that keeps activations finite

# (id, weights, layout): layout lists fixed bytes, or a number of random bytes.
TYPES = {
    "F32": (0, 1, None),
    "F16": (1, 1, None),
    "Q4_0": (2, 32, [HALF, 16]),
    "Q8_0": (8, 32, [struct.pack("<e", 0.0001), 32]),
    "Q4_K": (12, 256, [struct.pack("<ee", 0.0001, 0.0001), 12 + 128]),
    "Q6_K": (14, 256, [128 + 64, bytes([3] * 16), struct.pack("<e", 0.0003)]),
    "BF16": (30, 1, None),
}


def block_bytes(layout):
    return sum(part if isinstance(part, int) else len(part) for part in layout)


def chunk_of(kind, rng, weights):
    """Bytes of at most `weights` weights, to be repeated."""
    _, per_block, layout = TYPES[kind]
    if kind == "F32":
        return struct.pack("<f", 1.0) * weights
    if kind in ("F16", "BF16"):
        half = [rng.gauss(0, 0.02) for _ in range(4096)]
        pack = (lambda v: struct.pack("<e", v)) if kind == "F16" else (
            lambda v: struct.pack("<f", v)[2:])
        return b"".join(pack(v) for v in half) * (weights // 4096)
    out = bytearray()
    for _ in range(weights // per_block):
        for part in layout:
            out += rng.randbytes(part) if isinstance(part, int) else part
    return bytes(out)


def tensor_bytes(kind, count):
    _, per_block, layout = TYPES[kind]
    width = {"F32": 4, "F16": 2, "BF16": 2}.get(kind)
    return count * width if width else count // per_block * block_bytes(layout)


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def write(path, kind, layers, hidden, ffn, heads, vocab, context):
    """Architecture `qwen`: what Qwen-7B is. `kind`: a type, or Q4_K_M for llama.cpp's mixture."""
    mixed = kind == "Q4_K_M"

    def type_of(name, layer):
        if name.endswith("_norm.weight") or name.endswith(".bias"):
            return "F32"
        if not mixed:
            return kind
        more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        if name == "output.weight" or ("ffn_down" in name and more):
            return "Q6_K"
        return "Q4_K"

    tensors = [("token_embd.weight", (hidden, vocab), -1)]
    for layer in range(layers):
        for name, shape in (
            ("attn_norm.weight", (hidden,)), ("attn_qkv.weight", (hidden, 3 * hidden)),
            ("attn_qkv.bias", (3 * hidden,)), ("attn_output.weight", (hidden, hidden)),
            ("ffn_norm.weight", (hidden,)), ("ffn_gate.weight", (hidden, ffn)),
            ("ffn_up.weight", (hidden, ffn)), ("ffn_down.weight", (ffn, hidden))):
            tensors.append((f"blk.{layer}.{name}", shape, layer))
    tensors += [("output_norm.weight", (hidden,), -1), ("output.weight", (hidden, vocab), -1)]

    u32 = lambda key, value: string(key) + struct.pack("<II", 4, value)
    f32 = lambda key, value: string(key) + struct.pack("<If", 6, value)
    text = lambda key, value: string(key) + struct.pack("<I", 8) + string(value)
    array = lambda key, kind, items: (
        string(key) + struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items))
    head_dim = hidden // heads
    # A vocabulary that is read but never used: bytes in GPT-2's alphabet, then made-up tokens.
    letters = [c for c in range(256) if 33 <= c <= 126 or 161 <= c <= 172 or 174 <= c <= 255]
    letters = [chr(c) for c in letters] + [chr(256 + i) for i in range(256 - len(letters))]
    tokens = letters + ["ab"] + [f"<t{i}>" for i in range(vocab - 257)]
    keys = [
        text("general.architecture", "qwen"), text("general.name", f"random {kind}"),
        u32("qwen.block_count", layers), u32("qwen.embedding_length", hidden),
        u32("qwen.feed_forward_length", 2 * ffn), u32("qwen.attention.head_count", heads),
        u32("qwen.attention.head_count_kv", heads), u32("qwen.rope.dimension_count", head_dim),
        f32("qwen.attention.layer_norm_rms_epsilon", 1e-6), f32("qwen.rope.freq_base", 10000.0),
        u32("qwen.context_length", context), text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "qwen2"),
        array("tokenizer.ggml.tokens", 8, [string(t) for t in tokens]),
        array("tokenizer.ggml.token_type", 5,
              [struct.pack("<i", 1)] * 257 + [struct.pack("<i", 4)] * (vocab - 257)),
        array("tokenizer.ggml.merges", 8, [string("a b")]),
        u32("tokenizer.ggml.eos_token_id", vocab - 1),
        u32("tokenizer.ggml.bos_token_id", vocab - 1),
    ]
    align = 32
    table, offset = [], 0
    for name, shape, layer in tensors:
        count = 1
        for dim in shape:
            count *= dim
        kind_of = type_of(name, layer)
        size = tensor_bytes(kind_of, count)
        table.append((name, shape, kind_of, count, size, offset))
        offset += (size + align - 1) // align * align
    rng = random.Random(1)
    chunks = {}
    with open(path + ".part", "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(keys)) + b"".join(keys))
        for name, shape, kind_of, _, _, at in table:
            out.write(string(name) + struct.pack("<I", len(shape)))
            out.write(struct.pack(f"<{len(shape)}Q", *shape))
            out.write(struct.pack("<IQ", TYPES[kind_of][0], at))
        out.write(b"\0" * (-out.tell() % align))
        step = 1 << 20  # weights of a chunk
        for name, _, kind_of, count, size, _ in table:
            if kind_of == "F32":
                value = 0.0 if name.endswith(".bias") else 1.0
                out.write(struct.pack("<f", value) * count)
            else:
                if kind_of not in chunks:
                    chunks[kind_of] = chunk_of(kind_of, rng, step)
                chunk, left = chunks[kind_of], size
                while left > 0:
                    out.write(chunk[:left])
                    left -= len(chunk)
            out.write(b"\0" * (-size % align))
    os.replace(path + ".part", path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--type", default="Q4_0", choices=[*TYPES, "Q4_K_M"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--ffn", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--context", type=int, default=32768)
    args = parser.parse_args()
    write(args.out, args.type, args.layers, args.hidden, args.ffn, args.heads, args.vocab,
          args.context)
