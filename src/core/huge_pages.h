// Memory for tables that are read at random places: on pages of 2 MB, where the system gives them,
// so that finding an address does not cost more than reading what is there.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace quern {

template <class T>
struct HugePages {
  using value_type = T;

  HugePages() = default;
  template <class U>
  HugePages(const HugePages<U>&) noexcept {}

  T* allocate(size_t count) {
    constexpr size_t kPage = size_t{2} << 20;
    size_t bytes = count * sizeof(T);
    // Small tables are not worth a page of their own.
    const size_t alignment = bytes >= kPage / 4 ? kPage : 64;
    bytes = (bytes + alignment - 1) & ~(alignment - 1);
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    if (alignment == kPage) ::madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) noexcept { std::free(memory); }

  template <class U>
  bool operator==(const HugePages<U>&) const noexcept {
    return true;
  }
};

}  // namespace quern
