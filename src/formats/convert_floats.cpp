#include "formats/convert_floats.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace quern {

void encode_floats(std::span<const float> values, DType dtype, std::vector<std::byte>& out) {
  assert(dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16);
  out.resize(values.size() * size_bytes(dtype));
  if (dtype == DType::F32) {
    std::memcpy(out.data(), values.data(), out.size());
    return;
  }
  auto* words = reinterpret_cast<uint16_t*>(out.data());
  std::transform(values.begin(), values.end(), words, dtype == DType::F16 ? to_f16 : to_bf16);
}

}  // namespace quern
