#include "formats/fp8.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "core/error.h"
#include "formats/safetensors.h"
#include "formats/unread_keys.h"

namespace quern {

bool is_fp8_method(const Json& json) {
  const std::string method = json.string_or("quant_method", "");
  if (method == "fp8" || method == "fbgemm_fp8") {
    if (const std::string format = json.string_or("fmt", "e4m3"); format != "e4m3") {
      json.at("fmt").fail(fmt::format("is '{}', expected e4m3", printable(format, 40)));
    }
    return true;
  }
  if (method != "compressed-tensors") return false;
  if (const auto rotations = json.find("transform_config"); rotations && !is_off(*rotations)) {
    throw Error(Kind::Unsupported, rotations->where() + " is set, which is not supported");
  }
  if (const auto sparsity = json.find("sparsity_config")) {
    if (const std::string format = sparsity->string_or("format", "dense"); format != "dense") {
      sparsity->at("format").fail(fmt::format("is '{}', expected dense", printable(format, 40)));
    }
  }
  for (const auto& [name, group] : json.at("config_groups").members()) {
    const Json weights = group.at("weights");
    if (weights.string_or("type", "") != "float" || weights.integer_or("num_bits", 0) != 8) {
      weights.fail("is not of floats of 8 bits", "compressed-tensors are read where they are FP8");
    }
  }
  return true;
}

Fp8Config read_fp8_config(const fs::path& folder) {
  Fp8Config config;
  const fs::path path = folder / "config.json";
  if (!fs::exists(path)) return config;
  const Json json = Json::parse_file(path.string(), {.max_bytes = size_t{16} << 20});
  const auto quantization = json.find("quantization_config");
  if (!quantization) return config;
  if (const auto block = quantization->find("weight_block_size")) {
    if (block->size() != 2) block->fail("is not a list of two sizes");
    config.block_rows = (*block)[0].integer(1, 1 << 20);
    config.block_cols = (*block)[1].integer(1, 1 << 20);
  }
  return config;
}

std::vector<std::string> fp8_scale_names(std::string_view module) {
  return {fmt::format("{}.weight_scale_inv", module), fmt::format("{}.weight_scale", module),
          fmt::format("{}.input_scale", module), fmt::format("{}.activation_scale", module),
          fmt::format("{}.input_scale_ub", module)};
}

std::vector<std::byte> fp8_to_bf16(const ConstTensorView& levels, const ConstTensorView& scales,
                                   const Fp8Config& config, const std::string& where) {
  const int64_t cols = levels.shape.rank() < 1 ? 1 : levels.shape[levels.shape.rank() - 1];
  const int64_t rows = cols == 0 ? 0 : levels.shape.count() / cols;
  const std::vector<float> factor = to_floats(scales, where + ": its scale");
  const auto blocks = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
  const auto count = static_cast<int64_t>(factor.size());
  int64_t block_rows = rows, block_cols = cols;
  const bool two = scales.shape.rank() == 2;
  if (count == 1) {
  } else if (count == rows && (!two || scales.shape[1] == 1)) {
    block_rows = 1;
  } else if (two && scales.shape[0] == blocks(rows, config.block_rows) &&
             scales.shape[1] == blocks(cols, config.block_cols)) {
    block_rows = config.block_rows;
    block_cols = config.block_cols;
  } else {
    throw_bad_input(fmt::format("{} is {}, its scales are {}, which fits no blocks of {} x {}",
                                where, to_string(levels.shape), to_string(scales.shape),
                                config.block_rows, config.block_cols));
  }
  for (const float scale : factor) {
    if (!std::isfinite(scale)) throw_bad_input(where + " has a scale that is not finite");
  }
  std::array<float, 256> value;
  for (size_t bits = 0; bits < value.size(); ++bits) {
    value[bits] = from_f8e4m3(static_cast<uint8_t>(bits));
  }
  std::vector<std::byte> out(static_cast<size_t>(rows * cols) * 2);
  auto* to = reinterpret_cast<uint16_t*>(out.data());
  const auto* from = reinterpret_cast<const uint8_t*>(levels.data);
  const int64_t across = blocks(cols, std::max<int64_t>(block_cols, 1));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float scale = factor[static_cast<size_t>(r / block_rows * across + c / block_cols)];
      to[r * cols + c] = to_bf16(value[from[r * cols + c]] * scale);
    }
  }
  return out;
}

}  // namespace quern
