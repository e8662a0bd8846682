#!/usr/bin/env python3
"""Writes src/text/unicode_ranges.cpp from a JSON file of code point ranges.

usage: scripts/make-unicode-tables.py unicode_classes.json > src/text/unicode_ranges.cpp

The JSON has three lists of [first, last] ranges: "L" (letters), "N" (numbers) and "White_Space",
as the Unicode Character Database (here version 16.0) gives them: general categories L* and N*,
and the property White_Space.
"""
import json
import sys

classes = json.load(open(sys.argv[1], encoding="utf-8"))
print("// Made by scripts/make-unicode-tables.py from the Unicode Character Database, version 16.0.")
print('#include "text/unicode_ranges.h"\n')
print("namespace quern::unicode {\n")
for key, name in (("L", "kLetters"), ("N", "kNumbers"), ("White_Space", "kWhiteSpace")):
    ranges = classes[key]
    print(f"// {sum(b - a + 1 for a, b in ranges):,} code points")
    print(f"const Range {name}[] = {{")
    line = "   "
    for first, last in ranges:
        item = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")
    print(f"const size_t {name}Count = sizeof({name}) / sizeof({name}[0]);\n")
print("}  // namespace quern::unicode")
