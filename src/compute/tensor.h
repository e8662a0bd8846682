// Tensors as kernels see them. A Tensor owns memory that a Backend gave out; the views borrow.
// Activations are float32; weights keep the format of their file.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "core/dtype.h"
#include "core/shape.h"

namespace quern {

// Frees what a backend allocated.
struct BufferDeleter {
  void (*free)(std::byte*) noexcept = nullptr;
  void operator()(std::byte* data) const noexcept {
    if (free != nullptr) free(data);
  }
};
using Buffer = std::unique_ptr<std::byte[], BufferDeleter>;

// An owned dense tensor. Backend::allocate makes them; the memory starts out as zeros.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape, Buffer buffer)
      : dtype_(dtype), shape_(shape), buffer_(std::move(buffer)) {}

  bool empty() const noexcept { return buffer_ == nullptr; }
  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  int64_t count() const noexcept { return empty() ? 0 : shape_.count(); }
  size_t bytes() const noexcept { return static_cast<size_t>(count()) * size_bytes(dtype_); }
  std::byte* data() noexcept { return buffer_.get(); }
  const std::byte* data() const noexcept { return buffer_.get(); }

  // The elements, where the memory is the host's.
  std::span<float> floats() noexcept {
    assert(dtype_ == DType::F32);
    return {reinterpret_cast<float*>(buffer_.get()), static_cast<size_t>(count())};
  }
  std::span<const float> floats() const noexcept {
    assert(dtype_ == DType::F32);
    return {reinterpret_cast<const float*>(buffer_.get()), static_cast<size_t>(count())};
  }
  ConstTensorView view() const noexcept { return {dtype_, shape_, buffer_.get()}; }

 private:
  DType dtype_ = DType::F32;
  Shape shape_;
  Buffer buffer_;
};

// Rows of floats, `stride` elements apart: [rows, cols]. Where only reading is meant the parameter
// is `Rows<const float>`.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  T* row(int64_t r) const noexcept { return data + r * stride; }
  Rows slice(int64_t begin, int64_t end) const noexcept {
    return {data + begin * stride, end - begin, cols, stride};
  }
  // The columns [begin, begin + width) of every row.
  Rows columns(int64_t begin, int64_t width) const noexcept {
    return {data + begin, rows, width, stride};
  }
  operator Rows<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};
using MutRows = Rows<float>;
using ConstRows = Rows<const float>;

// The first `rows` rows of a tensor [capacity, cols].
inline MutRows rows_of(Tensor& t, int64_t rows) noexcept {
  const int64_t cols = t.shape()[t.shape().rank() - 1];
  assert(rows * cols <= t.count());
  return {t.floats().data(), rows, cols, cols};
}

// GPTQ's packing of a matrix, as auto-gptq writes it (fixtures: README, "GPTQ"). The logical matrix
// is [out, in]; the packed words run down the input axis, one column for each output.
struct GptqMatrix {
  const uint32_t* qweight = nullptr;  // [in * bits / 32, out]
  const uint32_t* qzeros = nullptr;   // [groups, out * bits / 32], true zero minus zero_shift
  const uint16_t* scales = nullptr;   // [groups, out], float16
  const int32_t* g_idx = nullptr;     // [in], group of each input
  int64_t out = 0;
  int bits = 4;  // 4 or 8
  int zero_shift = 1;
};

struct PackedMatrix;  // compute/packed.h

enum class WeightFormat : uint8_t { F32, F16, BF16, Gptq, Packed };

// A matrix [rows, cols] that multiplies activations: out = x · weightᵀ. Borrows its memory.
struct Weight {
  WeightFormat format = WeightFormat::F32;
  int64_t rows = 0;                 // outputs
  int64_t cols = 0;                 // inputs
  const std::byte* data = nullptr;  // dense formats: row-major, rows `cols` elements apart
  const GptqMatrix* gptq = nullptr;
  const PackedMatrix* packed = nullptr;
  int64_t first_row = 0;  // Gptq, Packed: the rows [first_row, first_row + rows) of *gptq, *packed

  bool empty() const noexcept { return rows == 0; }

  // The rows [begin, begin + count) as a weight of their own.
  Weight slice(int64_t begin, int64_t count) const noexcept {
    assert(begin + count <= rows);
    Weight part = *this;
    part.rows = count;
    if (format == WeightFormat::Gptq || format == WeightFormat::Packed) {
      part.first_row += begin;
    } else {
      part.data += static_cast<size_t>(begin * cols) * (format == WeightFormat::F32 ? 4 : 2);
    }
    return part;
  }
};

}  // namespace quern
