// Keys and values of the tokens seen so far, in pages of 64 positions that sequences take from one
// pool: what lets many sequences of unequal length share memory without moving it.
#pragma once

#include <cstdint>
#include <vector>

#include "compute/backend.h"
#include "core/dtype.h"
#include "model/config.h"

namespace quern {

// How a sequence treats positions beyond the trained length. Each sequence has its own: the factor
// of dynamic NTK is never shared by a batch nor kept in the model.
struct ContextRules {
  bool dynamic_ntk = false;
  bool logn = false;
};

// What may be done with a cache of this type beside feeding a sequence from end to end, without
// changing a byte of what comes out. The release's 8-bit cache (U8) has one scale for all the new
// positions of a call, so each of these would change it.
struct KvPolicy {
  bool chunked = true;     // a prompt may be fed in several calls
  bool shared = true;      // positions that another sequence filled may be taken over
  bool recomputed = true;  // a sequence may lose its pages and be fed again
  bool guessed = true;     // several ids may be fed and some taken back: speculation
};
KvPolicy kv_policy(DType dtype) noexcept;

class KvCache;

// One sequence's past. It owns its pages and gives them back when it goes.
class Sequence {
 public:
  // `prompt_length` is the whole prompt's, also when it is fed in chunks: dynamic NTK's factor is
  // taken from it once and kept, for cached keys are never rotated again. `offset` is added to
  // positions in angles and LogN (a left-padded reference counts its pads).
  Sequence(KvCache& cache, const Config& config, ContextRules rules, int64_t prompt_length,
           int64_t offset = 0);
  ~Sequence();
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&& other) noexcept;

  int64_t length() const noexcept { return length_; }
  int64_t offset() const noexcept { return offset_; }
  bool logn() const noexcept { return logn_; }
  // What cached keys were rotated by, to tell sequences apart that cannot share them.
  double rotation() const noexcept { return long_factors_ ? -alpha_ : alpha_; }
  // LongRope: whether with `length` positions it needs other frequencies than it has, so that all of
  // it is to be computed again, from restart() on.
  bool outgrown_by(const Config& config, int64_t length) const noexcept;
  // Gives all pages back and begins anew as a sequence whose prompt has `length` tokens.
  void restart(const Config& config, int64_t length);
  std::span<const float> inverse_frequencies() const noexcept { return inverse_frequencies_; }
  std::byte* const* pages() const noexcept { return pages_.data(); }

  int64_t page_count() const noexcept { return static_cast<int64_t>(pages_.size()); }

  // Pages for `tokens` positions in all. Throws NoResources when the pool is used up.
  void reserve(int64_t tokens);
  // The next page_tokens positions stand in `page`, which another sequence or a cache filled under
  // the same rules and which is shared from now on. length() must be at a page's begin.
  void share_page(std::byte* page);
  // The next `tokens` positions as the first of `page`, copied: length() must be at a page's begin.
  void copy_page(const std::byte* page, int64_t tokens);
  // Another page with the same content takes the place of the sequence's own.
  void replace_page(int64_t place, std::byte* page) noexcept;
  // Gives all pages back and forgets every position; the rules stay.
  void release() noexcept;
  // The new tokens of a forward pass are in.
  void advance(int64_t tokens) noexcept { length_ += tokens; }
  // Forgets the positions from `length` on; their pages stay reserved.
  void truncate(int64_t length) noexcept { length_ = length; }

 private:
  KvCache* cache_;
  std::vector<std::byte*> pages_;
  std::vector<float> inverse_frequencies_;
  double alpha_ = 1;
  bool logn_ = false;
  bool long_factors_ = false;
  int64_t offset_ = 0;
  int64_t length_ = 0;
};

// The pool. Its memory is touched, and so used, only as pages are written.
class KvCache {
 public:
  // `dtype`: F32, F16, BF16, U8 for the release's 8-bit cache, I8 for one scale a token and head.
  // `capacity` is in positions, over all sequences, and is rounded up to whole pages for each of
  // `sequences`.
  KvCache(Backend& backend, const Config& config, DType dtype, int64_t capacity,
          int64_t sequences = 1);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvLayout& layout() const noexcept { return layout_; }
  int64_t pages() const noexcept { return static_cast<int64_t>(users_.size()); }
  int64_t free_pages() const noexcept { return static_cast<int64_t>(free_.size()); }
  int64_t page_bytes() const noexcept { return page_bytes_; }
  // All pages, in the order in which they are taken first.
  std::span<std::byte> memory() noexcept { return {memory_.data(), memory_.bytes()}; }

  // Pages are counted: one with several users goes back to the pool when the last lets go.
  std::byte* take();  // throws NoResources when the pool is used up
  void retain(std::byte* page) noexcept { ++users_[index(page)]; }
  void release(std::byte* page) noexcept;
  int32_t users(const std::byte* page) const noexcept { return users_[index(page)]; }
  static uint64_t bytes_per_token(const Config& config, DType dtype) noexcept;

 private:
  size_t index(const std::byte* page) const noexcept {
    return static_cast<size_t>((page - memory_.data()) / page_bytes_);
  }

  KvLayout layout_;
  int64_t page_bytes_ = 0;
  Tensor memory_;
  std::vector<std::byte*> free_;
  std::vector<int32_t> users_;  // of each page
};

}  // namespace quern
