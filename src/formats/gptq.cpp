#include "formats/gptq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

GptqConfig parse(const Json& json) {
  if (const std::string method = json.string_or("quant_method", "gptq"); method != "gptq") {
    json.fail(fmt::format("has the quant_method '{}', expected gptq", printable(method, 40)));
  }
  const std::string format = json.string_or("checkpoint_format", "gptq");
  if (format != "gptq") {
    json.fail(fmt::format("has the checkpoint_format '{}', expected gptq", printable(format, 40)),
              "other formats store their zero points differently");
  }
  GptqConfig config;
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
  return std::nullopt;
}

GptqTensors read_gptq(const TensorStore& store, const std::string& module, const GptqConfig& config,
                      int64_t in, int64_t out) {
  const auto get = [&](const char* member, DType dtype, const Shape& shape) {
    const std::string name = module + "." + member;
    const auto view = store.find(name);
    if (!view) {
      throw_bad_input(fmt::format("{}: lacks the tensor {}", store.source().string(), name),
                      "a GPTQ matrix has qweight, qzeros, scales and g_idx");
    }
    if (view->dtype != dtype || !(view->shape == shape)) {
      throw_bad_input(fmt::format("{}: {} is {} {}, expected {} {}", store.file_of(name), name,
                                  quern::name(view->dtype), to_string(view->shape),
                                  quern::name(dtype), to_string(shape)));
    }
    return *view;
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
  const GptqTensors tensors = {
      .qweight = get("qweight", DType::I32, {in / per, out}),
      .qzeros = get("qzeros", DType::I32, {groups, out / per}),
      .scales = get("scales", DType::F16, {groups, out}),
      .g_idx = get("g_idx", DType::I32, {in}),
      .bits = bits,
  };
  for (const int32_t index : tensors.g_idx.as<int32_t>()) {
    if (index >= 0 && index < groups) continue;
    throw_bad_input(fmt::format("{}: {}.g_idx has the group {}, expected 0 to {}",
                                store.file_of(module + ".g_idx"), module, index, groups - 1));
  }
  for (const uint16_t half : tensors.scales.as<uint16_t>()) {
    const float scale = from_f16(half);
    if (std::isfinite(scale) && scale != 0) continue;
    throw_bad_input(fmt::format("{}: {}.scales has the scale {}", store.file_of(module + ".scales"),
                                module, scale));
  }
  return tensors;
}

}  // namespace quern
