#include "formats/gguf_sampling.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>

#include "core/log.h"

namespace quern {
namespace {

constexpr double kMaxNumber = 1e6;
constexpr const char* kPrefix = "general.sampling.";

// The file's floats have 32 bits: 0.95 is meant, not 0.949999988.
double shortest(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

void warn_of_other_samplers(const GgufFile& file) {
  const auto warn = [&](const std::string& key) {
    log::warning(
        fmt::format("{}: {} is not applied: no such sampler here", file.path().string(), key));
  };
  for (const char* field : {"xtc_probability", "mirostat"}) {
    const std::string key = kPrefix + std::string(field);
    if (file.has(key) && file.number(key, -kMaxNumber, kMaxNumber) != 0) warn(key);
  }
  if (file.has(kPrefix + std::string("sequence"))) warn(kPrefix + std::string("sequence"));
  const std::string last = kPrefix + std::string("penalty_last_n");
  const std::string repeat = kPrefix + std::string("penalty_repeat");
  // Quern's penalty sees the whole text, which is what -1 asks for.
  if (file.has(last) && file.integer(last, -1, INT32_MAX) != -1 &&
      file.number_or(repeat, 1, 0, kMaxNumber) != 1) {
    warn(last);
  }
}

}  // namespace

GenerationConfig read_gguf_sampling(const GgufFile& file) {
  GenerationConfig out;
  const auto number = [&](const char* field, std::optional<double>& value) {
    const std::string key = kPrefix + std::string(field);
    if (file.has(key)) value = shortest(file.number(key, -kMaxNumber, kMaxNumber));
  };
  number("temp", out.temperature);
  number("top_p", out.top_p);
  number("min_p", out.min_p);
  number("penalty_repeat", out.repetition_penalty);
  const std::string top_k = kPrefix + std::string("top_k");
  if (file.has(top_k)) out.top_k = file.integer(top_k, 0, INT32_MAX);
  warn_of_other_samplers(file);
  return out;
}

void add_gguf_sampling(GgufWriter& out, const GenerationConfig& config) {
  const auto add = [&](const char* field, std::optional<double> value) {
    if (value) out.add_f32(kPrefix + std::string(field), static_cast<float>(*value));
  };
  if (config.top_k)
    out.add_i32(kPrefix + std::string("top_k"), static_cast<int32_t>(*config.top_k));
  add("top_p", config.top_p);
  add("min_p", config.min_p);
  add("temp", config.do_sample.value_or(true) ? config.temperature : 0.0);
  add("penalty_repeat", config.repetition_penalty);
}

}  // namespace quern
