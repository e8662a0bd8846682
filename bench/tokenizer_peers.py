"""Races bench_tokenizer against other tokenizers: the same texts, the same vocabulary, one thread,
CPU time, one after the other in alternating rounds; medians over the rounds.

  pip install tiktoken tokenizers 'gigatoken==0.10.*'
  python bench/tokenizer_peers.py build/release/bench/bench_tokenizer ../shared [rounds] [part ...]

PEERS names the peers to race. Parts: en, zh, code (MB/s of documents: cold, in a new object; warm, text it has not seen; again, the
same text once more), pieces (one piece of a million characters, in ms), long (one piece of 64 MB,
Quern alone), load (until the vocabulary is ready, ms of wall clock, Quern alone, without and with
what it keeps between runs), train (20 MB, 32,000 entries). Ids are compared by their digest; a peer that has others is marked.
"""

import array
import gzip
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata

SEPARATOR = "\x1e"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAIN_VOCAB = 32000


def records(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield unicodedata.normalize("NFC", json.loads(line)["text"]).replace(SEPARATOR, " ")


def documents(shared, name):
    """Up to 8 MB of documents; books in parts of 4 KB."""
    source = {"en": "en_books", "zh": "zh", "code": "code"}[name]
    out, size = [], 0
    for text in records(f"{shared}/data/train/{source}.jsonl.gz"):
        parts = [text[i : i + 4000] for i in range(0, len(text), 4000)] if name == "en" else [text]
        for part in parts:
            out.append(unicodedata.normalize("NFC", part))
            size += len(part.encode())
            if size >= 8_000_000:
                return out
    return out


def pieces():
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000)
    return {
        "a": "a" * 1_000_000,
        "random letters": "".join(letters),
        "400,000 spaces": " " * 400_000,
        "spaces": " " * 1_000_000,
        "newlines": "\n" * 1_000_000,
        "中": "中" * 333_333,
        "Chinese": "".join(random.Random(2).choices("的一是不了在人有我他这中大来上国", k=333_333)),
        "!": "!" * 1_000_000,
    }


class Peer:
    def __init__(self, name, shared):
        path = f"{shared}/fixtures/tokenizer"
        start = time.process_time()
        if name == "tiktoken":
            import tiktoken
            from tiktoken.load import load_tiktoken_bpe

            start = time.process_time()
            ranks = load_tiktoken_bpe(f"{path}/qwen.tiktoken")
            encoding = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks,
                                         special_tokens={})
            self.encode = lambda docs: [encoding.encode_ordinary(d) for d in docs]
            self.decode = lambda ids: [encoding.decode_bytes(i) for i in ids]
        else:
            with gzip.open(f"{path}/qwen2/tokenizer.json.gz", "rt", encoding="utf-8") as file:
                text = file.read()
            if name == "tokenizers":
                from tokenizers import Tokenizer

                start = time.process_time()
                tokenizer = Tokenizer.from_str(text)
                self.encode = lambda docs: [
                    e.ids for e in tokenizer.encode_batch_fast(docs, add_special_tokens=False)
                ]
                self.decode = lambda ids: [tokenizer.decode(i) for i in ids]
            else:
                import gigatoken

                start = time.process_time()
                tokenizer = gigatoken.Tokenizer.from_json(text)
                self.encode = lambda docs: tokenizer.encode_batch(docs, parallel=False)
                self.decode = lambda ids: [tokenizer.decode(i) for i in ids]
        self.encode(["Hello"])  # some make their tables at the first text
        self.load_ms = 1e3 * (time.process_time() - start)


def timed(body):
    start = time.process_time()
    result = body()
    return time.process_time() - start, result


def peer_documents(name, shared, path):
    raw = open(path, "rb").read()
    if not path.endswith(".piece"):
        docs = [d.decode() for d in raw.split(SEPARATOR.encode())]
    else:
        docs = [raw.decode()]
    peer = Peer(name, shared)
    result = {"load_ms": peer.load_ms}
    if path.endswith(".piece"):
        # A second time some would look the whole piece up.
        best = timed(lambda: peer.encode(docs))[0]
        print(json.dumps({"piece_ms": 1e3 * best}))
        return
    sizes = [len(d.encode()) for d in docs]
    # The halves are those of bench_tokenizer: by bytes.
    half, size = 0, 0
    while half < len(docs) and 2 * size < len(raw):
        size += sizes[half]
        half += 1
    rest = sum(sizes[half:])
    cold, first = timed(lambda: peer.encode(docs[:half]))
    warm, second = timed(lambda: peer.encode(docs[half:]))
    again, _ = timed(lambda: peer.encode(docs[half:]))
    ids = [list(map(int, d)) for d in first] + [list(map(int, d)) for d in second]
    decode, _ = timed(lambda: peer.decode(ids))
    flat = array.array("i", (i for d in ids for i in d))
    result.update(cold=1e-6 * size / cold, warm=1e-6 * rest / warm, again=1e-6 * rest / again,
                  decode=1e-6 * (size + rest) / decode, tokens=len(flat),
                  sha256=hashlib.sha256(flat.tobytes()).hexdigest())
    print(json.dumps(result))


def peer_train(name, path, out):
    if name == "tokenizers":
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
        from tokenizers import trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=TRAIN_VOCAB, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        lines = open(path, encoding="utf-8", newline="").read().split(SEPARATOR)
        seconds, _ = timed(lambda: tokenizer.train_from_iterator(lines, trainer))
        tokenizer.save(out)
    else:
        import gigatoken

        data = open(path, "rb").read()
        seconds, _ = timed(lambda: gigatoken.train_bpe(
            data, TRAIN_VOCAB, ["<|endoftext|>"]))
    print(json.dumps({"seconds": seconds}))


def run(command, **more):
    environment = dict(os.environ, RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    environment.update({"QUERN_TOKENIZER_CACHE": "off"} | more)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        print(f"    {' '.join(map(str, command[:4]))[-60:]}: {last[:100]}", file=sys.stderr)
        return None


def race(candidates, rounds):
    results = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, command in candidates.items():
            if (result := run(command)) is not None:
                results[name].append(result)
    return {
        name: {key: statistics.median(r[key] for r in runs) if isinstance(value, (int, float))
               else value for key, value in runs[0].items()}
        for name, runs in results.items() if runs
    }


def main():
    if sys.argv[1] == "--peer":
        peer_documents(*sys.argv[2:])
        return
    if sys.argv[1] == "--peer-train":
        peer_train(*sys.argv[2:])
        return
    bench, shared = sys.argv[1], sys.argv[2]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    parts = sys.argv[4:] or ["en", "zh", "code", "pieces"]
    peers = os.environ.get("PEERS", "tiktoken tokenizers gigatoken").split()
    vocabulary = f"{shared}/fixtures/tokenizer/qwen.tiktoken"
    python = [sys.executable, os.path.abspath(__file__)]
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            if part == "pieces":
                print(f"{'ms':16}", *(f"{name:>12}" for name in ["quern"] + peers))
                for index, (name, text) in enumerate(pieces().items()):
                    path = f"{folder}/{index}.piece"
                    open(path, "w", encoding="utf-8", newline="").write(text)
                    candidates = {"quern": [bench, vocabulary, path, ""]}
                    for peer in peers:
                        candidates[peer] = python + ["--peer", peer, shared, path]
                    result = race(candidates, 1)
                    print(f"{name:16}", *(
                        f"{result[c]['piece_ms']:12.1f}" if c in result else f"{'fails':>12}"
                        for c in candidates), flush=True)
                continue
            if part == "long":
                for name, text in pieces().items():
                    path = f"{folder}/long.piece"
                    with open(path, "w", encoding="utf-8", newline="") as file:
                        for _ in range(64_000_000 // len(text.encode())):
                            file.write(text)
                    ms = run([bench, vocabulary, path, ""])["piece_ms"]
                    print(f"64 MB {name:16} {ms:8.0f} ms", flush=True)
                continue
            if part == "load":
                cache = {"QUERN_TOKENIZER_CACHE": f"{folder}/cache"}
                command = [bench, "--load", vocabulary]
                run(command, **cache)  # puts it there
                for name, more in {"made": {}, "kept": cache}.items():
                    times = [run(command, **more)["load_ms"] for _ in range(3 * rounds)]
                    print(f"load, {name} {statistics.median(times):8.1f} ms", flush=True)
                continue
            if part == "train":
                path = f"{folder}/train.txt"
                docs = [d for name in ("en", "zh", "code") for d in documents(shared, name)]
                random.Random(3).shuffle(docs)
                text = SEPARATOR.join(docs).encode()[:20_000_000].decode(errors="ignore")
                open(path, "w", encoding="utf-8", newline="").write(text)
                candidates = {"quern": [bench, "--train", path, SEPARATOR, str(TRAIN_VOCAB)]}
                for peer in ("tokenizers", "gigatoken"):
                    candidates[peer] = python + ["--peer-train", peer, path, f"{folder}/hf.json"]
                for name, result in race(candidates, rounds).items():
                    print(f"train {name:12} {result['seconds']:8.2f} s", flush=True)
                continue
            path = f"{folder}/{part}.txt"
            docs = documents(shared, part)
            open(path, "w", encoding="utf-8", newline="").write(SEPARATOR.join(docs))
            candidates = {"quern": [bench, vocabulary, path, SEPARATOR]}
            for peer in peers:
                candidates[peer] = python + ["--peer", peer, shared, path]
            results = race(candidates, rounds)
            for name, r in results.items():
                same = "" if r["sha256"] == results["quern"]["sha256"] else "  OTHER IDS"
                print(f"{part:4} {name:12} cold {r['cold']:7.1f} warm {r['warm']:7.1f} again "
                      f"{r['again']:7.1f} decode {r['decode']:7.1f} MB/s, load {r['load_ms']:6.1f}"
                      f" ms, {r['tokens']} tokens{same}", flush=True)


main()
