#include "cli/commands/convert_family.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "model/tensors.h"

namespace quern::cli {
namespace {

// Rows [begin, begin + count) of a tensor of one or two dims.
ConstTensorView rows_of(const ConstTensorView& view, int64_t begin, int64_t count) {
  const int64_t row = view.shape.count() / view.shape[0];
  const auto offset = static_cast<size_t>(begin * row) * size_bytes(view.dtype);
  return {view.dtype, view.shape.rank() == 1 ? Shape{count} : Shape{count, row},
          view.data + offset};
}

}  // namespace

FamilyChange change_family(const Config& from, const std::vector<NamedTensor>& tensors,
                           const std::string& family) {
  if (family != "qwen2" || from.family != Family::Qwen) {
    throw Error(Kind::Misused,
                fmt::format("--family {} is not for a model of the family {}",
                            printable(family, 40), name(from.family)),
                "what there is: a model of the family qwen as qwen2");
  }
  const auto refuse = [](std::string_view what) {
    throw Error(Kind::Unsupported, fmt::format("Qwen2's layout has no place for {}", what));
  };
  if (from.out_bias || from.mlp_bias) refuse("biases outside of attention's input");
  if (from.vocab != from.output_vocab) refuse("an embedding with more rows than the head");
  if (from.rotary_dim != from.head_dim) refuse("heads that are rotated in part");
  FamilyChange out;
  out.config = from;
  out.config.family = Family::Qwen2;
  out.config.qkv_order = QkvOrder::Separate;
  if (from.dynamic_ntk) out.lost.emplace_back("dynamic NTK");
  if (from.logn) out.lost.emplace_back("LogN scaling");
  out.config.dynamic_ntk = out.config.logn = false;
  // Only these two reach beyond the trained length.
  if (from.dynamic_ntk || from.logn) out.config.max_context = from.trained_context;

  std::map<std::string, ConstTensorView, std::less<>> given;
  for (const NamedTensor& tensor : tensors) given.emplace(tensor.name, tensor.view);
  const auto find = [&](Part part, Role role, int64_t layer) {
    for (const TensorSpec& spec : tensor_specs(from)) {
      if (spec.part != part || spec.role != role || spec.layer != layer) continue;
      const auto it = given.find(spec.name);
      if (it == given.end()) throw_bad_input("the checkpoint lacks the tensor " + spec.name);
      if (!(it->second.shape == spec.shape)) {
        throw_bad_input(fmt::format("{} is {}, config.json implies {}", spec.name,
                                    to_string(it->second.shape), to_string(spec.shape)));
      }
      return it->second;
    }
    throw_bad_input("the checkpoint's family lacks a tensor that qwen2 needs");
  };
  for (const TensorSpec& spec : tensor_specs(out.config)) {
    const bool fused = spec.part == Part::Q || spec.part == Part::K || spec.part == Part::V;
    if (!fused) {
      out.tensors.push_back({spec.name, find(spec.part, spec.role, spec.layer)});
      continue;
    }
    const int64_t place = spec.part == Part::Q ? 0 : spec.part == Part::K ? 1 : 2;
    out.tensors.push_back({spec.name, rows_of(find(Part::Qkv, spec.role, spec.layer),
                                              place * from.query_dim(), from.query_dim())});
  }
  std::ranges::sort(out.tensors, {}, &NamedTensor::name);
  return out;
}

}  // namespace quern::cli
