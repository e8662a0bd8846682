#include "quantize/packing.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "formats/convert_floats.h"

namespace quern {
namespace {

template <class T>
OwnedTensor owned(std::string name, DType dtype, const Shape& shape, const std::vector<T>& values) {
  OwnedTensor tensor = {{std::move(name), dtype, shape}, {}};
  const auto bytes = std::as_bytes(std::span(values));
  tensor.bytes.assign(bytes.begin(), bytes.end());
  return tensor;
}

}  // namespace

std::vector<OwnedTensor> pack_gptq(const QuantizedMatrix& m, int bits, const std::string& module) {
  const int64_t per = 32 / bits;
  if (m.cols % per != 0 || m.rows % per != 0) {
    throw_bad_input(fmt::format("{} is [{}, {}], which {}-bit packing cannot hold", module, m.rows,
                                m.cols, bits),
                    fmt::format("both must be multiples of {}; --keep leaves it as it is", per));
  }
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  const auto shift = [&](int64_t i) { return static_cast<uint32_t>(bits * (i % per)); };
  std::vector<uint32_t> qweight(at(m.cols / per * m.rows)), qzeros(at(m.groups * m.rows / per));
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) {
      qweight[at(c / per * m.rows + r)] |= uint32_t{m.q[at(r * m.cols + c)]} << shift(c);
    }
    for (int64_t g = 0; g < m.groups; ++g) {
      const uint32_t stored = uint32_t{m.zeros[at(g * m.rows + r)]} - 1;
      qzeros[at(g * (m.rows / per) + r / per)] |= stored << shift(r);
    }
  }
  std::vector<uint16_t> scales(m.scales.size());
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = to_f16(m.scales[i]);
  return {owned(module + ".qweight", DType::I32, {m.cols / per, m.rows}, qweight),
          owned(module + ".qzeros", DType::I32, {m.groups, m.rows / per}, qzeros),
          owned(module + ".scales", DType::F16, {m.groups, m.rows}, scales),
          owned(module + ".g_idx", DType::I32, {m.cols}, m.g_idx)};
}

OwnedTensor half_tensor(const std::string& name, const Shape& shape,
                        std::span<const float> values) {
  OwnedTensor tensor = {{name, DType::F16, shape}, {}};
  encode_floats(values, DType::F16, tensor.bytes);
  const ConstTensorView view = {DType::F16, Shape{static_cast<int64_t>(values.size())},
                                tensor.bytes.data()};
  if (count_nonfinite(view) > 0) {
    throw_bad_input(name + " has values that are not finite, or too large for float16");
  }
  return tensor;
}

}  // namespace quern
