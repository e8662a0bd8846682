// Shapes, and views of tensors that somebody else owns.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace quern {

// Up to eight dimensions, outermost first.
class Shape {
 public:
  static constexpr size_t kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims) : rank_(dims.size()) {
    assert(dims.size() <= kMaxRank);
    for (size_t i = 0; i < rank_; ++i) dims_[i] = dims[i];
  }

  size_t rank() const noexcept { return rank_; }
  int64_t operator[](size_t i) const noexcept { return dims_[i]; }
  const int64_t* begin() const noexcept { return dims_.data(); }
  const int64_t* end() const noexcept { return dims_.data() + rank_; }

  // Product of the dimensions; 1 for a scalar. Shapes from files are checked before they get here.
  int64_t count() const noexcept {
    int64_t product = 1;
    for (const int64_t dim : *this) product *= dim;
    return product;
  }

  bool operator==(const Shape& other) const noexcept {
    if (rank_ != other.rank_) return false;
    for (size_t i = 0; i < rank_; ++i) {
      if (dims_[i] != other.dims_[i]) return false;
    }
    return true;
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  size_t rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[12288, 4096]"

// A dense, row-major tensor in memory that this view does not own.
struct ConstTensorView {
  DType dtype = DType::F32;
  Shape shape;
  const std::byte* data = nullptr;

  size_t size_bytes() const noexcept {
    return static_cast<size_t>(shape.count()) * quern::size_bytes(dtype);
  }
  // The elements as T, whose size must be that of dtype.
  template <class T>
  std::span<const T> as() const noexcept {
    assert(sizeof(T) == quern::size_bytes(dtype));
    return {reinterpret_cast<const T*>(data), static_cast<size_t>(shape.count())};
  }
};

}  // namespace quern
