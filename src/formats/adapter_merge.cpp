#include "formats/adapter_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/error.h"
#include "formats/convert_floats.h"

namespace quern {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kHead = "lm_head.weight";
constexpr int64_t kMaxRank = 1 << 16;

bool is_embedding(std::string_view name) {
  constexpr std::array<std::string_view, 4> kNames = {"embed_tokens.weight", "wte.weight",
                                                      "embed_in.weight", "word_embeddings.weight"};
  return std::ranges::any_of(kNames, [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

AdapterMerge::AdapterMerge(const TensorStore& base, const std::vector<fs::path>& adapters,
                           double scale, MakeFloats make)
    : base_(base), make_(std::move(make)) {
  adapters_.reserve(adapters.size());
  for (const fs::path& folder : adapters) {
    const fs::path file = folder / "adapter_model.safetensors";
    if (!fs::exists(file)) throw_bad_input(folder.string() + ": has no adapter_model.safetensors");
    adapters_.push_back(TensorStore::open(file));
    read(folder, adapters_.back(), scale);
  }
  if (updates_ == 0 && full_.empty()) throw_bad_input("the adapters change no tensor");
}

void AdapterMerge::read(const fs::path& folder, const TensorStore& tensors, double scale) {
  const AdapterConfig config = read_adapter_config(folder);
  const std::string file = (folder / "adapter_model.safetensors").string();
  for (const NonFinite& bad : find_nonfinite(tensors)) {
    throw_bad_input(
        fmt::format("{}: {} has {} values that are not finite", file, bad.name, bad.count));
  }
  std::set<std::string> taken;
  for (const std::string& name : tensors.names()) {
    const std::string_view rest =
        name.starts_with(kPrefix) ? std::string_view(name).substr(kPrefix.size()) : "";
    if (rest.ends_with(".lora_A.weight")) {
      const std::string module(rest.substr(0, rest.find(".lora_A.weight")));
      const std::string other = fmt::format("{}{}.lora_B.weight", kPrefix, module);
      const auto b = tensors.find(other);
      if (!b) {
        throw_bad_input(fmt::format("{}: has only one of lora_A and lora_B for {}", file, module));
      }
      const ConstTensorView a = tensors.at(name);
      const auto target = base_.find(module + ".weight");
      if (!target) {
        throw_bad_input(
            fmt::format("{}: updates {}, which {} lacks", file, module, base_.source().string()),
            "the adapter belongs to another model");
      }
      const Shape& shape = target->shape;
      const int64_t rank = a.shape.rank() == 2 ? a.shape[0] : 0;
      const bool fits = shape.rank() == 2 && rank >= 1 && rank <= kMaxRank &&
                        a.shape == Shape{rank, shape[1]} && b->shape == Shape{shape[0], rank};
      if (!fits) {
        throw_bad_input(
            fmt::format("{}: the update of {} is {} and {}, the matrix {}", file, module,
                        to_string(a.shape), to_string(b->shape), to_string(shape)),
            "the adapter belongs to another model");
      }
      if (!config.targets(module) || rank != config.rank_of(module)) {
        throw_bad_input(
            fmt::format("{}: the update of {} has rank {}, which adapter_config.json does not say",
                        file, module, rank));
      }
      low_rank_[module + ".weight"].push_back(
          {a, *b, static_cast<float>(config.scale(module) * scale), file + ": " + module});
      taken.insert({name, other});
      ++updates_;
    } else if (rest.ends_with(".weight") && !rest.ends_with(".lora_B.weight") &&
               !rest.ends_with(".lora_A.weight")) {
      save_in_full(std::string(rest), folder, tensors.at(name));
      taken.insert(name);
    }
  }
  for (const std::string& name : tensors.names()) {
    if (taken.contains(name)) continue;
    throw_bad_input(fmt::format("{}: the tensor {} belongs to no module of the model", file, name));
  }
}

// A tied head stays what it was where the embedding alone was trained in full, and the other way
// round, as in training: the two are apart from then on.
void AdapterMerge::save_in_full(const std::string& name, const fs::path& folder,
                                const ConstTensorView& full) {
  const bool tied = !base_.find(kHead);
  std::optional<ConstTensorView> replaced = base_.find(name);
  std::string embedding;
  for (const std::string& each : base_.names()) {
    if (is_embedding(each)) embedding = each;
  }
  if (!replaced && name == kHead && !embedding.empty()) replaced = base_.find(embedding);
  if (!replaced) {
    throw_bad_input(fmt::format("{}: stores {} in full, which {} lacks", folder.string(), name,
                                base_.source().string()),
                    "the adapter belongs to another model");
  }
  if (!(replaced->shape == full.shape)) {
    throw_bad_input(fmt::format("{}: {} is {}, the model's {}", folder.string(), name,
                                to_string(full.shape), to_string(replaced->shape)),
                    "the adapter belongs to another model");
  }
  if (tied && (name == kHead || name == embedding)) {
    unties_ = true;
    embedding_ = embedding;
    full_.try_emplace(std::string(kHead), base_.at(embedding));
  }
  full_.insert_or_assign(name, full);
}

std::vector<std::string> AdapterMerge::names() const {
  std::vector<std::string> names = base_.names();
  if (unties_) names.emplace_back(kHead);
  std::ranges::sort(names);
  return names;
}

ConstTensorView AdapterMerge::view(const std::string& name) const {
  const auto full = full_.find(name);
  return full == full_.end() ? base_.at(name) : full->second;
}

bool AdapterMerge::changes(const std::string& name) const {
  return low_rank_.contains(name) || full_.contains(name);
}

std::vector<float> AdapterMerge::values(const std::string& name, ThreadPool& pool) const {
  const ConstTensorView before = view(name);
  std::vector<float> out = before.data != nullptr     ? to_floats(before, name)
                           : unties_ && name == kHead ? make_(embedding_)
                                                      : make_(name);
  const auto found = low_rank_.find(name);
  if (found == low_rank_.end()) return out;
  for (const Update& update : found->second) {
    const std::vector<float> a = to_floats(update.a, update.where);
    const std::vector<float> b = to_floats(update.b, update.where);
    const auto rank = static_cast<size_t>(update.a.shape[0]);
    const auto cols = static_cast<size_t>(update.a.shape[1]);
    pool.parallel_for(update.b.shape[0], 8, [&](int64_t begin, int64_t end, int) {
      std::vector<float> row(cols);
      for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
        std::ranges::fill(row, 0.0f);
        for (size_t k = 0; k < rank; ++k) {
          const float factor = b[r * rank + k];
          for (size_t c = 0; c < cols; ++c) row[c] += factor * a[k * cols + c];
        }
        for (size_t c = 0; c < cols; ++c) out[r * cols + c] += update.scale * row[c];
      }
    });
  }
  return out;
}

}  // namespace quern
