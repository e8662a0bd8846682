// A table of numbers that is filled once and then read: in memory of its own, on huge pages, or
// inside something that somebody else keeps, such as a mapped file.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/huge_pages.h"

namespace quern {

template <class T>
class Table {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using Vector = std::vector<T, HugePages<T>>;

  Table() = default;
  Table(size_t size, T value) : Table(Vector(size, value)) {}
  Table(Vector values) noexcept : own_(std::move(values)), data_(own_.data()), size_(own_.size()) {}
  // Of values that outlive the table.
  static Table view(std::span<const T> values) noexcept {
    Table table;
    table.data_ = values.data();
    table.size_ = values.size();
    return table;
  }
  Table(Table&&) noexcept = default;
  Table& operator=(Table&&) noexcept = default;

  const T* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  const T& operator[](size_t i) const noexcept { return data_[i]; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }

  T* writable() noexcept { return own_.data(); }  // of a table that is no view

 private:
  Vector own_;
  const T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace quern
