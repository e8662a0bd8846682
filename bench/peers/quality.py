"""What fewer bits cost: a checkpoint against itself in Int8 and Int4 (GPTQ), and in llama.cpp's Q4_K_M.

    python3 bench/peers/quality.py models/quern-mini --calibration FILE --data FILE --work /tmp/quality

Both texts are plain; the calibration text must not be among the validation text. Perplexity, KL
divergence and agreement are those of `quern compare`, which reads llama.cpp's file from its blocks.
"""
import argparse
import json
import pathlib
import struct
import sys

from run import build_peer, run


def folder_bits(folder):
    """Bits a weight of the quantized matrices, from the files' sizes."""
    data = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    weights = packed = 0
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
            if name.rsplit(".", 1)[-1] in ("qweight", "qzeros", "scales"):
                packed += size
            if name.endswith(".qweight"):
                weights += size * 8
    return data, packed, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--quern", default="build/release/quern")
    parser.add_argument("--llama", type=pathlib.Path)
    parser.add_argument("--groups", default="32,64", help="inputs that share a scale, of Int4; the first of Int8")
    parser.add_argument("--limit", default="0")
    parser.add_argument("--length", default="512")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    variants = []

    def quantize(name, *options):
        out = args.work / name
        if not out.exists():
            run([args.quern, "quantize", args.model, out, *options])
        data, packed, weights = folder_bits(out)
        bits = 4 if "int4" in options else 8
        variants.append((name, out, data, packed * 8 / (weights / bits)))

    calibrate = ["--calibration", args.calibration]
    groups = args.groups.split(",")
    quantize(f"Int8-{groups[0]}", "--to", "int8", "--group", groups[0], *calibrate)
    for group in groups:
        quantize(f"Int4-{group}", "--to", "int4", "--group", group, *calibrate)
    tools = args.llama or build_peer(args.work)
    full = args.work / "F16.gguf"
    if not full.exists():
        run([args.quern, "convert", args.model, full, "--to", "gguf", "--type", "F16"])
    for kind in ("Q8_0", "Q4_K_M", "Q4_0"):
        out = args.work / f"{kind}.gguf"
        if not out.exists():
            run([tools / "llama-quantize", full, out, kind])
        variants.append((f"llama.cpp {kind}", out, out.stat().st_size, None))
    print("| | file, MB | bits in the blocks | perplexity | more, % | KL divergence, mean | 99 % | "
          "same first token, % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, path, size, bits in variants:
        got = json.loads(run([args.quern, "compare", args.model, path, "--data", args.data,
                              "--length", args.length, "--limit", args.limit, "--json"]))
        print(json.dumps(got), file=sys.stderr)
        a, b = got["a"]["perplexity"], got["b"]["perplexity"]
        print(f"| {name} | {size / 1e6:.1f} | {f'{bits:.2f}' if bits else ''} | {b:.4f} | "
              f"{100 * (b / a - 1):.2f} | {got['kl_mean']:.5f} | {got['kl_p99']:.4f} | "
              f"{100 * got['top1_agreement']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
