"""What simpler models make of the validation texts: python3 baselines.py RUNS/mini-data [TOKENS]

Trains a unigram model and an interpolated trigram model with absolute discounting on the tokens of
the training sets, and prints the perplexity a token of each on the first TOKENS tokens of each
validation set: the figures that the model's card puts beside its own.
"""

import array
import collections
import json
import math
import struct
import sys

DISCOUNT = 0.75
TRAIN = ["stories", "books", "problems"]


def tokens_of(folder):
    """All tokens of a dataset, in order, read from its safetensors shards."""
    manifest = json.load(open(f"{folder}/manifest.json", encoding="utf-8"))
    out = array.array("H")
    for index in range(len(manifest["shards"])):
        with open(f"{folder}/tokens-{index:05}.safetensors", "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(size))["tokens"]
            assert entry["dtype"] == "U16", entry
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            out.frombytes(file.read(end - begin))
    return out


def main():
    data, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 32768
    one, two, three = collections.Counter(), collections.Counter(), collections.Counter()
    for name in TRAIN:
        ids = tokens_of(f"{data}/{name}")
        one.update(ids)
        two.update(a << 16 | b for a, b in zip(ids, ids[1:]))
        three.update(a << 32 | b << 16 | c for a, b, c in zip(ids, ids[1:], ids[2:]))
    total = sum(one.values())
    vocab = max(one) + 1
    # How often each context was seen, and with how many different tokens after it.
    seen_1, kinds_1 = collections.Counter(), collections.Counter()
    for key, count in two.items():
        seen_1[key >> 16] += count
        kinds_1[key >> 16] += 1
    seen_2, kinds_2 = collections.Counter(), collections.Counter()
    for key, count in three.items():
        seen_2[key >> 16] += count
        kinds_2[key >> 16] += 1

    def unigram(c):
        return (one[c] + 1) / (total + vocab)

    def discounted(count, seen, kinds, lower):
        if seen == 0:
            return lower
        return max(count - DISCOUNT, 0) / seen + DISCOUNT * kinds / seen * lower

    def trigram(a, b, c):
        lower = discounted(two[b << 16 | c], seen_1[b], kinds_1[b], unigram(c))
        context = a << 16 | b
        return discounted(three[context << 16 | c], seen_2[context], kinds_2[context], lower)

    print("| source | tokens | unigram | trigram |\n| --- | ---: | ---: | ---: |")
    for name in TRAIN:
        ids = tokens_of(f"{data}/valid-{name}")[:most]
        plain = sum(-math.log(unigram(c)) for c in ids[2:]) / (len(ids) - 2)
        better = sum(-math.log(trigram(a, b, c)) for a, b, c in zip(ids, ids[1:], ids[2:])) / (len(ids) - 2)
        print(f"| {name} | {len(ids)} | {math.exp(plain):.1f} | {math.exp(better):.1f} |")


if __name__ == "__main__":
    main()
