#include "text/merge_lanes.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

#include "text/pair_search.h"

namespace quern {
namespace {

constexpr size_t kLanes = 8;
constexpr int kPlaceBits = 7;
constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();
static_assert(Bpe::kShortPiece == 1 << kPlaceBits);
static_assert(PairRanks::kRankBits + kPlaceBits <= 31);

int32_t as_merge(int32_t rank, size_t at) noexcept {
  return rank < 0 ? kNoMerge : rank << kPlaceBits | static_cast<int32_t>(at);
}

}  // namespace

class MergeLanes {
 public:
  explicit MergeLanes(const Bpe& bpe) noexcept : bpe_(bpe) {}

  [[gnu::always_inline]] void run(std::span<Bpe::Job> jobs) noexcept {
    for (const Bpe::Job& job : jobs) bpe_.prefetch(job.hash);
    size_t active = 0;
    for (; active < kLanes; ++active) {
      lanes_[active] = &storage_[active];
      if (!start_any(*lanes_[active], jobs)) break;
    }
    while (active > 0) {
      for (size_t i = 0; i < active;) {
        if (step(*lanes_[i])) {
          ++i;
          continue;
        }
        finish(*lanes_[i]);
        if (!start_any(*lanes_[i], jobs)) std::swap(lanes_[i], lanes_[--active]);
      }
      for (size_t i = 0; i < active; ++i) {
        for (Asked& asked : lanes_[i]->asked) asked.search.look_where(bpe_.pairs_, asked.is_pair);
      }
      for (size_t i = 0; i < active; ++i) {
        for (const Asked& asked : lanes_[i]->asked) {
          lanes_[i]->merges[asked.at] = as_merge(asked.search.rank(bpe_.pairs_), asked.at);
        }
      }
    }
  }

 private:
  // A pair whose rank is wanted for merges[at].
  struct Asked {
    PairSearch search;
    size_t at;
    bool is_pair;
  };
  // A piece in the middle of its merging.
  struct Lane {
    alignas(32) int32_t merges[Bpe::kShortPiece];
    TokenId ids[Bpe::kShortPiece];
    uint8_t next[Bpe::kShortPiece], previous[Bpe::kShortPiece + 1];
    size_t count, padded;
    Bpe::Job* job;
    Asked asked[2];
  };

  // Takes jobs until one needs merging; false where there are no more.
  bool start_any(Lane& lane, std::span<Bpe::Job>& jobs) noexcept {
    while (!jobs.empty()) {
      Bpe::Job& job = jobs.front();
      jobs = jobs.subspan(1);
      if (start(lane, job)) return true;
    }
    return false;
  }

  // False where nothing is left to do: the piece is one token, or it is not ASCII. That begins with
  // whole characters, of which so few merge that lanes have little to hide, and cost a tenth.
  bool start(Lane& lane, Bpe::Job& job) noexcept {
    const std::string_view piece = job.piece;
    if (!std::all_of(piece.begin(), piece.end(), [](char byte) { return byte >= 0; })) {
      job.count = bpe_.encode_short(piece, job.hash, job.out);
      return false;
    }
    job.count = 1;
    if (bpe_.whole_pieces_ && piece.size() > 1 && piece.size() <= bpe_.longest_) {
      if (const auto id = bpe_.find(piece, job.hash)) {
        *job.out = *id;
        return false;
      }
    }
    bpe_.begin_symbols(piece, lane.ids, lane.count);
    if (lane.count == 1) {
      *job.out = lane.ids[0];
      return false;
    }
    const size_t count = lane.count;
    lane.job = &job;
    lane.padded = (count + 7) & ~size_t{7};
    for (size_t i = 0; i < count; ++i) {
      lane.next[i] = static_cast<uint8_t>(i + 1);
      lane.previous[i + 1] = static_cast<uint8_t>(i);
    }
    for (size_t i = count - 1; i < lane.padded; ++i) lane.merges[i] = kNoMerge;
    for (size_t i = 0; i + 1 < count; ++i) {
      const auto left = static_cast<unsigned char>(piece[i]);
      const auto right = static_cast<unsigned char>(piece[i + 1]);
      lane.merges[i] =
          as_merge(bpe_.ascii_pairs_.data()[static_cast<size_t>(left) << 7 | right], i);
    }
    return true;
  }

  // Does the next merge, and notes the pairs whose ranks that changes; false where there is none.
  [[gnu::always_inline]] bool step(Lane& lane) noexcept {
    lane.asked[0].is_pair = lane.asked[1].is_pair = false;
    lane.asked[0].at = lane.asked[1].at = Bpe::kShortPiece - 1;  // where no pair begins
    int32_t best = kNoMerge;
    for (size_t i = 0; i < lane.padded; i += 8) {
      for (size_t k = 0; k < 8; ++k) best = std::min(best, lane.merges[i + k]);
    }
    if (best == kNoMerge) return false;
    const auto at = static_cast<size_t>(best & ((1 << kPlaceBits) - 1));
    const size_t gone = lane.next[at], after = lane.next[gone];
    lane.ids[at] = bpe_.joined(best >> kPlaceBits);
    lane.merges[gone] = kNoMerge;
    lane.next[at] = static_cast<uint8_t>(after);
    lane.previous[after] = static_cast<uint8_t>(at);
    lane.merges[at] = kNoMerge;
    if (after < lane.count) ask(lane.asked[0], lane.ids[at], lane.ids[after], at);
    if (at > 0) {
      const size_t before = lane.previous[at];
      ask(lane.asked[1], lane.ids[before], lane.ids[at], before);
    }
    return true;
  }

  void ask(Asked& asked, TokenId left, TokenId right, size_t at) const noexcept {
    asked = {PairSearch(bpe_.pairs_, left, right), at, true};
  }

  static void finish(Lane& lane) noexcept {
    size_t out = 0;
    for (size_t i = 0; i < lane.count; i = lane.next[i]) lane.job->out[out++] = lane.ids[i];
    lane.job->count = out;
  }

  const Bpe& bpe_;
  Lane storage_[kLanes];
  Lane* lanes_[kLanes];
};

namespace {

bool has_avx2() noexcept {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("lzcnt");
#else
  return false;
#endif
}

void run_scalar(const Bpe& bpe, std::span<Bpe::Job> jobs) noexcept { MergeLanes(bpe).run(jobs); }

#if defined(__x86_64__)
// The same code, in which the compiler finds the lowest rank eight at a time.
[[gnu::target("avx2,bmi,bmi2,lzcnt")]] void run_avx2(const Bpe& bpe,
                                                     std::span<Bpe::Job> jobs) noexcept {
  MergeLanes(bpe).run(jobs);
}
#endif

}  // namespace

std::vector<MergeManyVariant> merge_many_variants() {
  std::vector<MergeManyVariant> out = {{"scalar", run_scalar}};
#if defined(__x86_64__)
  if (has_avx2()) out.push_back({"avx2", run_avx2});
#endif
  return out;
}

bool merges_with_avx2() noexcept {
  const char* wanted = std::getenv("QUERN_ISA");
  return has_avx2() && (wanted == nullptr || std::string_view(wanted) != "scalar");
}

MergeMany merge_many() noexcept {
  static const MergeMany chosen = [] {
    const auto variants = merge_many_variants();
    return merges_with_avx2() ? variants.back().run : variants.front().run;
  }();
  return chosen;
}

void Bpe::encode_many(std::span<Job> jobs) const noexcept { merge_many()(*this, jobs); }

}  // namespace quern
