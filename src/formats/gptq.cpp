#include "formats/gptq.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/json.h"
#include "formats/fp8.h"
#include "formats/unread_keys.h"

namespace quern {
namespace {

GptqConfig parse_gptq(const Json& json) {
  GptqConfig config;
  const std::string format = json.string_or("checkpoint_format", "gptq");
  if (format == "gptq_v2") {
    config.layout = GptqLayout::GptqV2;
  } else if (format != "gptq") {
    json.fail(fmt::format("has the checkpoint_format '{}', expected gptq or gptq_v2",
                          printable(format, 40)),
              "other formats store their zero points differently");
  }
  for (const char* field : {"is_marlin_format", "adapter", "rotation"}) {
    if (const auto value = json.find(field); value && !is_off(*value)) {
      throw Error(Kind::Unsupported, value->where() + " is set, which is not supported");
    }
  }
  if (const std::string words = json.string_or("pack_dtype", "int32"); words != "int32") {
    json.at("pack_dtype").fail(fmt::format("is '{}', expected int32", printable(words, 40)));
  }
  config.bits = static_cast<int>(json.at("bits").integer());
  if (config.bits != 4 && config.bits != 8) {
    json.at("bits").fail(fmt::format("is {}, expected 4 or 8", config.bits));
  }
  config.group_size = json.integer_or("group_size", -1, -1, int64_t{1} << 32);
  if (config.group_size == 0) json.at("group_size").fail("is 0, expected -1 or a number of inputs");
  config.desc_act = json.boolean_or("desc_act", false);
  config.sym = json.boolean_or("sym", true);
  if (const auto dynamic = json.find("dynamic")) config.mixed = dynamic->size() > 0;
  return config;
}

// `bits` and `group` under the names of config.json or of AWQ's own file.
GptqConfig parse_awq(const Json& json, const char* bits, const char* group) {
  GptqConfig config;
  config.layout = GptqLayout::AwqGemm;
  const std::string version = json.string_or("version", "gemm");
  if (version != "gemm" && version != "GEMM") {
    json.at("version").fail(fmt::format("is '{}', expected gemm", printable(version, 40)));
  }
  if (const int64_t count = json.at(bits).integer(); count != 4) {
    json.at(bits).fail(fmt::format("is {}, expected 4", count));
  }
  config.group_size = json.at(group).integer(-1, int64_t{1} << 32);
  if (config.group_size == 0) json.at(group).fail("is 0, expected -1 or a number of inputs");
  if (!json.boolean_or("zero_point", true)) {
    json.at("zero_point").fail("is false, which is not supported");
  }
  config.sym = false;
  return config;
}

std::optional<GptqConfig> parse(const Json& json) {
  const std::string method = json.string_or("quant_method", "gptq");
  if (method == "gptq") return parse_gptq(json);
  if (method == "awq") return parse_awq(json, "bits", "group_size");
  if (is_fp8_method(json)) return std::nullopt;
  json.fail(
      fmt::format("has the quant_method '{}', expected gptq, awq or fp8", printable(method, 40)));
}

std::vector<std::byte> bytes_from(const auto& values) {
  const auto raw = std::as_bytes(std::span(values));
  return {raw.begin(), raw.end()};
}

// Outputs of eight nibbles of AWQ's words: nibble i holds the output kAwqOrder[i] of the eight.
constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

uint32_t awq_value(const ConstTensorView& words, int64_t row, int64_t column) {
  static constexpr auto kPlace = [] {
    std::array<int, 8> place{};
    for (int i = 0; i < 8; ++i) place[static_cast<size_t>(kAwqOrder[i])] = i;
    return place;
  }();
  const auto word = static_cast<uint32_t>(
      words.as<int32_t>()[static_cast<size_t>(row * words.shape[1] + column / 8)]);
  return word >> (4 * kPlace[static_cast<size_t>(column % 8)]) & 15u;
}

// AWQ's [in, out / 8] as GPTQ's [in / 8, out], and its zero points as [groups, out / 8] in order.
std::vector<std::byte> awq_levels(const ConstTensorView& words, int64_t in, int64_t out) {
  std::vector<uint32_t> made(static_cast<size_t>(in / 8 * out));
  for (int64_t k = 0; k < in; ++k) {
    for (int64_t j = 0; j < out; ++j) {
      made[static_cast<size_t>(k / 8 * out + j)] |= awq_value(words, k, j) << (4 * (k % 8));
    }
  }
  return bytes_from(made);
}
std::vector<std::byte> awq_zeros(const ConstTensorView& words, int64_t groups, int64_t out) {
  std::vector<uint32_t> made(static_cast<size_t>(groups * out / 8));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t j = 0; j < out; ++j) {
      made[static_cast<size_t>(g * out / 8 + j / 8)] |= awq_value(words, g, j) << (4 * (j % 8));
    }
  }
  return bytes_from(made);
}

}  // namespace

std::optional<GptqConfig> read_gptq_config(const fs::path& folder) {
  constexpr JsonLimits kLimits = {.max_bytes = size_t{16} << 20};
  if (fs::exists(folder / "config.json")) {
    const Json config = Json::parse_file((folder / "config.json").string(), kLimits);
    if (const auto quantization = config.find("quantization_config")) return parse(*quantization);
  }
  if (fs::exists(folder / "quantize_config.json")) {
    return parse(Json::parse_file((folder / "quantize_config.json").string(), kLimits));
  }
  if (fs::exists(folder / "quant_config.json")) {  // AutoAWQ's first form
    return parse_awq(Json::parse_file((folder / "quant_config.json").string(), kLimits), "w_bit",
                     "q_group_size");
  }
  return std::nullopt;
}

GptqTensors read_gptq(const TensorStore& store, const std::string& module, const GptqConfig& config,
                      int64_t in, int64_t out) {
  const bool awq = config.layout == GptqLayout::AwqGemm;
  GptqTensors tensors;
  const auto get = [&](const char* member, DType dtype, const Shape& shape) {
    const std::string name = module + "." + member;
    const auto view = store.find(name);
    if (!view) {
      throw_bad_input(fmt::format("{}: lacks the tensor {}", store.source().string(), name),
                      awq ? "an AWQ matrix has qweight, qzeros and scales"
                          : "a GPTQ matrix has qweight, qzeros and scales, and mostly g_idx");
    }
    const bool float_type =
        dtype == DType::F16 && (view->dtype == DType::BF16 || view->dtype == DType::F32);
    if ((view->dtype != dtype && !float_type) || !(view->shape == shape)) {
      throw_bad_input(fmt::format("{}: {} is {} {}, expected {} {}", store.file_of(name), name,
                                  quern::name(view->dtype), to_string(view->shape),
                                  quern::name(dtype), to_string(shape)));
    }
    tensors.names.push_back(name);
    return *view;
  };
  const auto make = [&](std::vector<std::byte> bytes, DType dtype, const Shape& shape) {
    tensors.made.push_back(std::move(bytes));
    return ConstTensorView{dtype, shape, tensors.made.back().data()};
  };
  int bits = config.bits;
  int64_t group = config.group_size < 0 ? in : config.group_size;
  if (config.mixed) {
    const auto words = store.find(module + ".qweight"), scales = store.find(module + ".scales");
    if (words && words->shape.rank() == 2 && words->shape[0] == in / 4) bits = 8;
    if (words && words->shape.rank() == 2 && words->shape[0] == in / 8) bits = 4;
    if (scales && scales->shape.rank() == 2 && scales->shape[0] > 0) group = in / scales->shape[0];
  }
  const int64_t per = 32 / bits;
  if (in % per != 0 || out % per != 0) {
    throw_bad_input(fmt::format("{}: {} is [{}, {}], which {}-bit packing cannot hold",
                                store.source().string(), module, out, in, bits));
  }
  if (group < 1 || group > in || in % group != 0) {
    throw_bad_input(fmt::format("{}: groups of {} do not divide the {} inputs of {}",
                                store.source().string(), group, in, module));
  }
  const int64_t groups = in / group;
  tensors.bits = bits;
  tensors.zero_shift = config.layout == GptqLayout::Gptq ? 1 : 0;
  tensors.made.reserve(4);  // what points at their bytes stays valid
  if (awq) {
    tensors.qweight = make(awq_levels(get("qweight", DType::I32, {in, out / 8}), in, out),
                           DType::I32, {in / 8, out});
    tensors.qzeros = make(awq_zeros(get("qzeros", DType::I32, {groups, out / 8}), groups, out),
                          DType::I32, {groups, out / 8});
  } else {
    tensors.qweight = get("qweight", DType::I32, {in / per, out});
    tensors.qzeros = get("qzeros", DType::I32, {groups, out / per});
  }
  tensors.scales = get("scales", DType::F16, {groups, out});
  if (tensors.scales.dtype != DType::F16) {
    std::vector<uint16_t> halves;
    for (const float scale : to_floats(tensors.scales, module)) halves.push_back(to_f16(scale));
    tensors.scales = make(bytes_from(halves), DType::F16, {groups, out});
  }
  if (!awq && store.find(module + ".g_idx")) {
    tensors.g_idx = get("g_idx", DType::I32, {in});
  } else {
    if (config.desc_act && groups > 1) get("g_idx", DType::I32, {in});  // throws: it is missing
    std::vector<int32_t> in_order;
    for (int64_t k = 0; k < in; ++k) in_order.push_back(static_cast<int32_t>(k / group));
    tensors.g_idx = make(bytes_from(in_order), DType::I32, {in});
  }
  for (const int32_t index : tensors.g_idx.as<int32_t>()) {
    if (index >= 0 && index < groups) continue;
    throw_bad_input(fmt::format("{}: {}.g_idx has the group {}, expected 0 to {}",
                                store.file_of(module + ".g_idx"), module, index, groups - 1));
  }
  for (const uint16_t half : tensors.scales.as<uint16_t>()) {
    const float scale = from_f16(half);
    // AWQ's scales may be zero: of a group of equal weights there is nothing to scale.
    if (std::isfinite(scale) && (scale != 0 || awq)) continue;
    throw_bad_input(fmt::format("{}: {}.scales has the scale {}", store.file_of(module + ".scales"),
                                module, scale));
  }
  return tensors;
}

void reorder_outputs(GptqTensors& tensors, std::span<const int32_t> rows) {
  // `bits` wide values in lines of `width` values each, read and written by their place in a line.
  const auto reorder = [&](ConstTensorView& view, int64_t lines, int64_t bits) {
    std::vector<std::byte>& out = tensors.made.emplace_back(view.size_bytes());
    const int64_t line_bytes = static_cast<int64_t>(view.size_bytes()) / lines;
    for (int64_t line = 0; line < lines; ++line) {
      const std::byte* from = view.data + line * line_bytes;
      std::byte* to = out.data() + line * line_bytes;
      for (size_t i = 0; i < rows.size(); ++i) {
        const auto at = static_cast<int64_t>(i), there = int64_t{rows[i]};
        if (bits >= 8) {
          std::memcpy(to + at * bits / 8, from + there * bits / 8, static_cast<size_t>(bits / 8));
          continue;
        }
        const auto nibble = static_cast<unsigned>(from[there / 2] >> (there % 2 * 4)) & 15;
        to[at / 2] |= static_cast<std::byte>(nibble << (at % 2 * 4));
      }
    }
    view.data = out.data();
  };
  reorder(tensors.qweight, tensors.qweight.shape[0], 32);
  reorder(tensors.scales, tensors.scales.shape[0], 16);
  reorder(tensors.qzeros, tensors.qzeros.shape[0], tensors.bits);
}

}  // namespace quern
