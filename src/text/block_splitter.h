// The splitter's fast path: 64 bytes at a time, character classes as bit masks, the ends of pieces
// by bit algebra. splitter.h's piece_end_of is the definition it is tested against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/isa.h"
#include "text/splitter.h"
#include "text/unicode.h"

namespace quern {

constexpr size_t kSplitBlock = 64;

// Bit i of the answer: one piece ends and the next begins at text + i, 0 < i < 64. A piece of valid
// UTF-8 begins at `text` itself, of which kSplitBlock bytes can be read; 0xFF ends it earlier.
// Every cut up to the last one reported is reported; of what comes after it nothing is said. 0:
// the rule's PieceEnd has to find the end. `classes` is unicode::class_table().
using BlockCuts = uint64_t (*)(const char* text, const unicode::Class* classes) noexcept;

// The variant for this machine; QUERN_ISA (scalar, avx2, avx512) asks for another.
BlockCuts block_cuts(SplitRule rule = SplitRule::Qwen2) noexcept;

// A rule's two parts: what finds most ends, and what finds those that it leaves.
struct Splitter {
  BlockCuts cuts;
  PieceEnd end;
};
inline Splitter splitter_of(SplitRule rule) noexcept {
  return {block_cuts(rule), piece_end_of(rule)};
}

struct BlockCutsVariant {
  std::string_view name;
  cpu::Isa isa;
  BlockCuts cuts;
};
// Those that this machine can run, plainest first.
std::vector<BlockCutsVariant> block_cuts_variants(SplitRule rule = SplitRule::Qwen2);

}  // namespace quern
