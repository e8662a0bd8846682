"""PyTorch at the shapes of bench/training.cpp, alternating with it: the same model, the same step.

  pip install torch==2.13.0
  python bench/training_peer.py build/release/bench/bench_training [small|large] [rounds]

Each round runs every candidate once, in a process of its own, for a few steps; the table has the
medians over the rounds. PyTorch runs eager, compiled, and eager under bfloat16 autocast, with its
fused AdamW. Peak memory is the process's.
"""

import re
import resource
import statistics
import subprocess
import sys
import time

SHAPES = {
    "small": dict(dim=256, layers=8, heads=8, ffn=704, vocab=8192, seq=512, batch=8),
    "large": dict(dim=768, layers=12, heads=12, ffn=2048, vocab=8192, seq=1024, batch=2),
}
STEPS = 3


def peer(shape_name, mode):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.manual_seed(1)
    s = SHAPES[shape_name]
    dim, heads, seq = s["dim"], s["heads"], s["seq"]
    head_dim = dim // heads
    frequencies = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(seq).float(), frequencies)
    cos, sin = angles.cos(), angles.sin()

    def rotate(x):  # [batch, heads, seq, head_dim]
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2 = nn.RMSNorm(dim, 1e-6), nn.RMSNorm(dim, 1e-6)
            self.qkv = nn.Linear(dim, 3 * dim)
            self.attn_out = nn.Linear(dim, dim, bias=False)
            self.up = nn.Linear(dim, s["ffn"], bias=False)
            self.gate = nn.Linear(dim, s["ffn"], bias=False)
            self.down = nn.Linear(s["ffn"], dim, bias=False)

        def forward(self, x):
            batch = x.shape[0]
            q, k, v = (
                part.view(batch, seq, heads, head_dim).transpose(1, 2)
                for part in self.qkv(self.norm_1(x)).chunk(3, -1)
            )
            q, k = rotate(q).to(v.dtype), rotate(k).to(v.dtype)
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn_out(attended.transpose(1, 2).reshape(batch, seq, dim))
            h = self.norm_2(x)
            return x + self.down(functional.silu(self.gate(h)) * self.up(h))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(s["vocab"], dim)
            self.blocks = nn.ModuleList(Block() for _ in range(s["layers"]))
            self.norm = nn.RMSNorm(dim, 1e-6)
            self.lm_head = nn.Linear(dim, s["vocab"], bias=False)

        def forward(self, ids):
            x = self.embedding(ids)
            for block in self.blocks:
                x = block(x)
            logits = self.lm_head(self.norm(x))[:, :-1]
            return functional.cross_entropy(
                logits.reshape(-1, s["vocab"]).float(), ids[:, 1:].reshape(-1)
            )

    model = Model()
    step_model = torch.compile(model) if mode == "compile" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1, fused=True
    )
    ids = torch.randint(s["vocab"], (s["batch"], seq))
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            loss = step_model(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    rate = s["batch"] * seq / statistics.median(times[1:])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-9
    print(f"{rate:.0f} tokens/s, peak memory {memory:.2f} GB")


def main():
    if sys.argv[1] == "--peer":
        peer(sys.argv[2], sys.argv[3])
        return
    bench = sys.argv[1]
    shape = sys.argv[2] if len(sys.argv) > 2 else "small"
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    candidates = {
        "quern fp32": [bench, shape, "fp32", str(STEPS), "2"],
        "quern bf16": [bench, shape, "bf16", str(STEPS), "2"],
    }
    for mode in ("eager", "compile", "bf16"):
        candidates[f"pytorch {mode}"] = [sys.executable, __file__, "--peer", shape, mode]
    rates = {name: [] for name in candidates}
    memory = {}
    for _ in range(rounds):
        for name, command in candidates.items():
            run = subprocess.run(command, capture_output=True, text=True)
            found = re.search(r"(\d+) tokens/s.*peak memory ([\d.]+) GB", run.stdout)
            if found is None:
                print(f"{name}: {(run.stderr.strip() or run.stdout).splitlines()[-1]}")
                continue
            rates[name].append(float(found[1]))
            memory[name] = float(found[2])
    for name, values in rates.items():
        if values:
            print(f"{shape} {name:16} {statistics.median(values):6.0f} tokens/s, "
                  f"{memory[name]:.2f} GB")


main()
