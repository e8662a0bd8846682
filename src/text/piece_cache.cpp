#include "text/piece_cache.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace quern {

const PieceCache::Key PieceCache::kKeep[16] = {
    {0, 0},
    {0xFF, 0},
    {0xFFFF, 0},
    {0xFFFFFF, 0},
    {0xFFFFFFFF, 0},
    {0xFFFFFFFFFF, 0},
    {0xFFFFFFFFFFFF, 0},
    {0xFFFFFFFFFFFFFF, 0},
    {~uint64_t{0}, 0},
    {~uint64_t{0}, 0xFF},
    {~uint64_t{0}, 0xFFFF},
    {~uint64_t{0}, 0xFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFFFF},
    {~uint64_t{0}, 0xFFFFFFFFFFFFFF},
};

// A key of zeros is no piece's: its length is not 0. One huge page, where the system gives it,
// spares address look-ups.
PieceCache::PieceCache() {
  constexpr size_t kBytes = sizeof(Slot) << kBits;
  void* memory = std::aligned_alloc(kBytes, kBytes);
  if (memory == nullptr) throw std::bad_alloc();
  ::madvise(memory, kBytes, MADV_HUGEPAGE);
  std::memset(memory, 0, kBytes);
  slots_.reset(static_cast<Slot*>(memory));
}

void PieceCache::Free::operator()(Slot* slots) const noexcept { std::free(slots); }

std::unique_ptr<PieceCache> PieceCaches::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<PieceCache> cache = std::move(idle_.back());
      idle_.pop_back();
      return cache;
    }
    idle_.reserve(idle_.capacity() + 1);  // so that giving it back cannot fail
  }
  return std::make_unique<PieceCache>();
}

void PieceCaches::give_back(std::unique_ptr<PieceCache> cache) noexcept {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < idle_.capacity()) idle_.push_back(std::move(cache));
}

}  // namespace quern
