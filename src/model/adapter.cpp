#include "model/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "core/error.h"
#include "formats/adapter_config.h"
#include "formats/convert_floats.h"
#include "model/families.h"
#include "model/gguf_names.h"
#include "model/relayout.h"

namespace quern {
namespace {

constexpr const char* kAdapterFile = "adapter_model.safetensors";

}  // namespace

TensorStore open_adapter(const std::filesystem::path& folder) {
  const fs::path file = folder / kAdapterFile;
  if (!fs::exists(file)) throw_bad_input(folder.string() + ": has no adapter_model.safetensors");
  return TensorStore::open(file);
}

std::vector<AdapterUpdate> read_adapter(
    const std::filesystem::path& folder, const TensorStore& tensors, Weights& weights,
    const Config& config, const Config& layout, std::deque<std::vector<float>>& floats,
    const std::function<void(const TensorSpec&, const std::string&)>& saved) {
  const AdapterConfig adapter = read_adapter_config(folder);
  const fs::path file = folder / kAdapterFile;
  for (const NonFinite& bad : find_nonfinite(tensors)) {
    throw_bad_input(fmt::format("{}: {} has {} values that are not finite", file.string(), bad.name,
                                bad.count));
  }
  std::vector<AdapterUpdate> updates;
  std::set<std::string, std::less<>> taken;
  std::vector<TensorSpec> specs = tensor_specs(layout);
  if (config.tied) {  // an adapter may have a head of its own, trained apart from the embedding
    const std::string head(row_of(config.family).names.lm_head);
    specs.push_back({head + ".weight",
                     head,
                     {config.output_vocab, config.hidden},
                     Part::LmHead,
                     Role::Head,
                     -1});
  }
  for (const TensorSpec& spec : specs) {
    const std::string prefix = "base_model.model." + spec.module;
    if (spec.role != Role::Bias && tensors.find(prefix + ".weight")) {  // saved in full
      if (spec.part != Part::Embedding && spec.part != Part::LmHead) {
        throw_bad_input(
            fmt::format("{}: stores {} in full, which is supported for the embedding "
                        "and lm_head only",
                        file.string(), spec.module));
      }
      saved(spec, prefix + ".weight");
      taken.insert(prefix + ".weight");
      continue;
    }
    const auto a_view = tensors.find(prefix + ".lora_A.weight");
    const auto b_view = tensors.find(prefix + ".lora_B.weight");
    if (spec.role == Role::Bias || (!a_view && !b_view)) continue;
    if (!a_view || !b_view) {
      throw_bad_input(
          fmt::format("{}: has only one of lora_A and lora_B for {}", file.string(), spec.module));
    }
    const int64_t rank = a_view->shape.rank() == 2 ? a_view->shape[0] : 0;
    const int64_t rows = spec.shape[0], cols = spec.shape[1];
    if (rank < 1 || rank > (1 << 16)) {
      throw_bad_input(fmt::format("{}: {}.lora_A is {}, expected [rank, {}]", file.string(),
                                  spec.module, to_string(a_view->shape), cols));
    }
    if (!adapter.targets(spec.module)) {
      throw_bad_input(
          fmt::format("{}: has a low-rank update of {}, which target_modules does not "
                      "name",
                      file.string(), spec.module));
    }
    if (rank != adapter.rank_of(spec.module)) {
      throw_bad_input(fmt::format("{}: the update of {} has rank {}, adapter_config.json says {}",
                                  file.string(), spec.module, rank, adapter.rank_of(spec.module)));
    }
    const auto scale = static_cast<float>(adapter.scale(spec.module));
    const auto own = [&](const char* member, Role role, const Shape& shape) {
      const std::string name = prefix + member;
      const ConstTensorView view = tensors.at(name);
      if (!(view.shape == shape)) {
        throw_bad_input(fmt::format("{}: {} is {}, the model implies {}", file.string(), name,
                                    to_string(view.shape), to_string(shape)),
                        "the adapter was made for another model");
      }
      TensorSpec factor = spec;
      factor.role = role;
      factor.shape = shape;
      std::vector<float> values = to_floats(view, name);
      floats.push_back(values);
      if (!in_file_order(factor, layout)) {
        reorder_tensor(std::as_writable_bytes(std::span(floats.back())),
                       std::as_bytes(std::span(std::as_const(values))), factor, layout,
                       sizeof(float), TensorOrder::Ours);
      }
      return Weight{.format = WeightFormat::F32,
                    .rows = shape[0],
                    .cols = shape[1],
                    .data = reinterpret_cast<const std::byte*>(floats.back().data())};
    };
    const LowRank update = {.a = own(".lora_A.weight", Role::LoraA, {rank, cols}),
                            .b = own(".lora_B.weight", Role::LoraB, {rows, rank}),
                            .scale = scale};
    taken.insert({prefix + ".lora_A.weight", prefix + ".lora_B.weight"});
    const std::vector<LinearSlice> slices = linears_of(weights, spec, config);
    if (slices.empty()) {
      throw Error(Kind::Unsupported, fmt::format("{}: changes {}, which is not supported",
                                                 file.string(), spec.module));
    }
    for (const LinearSlice& slice : slices) {
      LowRank own_rows = update;
      own_rows.b = update.b.slice(slice.first_row, slice.rows);
      updates.push_back({slice.linear, own_rows, spec.module});
    }
  }
  for (const std::string& name : tensors.names()) {
    if (taken.contains(name)) continue;
    throw_bad_input(fmt::format("{}: {} of its {} tensors belong to no module of this model, {} "
                                "for one",
                                file.string(), tensors.size() - taken.size(), tensors.size(),
                                printable(name, 120)),
                    "the adapter was made for another model");
  }
  return updates;
}

std::shared_ptr<const Adapter> Adapter::load(const std::filesystem::path& folder,
                                             const std::filesystem::path& base,
                                             const Weights& model, const Config& config) {
  static std::atomic<uint64_t> next_id = 0;
  const auto not_alone = [&](const std::string& what) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: {}, which cannot be one sequence's choice", folder.string(), what),
                "load it with its model instead: --adapter");
  };
  std::shared_ptr<Adapter> adapter(new Adapter);
  const TensorStore tensors = open_adapter(folder);
  const Config layout = is_gguf(base) ? family_layout(config) : config;
  const auto saved = [&](const TensorSpec& spec, const std::string&) {
    not_alone("stores " + spec.module + " in full");
  };
  // Its matrices are only named here, never written.
  for (const AdapterUpdate& one : read_adapter(folder, tensors, const_cast<Weights&>(model), config,
                                               layout, adapter->floats_, saved)) {
    if (one.linear == &model.lm_head) not_alone("changes the head");
    for (const Layer& layer : model.layers) {
      for (const Mlp& expert : layer.experts) {
        for (const Linear* part : {&expert.up, &expert.gate, &expert.down}) {
          if (one.linear == part) not_alone("changes experts");
        }
      }
    }
    adapter->updates_[one.linear] = one.update;
    adapter->max_rank_ = std::max(adapter->max_rank_, one.update.a.rows);
  }
  for (const auto& values : adapter->floats_) adapter->bytes_ += values.size() * sizeof(float);
  adapter->id_ = ++next_id;
  return adapter;
}

}  // namespace quern
