// Memory for tables that are read at random places: on pages of 2 MB, where the system gives them,
// so that finding an address does not cost more than reading what is there.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>

namespace quern {

template <class T>
struct HugePages {
  using value_type = T;

  HugePages() = default;
  template <class U>
  HugePages(const HugePages<U>&) noexcept {}

  T* allocate(size_t count) {
    constexpr size_t kPage = size_t{2} << 20;
    if (count > PTRDIFF_MAX / 2 / sizeof(T)) throw std::bad_alloc();
    const size_t used = count * sizeof(T);
    size_t bytes = used;
    // Small tables are not worth a page of their own.
    const size_t alignment = bytes >= kPage / 4 ? kPage : 64;
    bytes = (bytes + alignment - 1) & ~(alignment - 1);
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    if (alignment == kPage) {
      // The end of a table is not worth a page of which less than half is used.
      const size_t end = used % kPage;
      const bool whole = bytes == kPage || end == 0 || end >= kPage / 2;
      ::madvise(memory, whole ? bytes : bytes - kPage, MADV_HUGEPAGE);
    }
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) noexcept { std::free(memory); }

  template <class U>
  bool operator==(const HugePages<U>&) const noexcept {
    return true;
  }
};

// The same without what vectors write into new elements: whoever fills them can do so with many
// threads.
template <class T>
struct RawHugePages : HugePages<T> {
  static_assert(std::is_trivially_default_constructible_v<T>);

  RawHugePages() = default;
  template <class U>
  RawHugePages(const RawHugePages<U>&) noexcept {}
  template <class U>
  struct rebind {
    using other = RawHugePages<U>;
  };
  void construct(T*) noexcept {}
  void construct(T* at, const T& value) noexcept { *at = value; }
};

// An array of zeros on such pages, which the system clears when they are touched first. The first
// `small` elements are on ordinary pages: of an array that is filled from the front, and often not
// far, these cost less.
template <class T>
class ZeroPages {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit ZeroPages(size_t size, size_t small = 0) : size_(size) {
    constexpr size_t kPage = size_t{2} << 20;
    reserved_ = size * sizeof(T) + kPage;
    memory_ = ::mmap(nullptr, reserved_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(memory_);
    data_ = reinterpret_cast<T*>((address + kPage - 1) & ~(kPage - 1));
    const size_t small_bytes = (small * sizeof(T) + kPage - 1) & ~(kPage - 1);
    if (small_bytes < size * sizeof(T)) {
      ::madvise(reinterpret_cast<char*>(data_) + small_bytes, size * sizeof(T) - small_bytes,
                MADV_HUGEPAGE);
    }
  }
  ~ZeroPages() { ::munmap(memory_, reserved_); }
  ZeroPages(const ZeroPages&) = delete;
  ZeroPages& operator=(const ZeroPages&) = delete;

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  T& operator[](size_t i) noexcept { return data_[i]; }
  const T& operator[](size_t i) const noexcept { return data_[i]; }

 private:
  void* memory_;
  size_t reserved_, size_;
  T* data_;
};

}  // namespace quern
