// Merging many short pieces: some at a time, each in a lane of its own, so that a lane whose next
// pair has to come from memory does not keep the others waiting. Bpe::encode_short is the
// definition.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "text/bpe.h"

namespace quern {

// Does all the jobs, each of a piece of 1 to Bpe::kShortPiece bytes.
using MergeMany = void (*)(const Bpe& bpe, std::span<Bpe::Job> jobs) noexcept;

// Whether this machine merges with AVX2; QUERN_ISA=scalar says no.
bool merges_with_avx2() noexcept;

// The variant for this machine.
MergeMany merge_many() noexcept;

struct MergeManyVariant {
  std::string_view name;
  MergeMany run;
};
// Those that this machine can run, plainest first.
std::vector<MergeManyVariant> merge_many_variants();

}  // namespace quern
