"""Runs llama-server and quern serve in turn on the same GGUF files and prints a table.

    python3 bench/peers/serve.py --work FOLDER --llama FOLDER/build/bin

Each round starts a server, lets `quern bench serve` ask it with so many streams at once, and ends
it; the two take turns, so that both meet the same machine. run.py builds llama-server in its work
folder. The files are its own (random weights of the 7B shape), made here where they are missing.
Both keep keys and values in 16 bits, decode greedily and hear the same prompts.
"""
import argparse
import json
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

from run import shape_file


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(args, command, port, streams):
    """Starts a server, measures it, ends it; what `quern bench serve --json` says of the run."""
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if server.poll() is not None:
                sys.exit(f"{command[0]} ended with {server.returncode}")
            try:
                if urllib.request.urlopen(url + "/health", timeout=1).status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        out = subprocess.run(
            [str(args.quern), "bench", "serve", url, "--json", "--concurrency", str(streams),
             "--requests", str(streams * args.waves), "--prompt-tokens", str(args.prompt),
             "--answer-tokens", str(args.answer)], check=True, text=True, capture_output=True)
    finally:
        server.terminate()
        server.wait()
    run = json.loads(out.stdout)["runs"][0]
    if run["failed"]:
        sys.exit(f"{command[0]}: {run['failed']} of {run['requests']} requests failed")
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quern", type=pathlib.Path, default="build/release/quern")
    parser.add_argument("--work", type=pathlib.Path, required=True,
                        help="folder outside the repository")
    parser.add_argument("--llama", type=pathlib.Path, required=True,
                        help="folder of llama.cpp's built programs, with llama-server")
    parser.add_argument("--types", nargs="*", default=["Q4_0", "BF16"])
    parser.add_argument("--streams", nargs="*", type=int, default=[8, 16])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--answer", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--waves", type=int, default=1, help="requests for each stream")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    print("| weights | streams | | Quern | llama-server | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for kind in args.types:
        model = shape_file(args.work, kind, args.layers)
        for streams in args.streams:
            room = 2 * (args.prompt + args.answer)
            ours, theirs = [], []
            for _ in range(args.rounds):
                port = free_port()
                ours.append(ask(args, [args.quern, "serve", model, "--port", port, "--threads",
                                       args.threads, "--kv-cache", "fp16", "--access-log", "none"],
                                port, streams))
                port = free_port()
                theirs.append(ask(args, [args.llama / "llama-server", "-m", model, "--port", port,
                                         "-t", args.threads, "-np", streams, "-c", streams * room,
                                         "--no-ui"], port, streams))
            for name, field, better in (("tokens/s", "tokens_per_s", 1),
                                        ("first token p50, ms", "ttft_p50_ms", -1),
                                        ("first token p99, ms", "ttft_p99_ms", -1),
                                        ("between tokens p99, ms", "between_tokens_p99_ms", -1)):
                a = statistics.median(r[field] for r in ours)
                b = statistics.median(r[field] for r in theirs)
                print(f"| {kind} | {streams} | {name} | {a:.1f} | {b:.1f} | "
                      f"{(a / b) ** better:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
