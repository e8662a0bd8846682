#include "model/float_base.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "formats/convert_floats.h"
#include "formats/gguf.h"
#include "model/gguf_names.h"
#include "model/tensors.h"

namespace quern {
namespace {

// W [out, in] from its packing (GptqMatrix in compute/tensor.h says how it lies).
std::vector<float> unpack(const GptqTensors& t, int64_t out, int64_t in, const std::string& name) {
  const auto* levels = reinterpret_cast<const uint32_t*>(t.qweight.data);
  const auto* zeros = reinterpret_cast<const uint32_t*>(t.qzeros.data);
  const auto* groups = reinterpret_cast<const int32_t*>(t.g_idx.data);
  const std::vector<float> scales = to_floats(t.scales, name);
  const int64_t per = 32 / t.bits;
  const uint32_t mask = (1u << t.bits) - 1u;
  const auto number = [&](const uint32_t* words, int64_t index, int64_t stride, int64_t word) {
    return static_cast<int>(words[word * stride] >> (static_cast<int>(index % per) * t.bits) &
                            mask);
  };
  std::vector<float> values(static_cast<size_t>(out * in));
  for (int64_t i = 0; i < in; ++i) {
    const int64_t group = groups[i];
    for (int64_t j = 0; j < out; ++j) {
      const int level = number(levels + j, i, out, i / per);
      const int zero = number(zeros + group * (out / per), j, 1, j / per) + t.zero_shift;
      values[static_cast<size_t>(j * in + i)] =
          scales[static_cast<size_t>(group * out + j)] * static_cast<float>(level - zero);
    }
  }
  return values;
}

}  // namespace

FloatBase::FloatBase(const fs::path& model, const Config& config, DType blocks)
    : stored_(is_gguf(model) ? gguf_tensors(model, config, {.blocks = blocks})
                             : TensorStore::open(model)),
      floats_(TensorStore::of_memory(model, {}, nullptr)) {
  if (is_gguf(model)) {
    read_gguf(config, blocks);
    return;
  }
  const auto gptq = read_gptq_config(model);
  if (!gptq) throw_bad_input(model.string() + ": is not quantized");
  gptq_ = *gptq;
  read_packed(config);
}

void FloatBase::read_gguf(const Config& config, DType blocks) {
  const Config files = family_layout(config);
  relayout_ = std::make_unique<Relayout>(stored_, config, files);
  std::vector<HeldTensor> tensors;
  for (const TensorSpec& spec : tensor_specs(files)) {
    tensors.push_back({spec.name, {}, {blocks, file_shape(spec, files), nullptr}});
    made_.emplace(spec.name, spec);
  }
  floats_ = TensorStore::of_memory(stored_.source(), std::move(tensors), nullptr);
}

void FloatBase::read_packed(const Config& config) {
  std::vector<HeldTensor> tensors;
  std::set<std::string, std::less<>> taken, known, modules;
  for (const TensorSpec& spec : tensor_specs(config)) {
    known.insert(spec.name);
    if (spec.role == Role::Bias || !stored_.find(spec.module + ".qweight")) continue;
    if (!(file_shape(spec, config) == spec.shape)) {
      throw Error(Kind::Unsupported,
                  fmt::format("{}: {} is quantized, but {} models keep it transposed in floats",
                              stored_.source().string(), spec.module, name(config.family)));
    }
    const GptqTensors read = read_gptq(stored_, spec.module, gptq_, spec.shape[1], spec.shape[0]);
    taken.insert(read.names.begin(), read.names.end());
    taken.insert(spec.module + ".g_idx");
    modules.insert(spec.module);
    tensors.push_back({spec.name, {}, {DType::F16, spec.shape, nullptr}});
    made_.emplace(spec.name, spec);
  }
  for (const std::string& name : stored_.names()) {
    if (taken.contains(name)) continue;
    const ConstTensorView view = stored_.at(name);
    // auto-gptq writes a bias for every matrix, zeros where the model has none.
    if (name.ends_with(".bias") && !known.contains(name) &&
        modules.contains(name.substr(0, name.size() - 5))) {
      if (std::ranges::all_of(to_floats(view, name), [](float x) { return x == 0; })) continue;
      throw Error(Kind::Unsupported,
                  fmt::format("{}: {} is not zero, but such models have no bias there",
                              stored_.file_of(name), name));
    }
    tensors.push_back({name, {}, view});
  }
  floats_ = TensorStore::of_memory(stored_.source(), std::move(tensors), nullptr);
}

std::vector<float> FloatBase::values(const std::string& name) const {
  const TensorSpec& spec = made_.at(name);
  if (relayout_ != nullptr) return relayout_->floats(spec);
  const int64_t out = spec.shape[0], in = spec.shape[1];
  return unpack(read_gptq(stored_, spec.module, gptq_, in, out), out, in, name);
}

}  // namespace quern
