#include "text/merge_lanes.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "text/pair_search.h"

namespace quern {
namespace {

constexpr size_t kLanes = 8, kAtOnce = 32;

// Places are 1 to kMostSymbols; before the first symbol and behind the last one stands kNobody,
// which merges with nothing.
constexpr size_t kMostSymbols = 16;
constexpr int kPlaceBits = 5;
constexpr TokenId kNobody = (1 << PairRanks::kIdBits) - 1;

// A rank and the place where the pair begins, so that the lowest of these is the next merge.
constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();
static_assert(PairRanks::kRankBits + kPlaceBits <= 31);

using Eight = int32_t __attribute__((vector_size(32)));
constexpr Eight kPlaces[2] = {{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}};

[[gnu::always_inline]] inline Eight lower(Eight a, Eight b) noexcept { return a < b ? a : b; }

[[gnu::always_inline]] inline int32_t lowest(Eight a, Eight b) noexcept {
  Eight all = lower(a, b);
  all = lower(all, __builtin_shufflevector(all, all, 4, 5, 6, 7, 0, 1, 2, 3));
  all = lower(all, __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5));
  all = lower(all, __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6));
  return all[0];
}

// kNone, of which all bits are set, becomes kNoMerge: without a branch.
int32_t as_merge(int32_t rank, int32_t at) noexcept {
  return static_cast<int32_t>(static_cast<uint32_t>(rank << kPlaceBits | at | rank >> 31) &
                              0x7fffffffu);
}

}  // namespace

class MergeLanes {
 public:
  explicit MergeLanes(const Bpe& bpe) noexcept : bpe_(bpe) {}

  // Pieces are made ready first, so that the ranks of their pairs are near when the lanes come to
  // them.
  [[gnu::always_inline]] void run(std::span<Bpe::Job> jobs) noexcept {
    for (const Bpe::Job& job : jobs) bpe_.prefetch(job.hash);
    while (!jobs.empty()) {
      const size_t count = std::min(kAtOnce, jobs.size());
      for (Bpe::Job& job : jobs.first(count)) make_ready(job);
      merge();
      jobs = jobs.subspan(count);
    }
  }

 private:
  // A piece in the middle of its merging: by place, the symbols and the merges that begin there.
  struct Lane {
    Eight merges[2];
    TokenId ids[kMostSymbols + 2];
    PairSearch right, left;
    int32_t at, before, gone;
    uint32_t alive;   // a bit for each place that has a symbol or is an end
    uint32_t unread;  // and for each where a pair begins of which the rank is to be read
    Bpe::Job* job;
  };

  // Finds the symbols, and answers a piece that is one token or too long for a lane.
  [[gnu::always_inline]] void make_ready(Bpe::Job& job) noexcept {
    const std::string_view piece = job.piece;
    if (piece.size() == 1) {
      job.count = bpe_.encode_short(piece, job.hash, job.out);
      return;
    }
    if (bpe_.whole_pieces_ && piece.size() <= bpe_.longest_) {
      if (const auto id = bpe_.find(piece, job.hash)) {
        *job.out = *id;
        job.count = 1;
        return;
      }
    }
    if (piece.size() <= kMostSymbols) {
      unsigned char text[kMostSymbols + 1] = {};
      std::memcpy(text, piece.data(), piece.size());
      uint64_t words[2];
      std::memcpy(words, text, sizeof words);
      if (((words[0] | words[1]) & 0x8080808080808080u) == 0) {
        add_ascii(text, job);
        return;
      }
    }
    bpe_.begin_symbols(piece, job.out, job.count);
    if (job.count <= kMostSymbols) {
      add_symbols(job);
    } else {
      job.count = bpe_.merge_symbols(job.out, job.count);
    }
  }

  [[gnu::always_inline]] Lane& add(Bpe::Job& job, size_t count) noexcept {
    Lane& lane = lanes_[ready_++];
    lane.job = &job;
    lane.ids[0] = lane.ids[count + 1] = kNobody;
    lane.alive = (uint32_t{4} << count) - 1;
    lane.unread = 0;
    return lane;
  }

  [[gnu::always_inline]] void add_ascii(const unsigned char (&text)[kMostSymbols + 1],
                                        Bpe::Job& job) noexcept {
    Lane& lane = add(job, job.piece.size());
    int32_t ranks[kMostSymbols];
    ranks[0] = PairRanks::kNone;
    for (size_t i = 0; i < kMostSymbols; ++i) lane.ids[i + 1] = bpe_.byte_ids_[text[i]];
    for (size_t i = 0; i + 1 < kMostSymbols; ++i) {
      ranks[i + 1] = bpe_.ascii_pairs_.data()[static_cast<size_t>(text[i]) << 7 | text[i + 1]];
    }
    const auto pairs = static_cast<int32_t>(job.piece.size() - 1);
    for (size_t k = 0; k < 2; ++k) {
      Eight rank;
      std::memcpy(&rank, ranks + 8 * k, sizeof rank);
      const Eight none = kNoMerge - Eight{};
      const Eight merge = rank < 0 ? none : rank << kPlaceBits | kPlaces[k];
      lane.merges[k] = kPlaces[k] > pairs ? none : merge;
    }
  }

  // Of the pairs that may merge the ranks are asked for, and read when the piece gets its turn.
  [[gnu::always_inline]] void add_symbols(Bpe::Job& job) noexcept {
    uint32_t unread = 0;
    for (size_t i = 0; i + 1 < job.count; ++i) {
      const PairSearch search(bpe_.pairs_, job.out[i], job.out[i + 1]);
      unread |= static_cast<uint32_t>(search.may_find()) << (i + 1);
    }
    if (unread == 0) return;
    Lane& lane = add(job, job.count);
    lane.unread = unread;
    std::copy_n(job.out, job.count, lane.ids + 1);
  }

  [[gnu::always_inline]] void read_ranks(Lane& lane) const noexcept {
    alignas(32) int32_t merges[kMostSymbols];
    std::fill_n(merges, kMostSymbols, kNoMerge);
    for (uint32_t rest = lane.unread; rest != 0; rest &= rest - 1) {
      const int32_t at = std::countr_zero(rest);
      const PairSearch search(bpe_.pairs_, lane.ids[at], lane.ids[at + 1]);
      merges[at] = as_merge(search.rank(bpe_.pairs_), at);
    }
    std::memcpy(lane.merges, merges, sizeof merges);
  }

  // Merges what is ready, kLanes pieces side by side.
  [[gnu::always_inline]] void merge() noexcept {
    Lane* lanes[kLanes];
    size_t active = 0, begun = 0;
    const auto next = [&]() noexcept {
      Lane& lane = lanes_[begun++];
      if (lane.unread != 0) read_ranks(lane);
      return &lane;
    };
    while (active < kLanes && begun < ready_) lanes[active++] = next();
    while (active > 0) {
      for (size_t i = 0; i < active;) {
        if (step(*lanes[i])) [[likely]] {
          ++i;
          continue;
        }
        finish(*lanes[i]);
        lanes[i] = begun < ready_ ? next() : lanes[--active];
      }
      for (size_t i = 0; i < active; ++i) answer(*lanes[i]);
    }
    ready_ = 0;
  }

  // Does the next merge; false where there is none.
  [[gnu::always_inline]] bool step(Lane& lane) noexcept {
    const int32_t best = lowest(lane.merges[0], lane.merges[1]);
    if (best == kNoMerge) return false;
    const int32_t at = best & ((1 << kPlaceBits) - 1);
    const uint32_t behind = ~uint32_t{1} << at;
    const int32_t gone = std::countr_zero(lane.alive & behind);
    lane.alive ^= uint32_t{1} << gone;
    const int32_t after = std::countr_zero(lane.alive & behind);
    const int32_t before = 31 - std::countl_zero(lane.alive & ~behind & ~(uint32_t{1} << at));
    const TokenId id = bpe_.joined(best >> kPlaceBits);
    lane.ids[at] = id;
    lane.right = PairSearch(bpe_.pairs_, id, lane.ids[after]);
    lane.left = PairSearch(bpe_.pairs_, lane.ids[before], id);
    lane.at = at;
    lane.before = before;
    lane.gone = gone;
    return true;
  }

  // Enters what step asked for, and that nothing begins any more at the symbol that is gone.
  [[gnu::always_inline]] void answer(Lane& lane) noexcept {
    const int32_t right_merge = as_merge(lane.right.rank(bpe_.pairs_), lane.at);
    const int32_t left_merge = as_merge(lane.left.rank(bpe_.pairs_), lane.before);
    for (size_t k = 0; k < 2; ++k) {
      Eight merges = lane.merges[k];
      merges = kPlaces[k] == lane.gone ? kNoMerge - Eight{} : merges;
      merges = kPlaces[k] == lane.at ? right_merge - Eight{} : merges;
      lane.merges[k] = kPlaces[k] == lane.before ? left_merge - Eight{} : merges;
    }
  }

  [[gnu::always_inline]] static void finish(const Lane& lane) noexcept {
    Bpe::Job& job = *lane.job;
    uint32_t rest = lane.alive & ~uint32_t{1};
    size_t count = 0;
    for (; (rest & (rest - 1)) != 0; rest &= rest - 1) {
      job.out[count++] = lane.ids[std::countr_zero(rest)];
    }
    job.count = count;
  }

  const Bpe& bpe_;
  size_t ready_ = 0;
  Lane lanes_[kAtOnce];
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
