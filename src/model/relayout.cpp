#include "model/relayout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/error.h"
#include "model/stored_tensors.h"

namespace quern {
namespace {

auto place(const TensorSpec& spec, Part part) {
  return std::tuple(spec.layer, part, spec.role == Role::Bias, spec.expert);
}

// What stands for a part where it is not kept alone, or what it is kept as.
bool in_qkv(Part part) { return part == Part::Q || part == Part::K || part == Part::V; }
bool in_gate_up(Part part) { return part == Part::Gate || part == Part::Up; }

}  // namespace

Config family_layout(const Config& config) {
  Config out = parse_config(Json::parse(dump(to_json(config)), "config.json"));
  bool same_experts = out.experts.normalized == config.experts.normalized;
  for (int64_t i = 0; i < config.layers; ++i) {
    same_experts &= out.has_experts(i) == config.has_experts(i);
  }
  bool same_windows = true;
  for (int64_t i = 0; i < config.layers; ++i) same_windows &= out.window(i) == config.window(i);
  const auto same = [](float a, float b) { return std::abs(a - b) <= 1e-5f * std::abs(a); };
  const bool says_it = out.rotary_dim == config.rotary_dim && out.parallel == config.parallel &&
                       out.mlp_norm == config.mlp_norm && out.activation == config.activation &&
                       out.alibi_max == config.alibi_max && same_windows &&
                       out.rope_layers == config.rope_layers && out.kv_heads == config.kv_heads &&
                       out.head_dim == config.head_dim && out.ffn == config.ffn &&
                       out.qk_norm == config.qk_norm && out.clip_qkv == config.clip_qkv &&
                       same(out.score_scale(), config.score_scale()) && same_experts &&
                       same(out.embed_scale, config.embed_scale) &&
                       same(out.residual_scale, config.residual_scale) &&
                       same(out.logit_scale, config.logit_scale) &&
                       out.score_cap == config.score_cap && out.logit_cap == config.logit_cap;
  if (!says_it) {
    throw Error(Kind::Unsupported,
                fmt::format("config.json of {} models cannot say what this one computes",
                            name(config.family)));
  }
  return out;
}

Relayout::Relayout(const TensorStore& store, Config from, Config to)
    : store_(store), from_(std::move(from)), to_(std::move(to)), specs_(tensor_specs(from_)) {
  const auto order = [](const TensorSpec& spec) { return place(spec, spec.part); };
  std::ranges::sort(specs_, {}, order);
  std::vector<TensorSpec> wanted = tensor_specs(to_);
  std::ranges::sort(wanted, {}, order);
  const auto has_place = [&](const TensorSpec& spec, Part part) {
    return std::ranges::binary_search(wanted, place(spec, part), {}, order);
  };
  for (const TensorSpec& spec : specs_) {
    const Part other = in_qkv(spec.part)           ? Part::Qkv
                       : in_gate_up(spec.part)     ? Part::GateUp
                       : spec.part == Part::Qkv    ? Part::Q
                       : spec.part == Part::GateUp ? Part::Up
                                                   : spec.part;
    if (has_place(spec, spec.part) || has_place(spec, other)) continue;
    throw Error(Kind::Unsupported,
                fmt::format("{}: {} has no place in the files of {} models",
                            store.source().string(), spec.name, name(to_.family)));
  }
}

const TensorSpec* Relayout::find(const TensorSpec& like, Part part) const {
  const auto order = [](const TensorSpec& spec) { return place(spec, spec.part); };
  const auto found = std::ranges::lower_bound(specs_, place(like, part), {}, order);
  return found != specs_.end() && order(*found) == place(like, part) ? &*found : nullptr;
}

std::vector<float> Relayout::read(const TensorSpec& spec) const {
  std::vector<float> values = tensor_floats(store_, spec, from_);
  if (spec.role == Role::Norm && from_.norm_offset != to_.norm_offset) {
    for (float& x : values) x += from_.norm_offset - to_.norm_offset;
  }
  if (spec.part == Part::LmHead && spec.role == Role::Head && from_.head_normalized &&
      !to_.head_normalized) {
    normalize_rows(values, static_cast<size_t>(spec.shape[1]));
  }
  return values;
}

std::vector<float> Relayout::in_our_order(const TensorSpec& spec) const {
  if (const TensorSpec* same = find(spec, spec.part)) return read(*same);
  const auto cols = static_cast<size_t>(spec.shape.rank() == 2 ? spec.shape[1] : 1);
  const auto count = static_cast<size_t>(spec.shape.count());
  const auto rows_of = [&](const TensorSpec& whole, int64_t first) {
    const std::vector<float> values = read(whole);
    const auto begin = values.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(first) * cols);
    return std::vector<float>(begin, begin + static_cast<ptrdiff_t>(count));
  };
  const auto joined = [&](std::initializer_list<Part> parts) {
    std::vector<float> out;
    for (const Part part : parts) {
      const TensorSpec* one = find(spec, part);
      if (one == nullptr) return std::vector<float>();
      const std::vector<float> values = read(*one);
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  };
  std::vector<float> out;
  if (in_qkv(spec.part)) {
    const int64_t first = spec.part == Part::Q   ? 0
                          : spec.part == Part::K ? from_.query_dim()
                                                 : from_.query_dim() + from_.kv_dim();
    if (const TensorSpec* whole = find(spec, Part::Qkv)) return rows_of(*whole, first);
  } else if (in_gate_up(spec.part)) {
    const int64_t first = spec.part == Part::Gate ? 0 : from_.ffn;
    if (const TensorSpec* whole = find(spec, Part::GateUp)) return rows_of(*whole, first);
  } else if (spec.part == Part::Qkv) {
    out = joined({Part::Q, Part::K, Part::V});
  } else if (spec.part == Part::GateUp) {
    out = joined({Part::Gate, Part::Up});
  } else if (spec.role == Role::Head) {
    TensorSpec table = spec;
    table.layer = -1;
    if (const TensorSpec* embedding = find(table, Part::Embedding)) return read(*embedding);
  }
  if (out.empty() && spec.role == Role::Bias) out.assign(count, 0.0f);
  if (out.size() != count) {
    throw_bad_input(
        fmt::format("{}: lacks what {} is made of", store_.source().string(), spec.name));
  }
  return out;
}

DType Relayout::dtype(const TensorSpec& spec) const {
  for (const Part part : {spec.part, Part::Qkv, Part::Q, Part::GateUp, Part::Up, Part::Embedding}) {
    const bool same = part == spec.part || (in_qkv(spec.part) && part == Part::Qkv) ||
                      (in_gate_up(spec.part) && part == Part::GateUp) ||
                      (spec.part == Part::Qkv && part == Part::Q) ||
                      (spec.part == Part::GateUp && part == Part::Up) ||
                      (spec.role == Role::Head && part == Part::Embedding);
    const TensorSpec* found = same ? find(spec, part) : nullptr;
    if (found != nullptr) return store_.at(stored_name(store_, found->name)).dtype;
  }
  return DType::F32;
}

std::vector<float> Relayout::floats(const TensorSpec& spec) const {
  return floats_for_file(in_our_order(spec), spec, to_);
}

}  // namespace quern
