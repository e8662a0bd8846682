"""Runs llama.cpp and Quern in turn on the same GGUF files of the 7B shape and prints a table.

    python3 bench/peers/run.py --quern build/release/quern --work /tmp/peers

llama.cpp comes out of the source archive of the pip package llama-cpp-python (pinned below), is built
in the work folder (about five minutes on a quiet machine), and stays there for the next run. With
`--ik FOLDER`, where the programs of a built ik_llama.cpp are, that takes part as well. All programs
read the same file, one after the other, `--rounds` times; the table has medians, and the ratio to
the faster peer. Limits (bandwidth, float32 peak) are those that Quern measures in the same runs.
`--json` keeps the figures for plot.py.
"""
import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
PACKAGE = "llama-cpp-python==0.3.36"
TARGETS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-perplexity",
           "llama-server"]


def run(command, **options):
    return subprocess.run([str(c) for c in command], check=True, text=True, capture_output=True,
                          **options).stdout


def build_peer(work):
    tools = work / "build" / "bin"
    if all((tools / target).exists() for target in TARGETS):
        return tools
    if not list(work.glob("llama_cpp_python-*.tar.gz")):
        run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", PACKAGE,
             "-d", work])
    archive = next(work.glob("llama_cpp_python-*.tar.gz"))
    source = work / archive.name.removesuffix(".tar.gz")
    if not source.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(work)
    run(["cmake", "-S", source / "vendor" / "llama.cpp", "-B", work / "build",
         "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_UI=OFF",
         "-DLLAMA_CURL=OFF"])
    subprocess.run(["cmake", "--build", work / "build", "-j2", "--target", *TARGETS], check=True)
    return tools


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def shape_file(work, kind, layers):
    """A file of the 7B shape with random weights, made where it is missing."""
    model = work / f"{kind}-{layers}.gguf"
    if not model.exists():
        run([sys.executable, HERE / "gguf_shape.py", model, "--type", kind, "--layers", layers])
    return model


class Quern:
    def __init__(self, program, threads):
        self.program, self.threads, self.limits = program, threads, []

    def bench(self, model, *options):
        result = json.loads(run([self.program, "bench", "model", model, "--json", "--repeat", 1,
                                 "--threads", self.threads, *options]))
        self.limits.append((result["read_bandwidth_gb_per_s"], result["fma_peak_gflop_per_s"]))
        self.last = result
        return result

    def prefill(self, model, tokens):
        return self.bench(model, "--prompt", tokens, "--generate", 0)["prefill_tokens_per_s"]

    def decode(self, model, tokens, depth=0, streams=1, cache="fp16"):
        own = {"fp16": "fp16", "int8": "int8-token"}[cache]
        return self.bench(model, "--prompt", 0, "--generate", tokens, "--depth", depth, "--streams",
                          streams, "--kv-cache", own)["decode_tokens_per_s"]


class Llama:
    name = "llama.cpp"
    repeats = 1  # behind a warm-up

    def __init__(self, tools, threads):
        self.tools, self.threads = tools.resolve(), threads

    def bench(self, model, *options):
        out = run([self.tools / "llama-bench", "-m", model, "-t", self.threads, "-r",
                   self.repeats, "-o", "json", *options])
        return json.loads(out)[-1]["samples_ts"][-1]

    def prefill(self, model, tokens):
        return self.bench(model, "-p", tokens, "-n", 0)

    def decode(self, model, tokens, depth=0, streams=1, cache="fp16"):
        if streams > 1:
            return self.batched(model, tokens, streams)
        return self.bench(model, "-p", 0, "-n", tokens, "-d", depth, *self.cache_options(cache))

    @staticmethod
    def cache_options(cache):  # float16 is what they take by themselves
        return ["-ctk", "q8_0", "-ctv", "q8_0"] if cache == "int8" else []

    def batched(self, model, tokens, streams, *options):
        # One of the peers prints its table among its messages, and leaves a log where it stands.
        with tempfile.TemporaryDirectory() as folder:
            command = [self.tools / "llama-batched-bench", "-m", model.resolve(), "-t",
                       self.threads, "-c", streams * (tokens + 16), "-npp", 8, "-ntg", tokens,
                       "-npl", streams, *options]
            out = subprocess.run([str(c) for c in command], check=True, text=True, cwd=folder,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        row = [line for line in out.splitlines() if line.startswith("|")][-1]
        return float(row.split("|")[8])  # S_TG t/s


class IkLlama(Llama):
    """Repacks weights as it loads them, which is its fastest way to compute with these files."""

    name = "ik_llama.cpp"
    repeats = 2  # its warm-up is a token

    def bench(self, model, *options):
        return super().bench(model, "-rtr", 1, *options)

    def decode(self, model, tokens, depth=0, streams=1, cache="fp16"):
        if streams > 1:
            return self.batched(model, tokens, streams, "-rtr")
        if depth == 0:
            return self.bench(model, "-p", 0, "-n", tokens)
        return self.bench(model, "-p", 0, "-n", 0, "-gp", f"{depth},{tokens}",
                          *self.cache_options(cache))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quern", type=pathlib.Path, default="build/release/quern")
    parser.add_argument("--work", type=pathlib.Path, required=True,
                        help="folder outside the repository")
    parser.add_argument("--llama", type=pathlib.Path, help="folder of llama.cpp's built programs")
    parser.add_argument("--ik", type=pathlib.Path, help="folder of ik_llama.cpp's built programs")
    parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
    parser.add_argument("--types", nargs="*", default=["Q4_0", "Q4_K_M", "Q8_0"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", nargs="*", type=int, default=[4096],
                        help="tokens in the cache; peers must first compute them")
    parser.add_argument("--caches", nargs="*", choices=["fp16", "int8"], default=["fp16"],
                        help="types of the cache at a depth")
    parser.add_argument("--only", default="", help="a regular expression for rows of the table")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    peers = [Llama(args.llama or build_peer(args.work), args.threads)]
    if args.ik:
        peers.append(IkLlama(args.ik, args.threads))
    quern = Quern(args.quern, args.threads)
    rows = []
    for kind in args.types:
        model = shape_file(args.work, kind, args.layers)
        tests = [("prefill 512", lambda p: p.prefill(model, 512)),
                 ("decode", lambda p: p.decode(model, 24)),
                 ("8 streams", lambda p: p.decode(model, 8, streams=8)),
                 ("16 streams", lambda p: p.decode(model, 8, streams=16))]
        for depth in args.depths:
            for cache in args.caches:
                name = f"decode at depth {depth}" + (", int8 cache" if cache == "int8" else "")
                tests.append((name, lambda p, depth=depth, cache=cache:
                              p.decode(model, 12, depth=depth, cache=cache)))
        for name, test in tests:
            if not re.search(args.only, f"{kind} {name}"):
                continue
            ours, theirs = [], [[] for _ in peers]
            for _ in range(args.rounds):
                ours.append(test(quern))
                for peer, speeds in zip(peers, theirs):
                    speeds.append(test(peer))
            rows.append((kind, name, statistics.median(ours),
                         [statistics.median(speeds) for speeds in theirs], dict(quern.last)))
            print(f"{kind} {name}: {ours} / {theirs}", file=sys.stderr, flush=True)
    bandwidth = max(limit[0] for limit in quern.limits)
    peak = max(limit[1] for limit in quern.limits)
    version = run([args.quern, "--version"]).strip()
    names = [peer.name for peer in peers]
    about = (f"{datetime.date.today()}, {cpu_name()}, {args.threads} threads, {version}, {PACKAGE}; "
             f"best of the run: {bandwidth:.1f} GB/s read, {peak:.0f} GFLOP/s float32; medians of "
             f"{args.rounds}")
    print(f"{about}\n")
    print(f"| weights | | Quern, tokens/s | {' | '.join(names)} | ratio | share of the limit |")
    print("| --- | --- | --- |" + " --- |" * len(names) + " --- | --- |")
    for kind, name, ours, theirs, last in rows:
        if name.startswith("prefill"):
            share = last["prefill_gflop_per_s"] / last["prefill_tokens_per_s"] * ours / peak
            limit = f"{100 * share:.0f} % of the float32 peak"
        else:
            share = last["bytes_per_token"] * ours / 1e9 / bandwidth
            limit = f"{100 * share:.0f} % of the bandwidth"
        speeds = " | ".join(f"{speed:.1f}" for speed in theirs)
        print(f"| {kind} | {name} | {ours:.1f} | {speeds} | {ours / max(theirs):.2f} | {limit} |")
    if args.json:
        args.json.write_text(json.dumps({
            "about": about, "programs": ["Quern", *names],
            "rows": [{"weights": kind, "test": name, "tokens_per_s": [ours, *theirs]}
                     for kind, name, ours, theirs, _ in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
