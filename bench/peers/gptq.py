"""GPTQ of one block of the 7B shape: `quern quantize` beside PyTorch doing the same steps.

    pip install torch==2.13.0 safetensors numpy
    python bench/peers/gptq.py --quern build/release/quern --tokenizer qwen.tiktoken \
        --calibration text.txt --work /tmp/gptq [--samples 128] [--length 512]

A random checkpoint with one block is made once. PyTorch's time is that of the block: the
calibration text through it in float32, second moments of each matrix's inputs (once for matrices
that share them), the inverse's factor, and the columns in blocks of 128. Quern's is from its start
until the block lies in the folder of what is done, and until the command has written all 2.6 GB.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

CONFIG = {
    "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "hidden_size": 4096,
    "intermediate_size": 22016, "kv_channels": 128, "num_attention_heads": 32,
    "num_hidden_layers": 1, "vocab_size": 151936, "seq_length": 8192, "no_bias": True,
    "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "rotary_pct": 1.0,
    "use_dynamic_ntk": True, "use_logn_attn": True, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
GROUP, BITS, BLOCK = 128, 4, 128


def solve(torch, weight, moments):
    """The columns of `weight` [rows, cols] one after another; what they compute with afterwards."""
    weight = weight.clone()
    rows, cols = weight.shape
    moments = moments.clone()
    diagonal = moments.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    diagonal += 0.01 * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    quantized = torch.empty_like(weight)
    top = 2**BITS - 1
    for begin in range(0, cols, BLOCK):
        end = min(begin + BLOCK, cols)
        block = weight[:, begin:end].clone()
        errors = torch.empty_like(block)
        factor = upper[begin:end, begin:end]
        for i in range(end - begin):
            if (begin + i) % GROUP == 0:
                most = weight[:, begin + i : begin + i + GROUP].abs().amax(1)
                scale = 2 * most / top
            column = block[:, i]
            level = torch.clamp(torch.round(column / scale) + (top + 1) / 2, 0, top)
            back = scale * (level - (top + 1) / 2)
            quantized[:, begin + i] = back
            error = (column - back) / factor[i, i]
            block[:, i:] -= torch.outer(error, factor[i, i:])
            errors[:, i] = error
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return quantized


def peer(checkpoint, samples, length):
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    tensors = load_file(checkpoint / "model.safetensors")
    name = "transformer.h.0."
    w = {key[len(name):-len(".weight")]: value.float() for key, value in tensors.items()
         if key.startswith(name) and key.endswith(".weight")}
    bias = tensors[name + "attn.c_attn.bias"].float()
    ids = torch.randint(0, 151000, (samples, length), generator=torch.Generator().manual_seed(1))
    x = tensors["transformer.wte.weight"][ids].float()
    del tensors
    angles = torch.outer(torch.arange(length).float(),
                         10000.0 ** (-torch.arange(0, 128, 2).float() / 128))
    cos, sin = angles.cos(), angles.sin()

    def norm(v, weight):
        return v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    def rotate(v):
        a, b = v.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    class Moments:
        def __init__(self, dim):
            self.sum = torch.zeros(dim, dim)

        def add(self, v):
            self.sum.addmm_(v.T, v, alpha=2 / samples)

    def attended(v):
        qkv = functional.linear(norm(v, w["ln_1"]), w["attn.c_attn"], bias)
        q, k, v = (part.view(1, length, 32, 128).transpose(1, 2) for part in qkv.chunk(3, -1))
        out = functional.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        return out.transpose(1, 2).reshape(length, 4096)

    def gated(v):
        v = norm(v, w["ln_2"])
        return functional.linear(v, w["mlp.w1"]) * functional.silu(
            functional.linear(v, w["mlp.w2"]))

    began = time.time()
    moments = Moments(4096)
    for row in x:
        moments.add(norm(row, w["ln_1"]))
    w["attn.c_attn"] = solve(torch, w["attn.c_attn"], moments.sum)
    moments = Moments(4096)
    heads = torch.empty(samples, length, 4096)
    for out, row in zip(heads, x):
        out.copy_(attended(row))
        moments.add(out)
    w["attn.c_proj"] = solve(torch, w["attn.c_proj"], moments.sum)
    moments = Moments(4096)
    for out, row in zip(heads, x):
        row += functional.linear(out, w["attn.c_proj"])
        moments.add(norm(row, w["ln_2"]))
    del heads
    for part in ("mlp.w1", "mlp.w2"):
        w[part] = solve(torch, w[part], moments.sum)
    moments = Moments(11008)
    for row in x:
        moments.add(gated(row))
    w["mlp.c_proj"] = solve(torch, w["mlp.c_proj"], moments.sum)
    for row in x:
        row += functional.linear(gated(row), w["mlp.c_proj"])
    print(json.dumps({"seconds": time.time() - began,
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", default="build/release/quern")
    parser.add_argument("--tokenizer")
    parser.add_argument("--calibration")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--peer", action="store_true", help="only PyTorch, in this process")
    args = parser.parse_args()
    checkpoint = args.work / "one-block"
    if args.peer:
        return peer(checkpoint, args.samples, args.length)
    args.work.mkdir(parents=True, exist_ok=True)
    if not checkpoint.exists():
        (args.work / "config.json").write_text(json.dumps(CONFIG))
        subprocess.run([args.quern, "init", checkpoint, "--config", args.work / "config.json",
                        "--dtype", "bf16", "--tokenizer", args.tokenizer], check=True)
    out = args.work / "quantized"
    subprocess.run(["rm", "-rf", out, f"{out}.quantizing"], check=True)
    began = time.time()
    quern = subprocess.Popen(
        [args.quern, "quantize", checkpoint, out, "--to", "int4", "--group", str(GROUP),
         "--calibration", args.calibration, "--samples", str(args.samples), "--length",
         str(args.length), "--threads", "2"], stdout=subprocess.DEVNULL)
    block_file = pathlib.Path(f"{out}.quantizing") / "block-00000.safetensors"
    while quern.poll() is None and not block_file.exists():
        time.sleep(0.1)
    block = time.time() - began
    if quern.wait() != 0:
        sys.exit("quern quantize failed")
    whole = time.time() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    torch = json.loads(subprocess.run(
        [sys.executable, __file__, "--peer", "--work", args.work, "--samples", str(args.samples),
         "--length", str(args.length)], check=True, capture_output=True, text=True).stdout)
    print(f"{'':10} {'seconds':>9} {'peak, GB':>9}")
    print(f"{'Quern':10} {block:9.1f} {peak:9.2f}   ({whole:.1f} s with writing the checkpoint)")
    print(f"{'PyTorch':10} {torch['seconds']:9.1f} {torch['peak']:9.2f}")
    print(f"ratio {torch['seconds'] / block:.2f}")


if __name__ == "__main__":
    main()
