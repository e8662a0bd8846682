#include "model/gguf_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "formats/convert_floats.h"
#include "model/gguf_archs.h"
#include "model/gguf_config.h"

namespace quern {
namespace {

std::string_view part_name(Part part) {
  switch (part) {
    case Part::Embedding:
      return "token_embd";
    case Part::Norm1:
      return "attn_norm";
    case Part::Qkv:
      return "attn_qkv";
    case Part::Q:
      return "attn_q";
    case Part::K:
      return "attn_k";
    case Part::V:
      return "attn_v";
    case Part::QNorm:
      return "attn_q_norm";
    case Part::KNorm:
      return "attn_k_norm";
    case Part::AttnOut:
      return "attn_output";
    case Part::Norm2:
      return "ffn_norm";
    case Part::Up:
      return "ffn_up";
    case Part::Gate:
      return "ffn_gate";
    case Part::Down:
      return "ffn_down";
    case Part::FinalNorm:
      return "output_norm";
    case Part::LmHead:
      return "output";
    case Part::Positions:
      return "position_embd";
    case Part::EmbeddingNorm:
      return "token_embd_norm";
    case Part::Norm1After:
      return "post_attention_norm";
    case Part::Norm2After:
      return "post_ffw_norm";
    case Part::GateUp:
      return "ffn_up";
    case Part::Router:
      return "ffn_gate_inp";
    case Part::SharedRouter:
      return "ffn_gate_inp_shexp";
    case Part::ExpertUp:
      return "ffn_up_exps";
    case Part::ExpertGate:
      return "ffn_gate_exps";
    case Part::ExpertDown:
      return "ffn_down_exps";
  }
  return {};
}

// Where a tensor of ours lies in a file: a tensor there, or an expert's part of it.
struct Place {
  const GgufTensor* tensor;
  std::string name;
  const std::byte* data;
  uint64_t bytes;
};

bool of_expert(Part part) {
  return part == Part::ExpertUp || part == Part::ExpertGate || part == Part::ExpertDown;
}

Place place_of(const GgufFile& file, const TensorSpec& spec, const Config& c) {
  Place out;
  out.name = gguf_name(spec, c);
  out.tensor = file.find(out.name);
  const bool stacked = of_expert(spec.part) && out.tensor != nullptr;
  if (of_expert(spec.part) && !stacked) {  // older files have each expert apart
    std::string_view part = gguf_part_name(spec, c);
    part.remove_suffix(std::string_view("_exps").size());
    out.name = fmt::format("blk.{}.{}.{}.weight", spec.layer, part, spec.expert);
    out.tensor = file.find(out.name);
    if (out.tensor == nullptr) file.fail("lacks the tensor " + gguf_name(spec, c));
  }
  if (out.tensor == nullptr) file.fail("lacks the tensor " + out.name);
  const Shape want = stacked ? Shape{c.experts.count, spec.shape[0], spec.shape[1]} : spec.shape;
  const bool row = spec.part == Part::SharedRouter && out.tensor->shape == Shape{spec.shape[1]};
  if (!(out.tensor->shape == want) && !row) {
    file.fail(fmt::format("{} is {}, the metadata imply {}", out.name, to_string(out.tensor->shape),
                          to_string(want)));
  }
  out.bytes =
      stacked ? out.tensor->bytes / static_cast<uint64_t>(c.experts.count) : out.tensor->bytes;
  out.data = out.tensor->data + (stacked ? static_cast<uint64_t>(spec.expert) * out.bytes : 0);
  return out;
}

}  // namespace

std::string_view gguf_part_name(const TensorSpec& spec, const Config& c) {
  // Falcon's second norm is that of attention.
  if (c.family == Family::Falcon && c.mlp_norm) {
    if (spec.part == Part::Norm1) return "attn_norm_2";
    if (spec.part == Part::Norm2) return "attn_norm";
  }
  const bool shared = spec.layer >= 0 && c.has_experts(spec.layer);
  if (shared && spec.part == Part::Up) return "ffn_up_shexp";
  if (shared && spec.part == Part::Gate) return "ffn_gate_shexp";
  if (shared && spec.part == Part::Down) return "ffn_down_shexp";
  return part_name(spec.part);
}

std::string gguf_name(const TensorSpec& spec, const Config& c) {
  const std::string_view ending = spec.role == Role::Bias ? "bias" : "weight";
  if (spec.layer < 0) return fmt::format("{}.{}", gguf_part_name(spec, c), ending);
  return fmt::format("blk.{}.{}.{}", spec.layer, gguf_part_name(spec, c), ending);
}

std::vector<int32_t> gguf_rows(const TensorSpec& spec, const Config& c) {
  const bool qkv = spec.part == Part::Qkv;
  if (!qkv && spec.part != Part::Q && spec.part != Part::K) return {};
  const GgufArch* arch = gguf_arch(c.family);
  if (arch == nullptr || !arch->adjacent) return {};
  // Without rotation the order says nothing; files have it all the same.
  const int64_t turned = c.rotary_dim > 0 ? c.rotary_dim : c.head_dim, half = turned / 2;
  const int64_t end = qkv ? c.query_dim() + c.kv_dim() : spec.shape[0];
  std::vector<int32_t> rows(static_cast<size_t>(spec.shape[0]));
  for (int64_t row = 0; row < spec.shape[0]; ++row) {
    const int64_t dim = row % c.head_dim;
    int64_t theirs = row;
    if (row < end && dim < 2 * half) {
      theirs = row - dim + (dim < half ? 2 * dim : 2 * (dim - half) + 1);
    }
    rows[static_cast<size_t>(row)] = static_cast<int32_t>(theirs);
  }
  return rows;
}

TensorStore gguf_tensors(const fs::path& path, const Config& config, const GgufReading& reading) {
  auto file = std::make_shared<GgufFile>(path);
  std::vector<HeldTensor> held;
  std::set<std::string, std::less<>> taken;
  std::map<std::string_view, std::vector<std::string>> converted;  // names by type
  for (const TensorSpec& spec : tensor_specs(config)) {
    const Place at = place_of(*file, spec, config);
    const GgufTensor* tensor = at.tensor;
    const std::string& name = at.name;
    taken.insert(name);
    HeldTensor out = {.name = spec.name, .bytes = {}, .view = {}};
    const GgufType type = tensor->block.type;
    const bool plain = type == GgufType::F32 || type == GgufType::F16 || type == GgufType::BF16;
    const std::vector<int32_t> order = gguf_rows(spec, config);
    // Rows of a normalized head are divided by their length when they are loaded.
    const bool rescaled = spec.part == Part::LmHead && config.head_normalized;
    const DType dtype = type == GgufType::F32    ? DType::F32
                        : type == GgufType::BF16 ? DType::BF16
                        : type == GgufType::F16  ? DType::F16
                                                 : reading.blocks;
    out.view = {dtype, spec.shape, at.data};
    if (reading.matrices != nullptr && spec.shape.rank() == 2 && !rescaled &&
        packs(type, spec.shape[1])) {
      reading.matrices->push_back({.name = spec.name,
                                   .where = fmt::format("{}: {}", path.string(), name),
                                   .type = type,
                                   .type_name = tensor->block.name,
                                   .rows = spec.shape[0],
                                   .cols = spec.shape[1],
                                   .blocks = at.data,
                                   .bytes = at.bytes,
                                   .row_order = order});
      continue;
    }
    if (!plain) {
      converted[tensor->block.name].push_back(name);
      const int64_t cols = spec.shape[spec.shape.rank() - 1], rows = spec.shape.count() / cols;
      const int64_t row_bytes = cols / tensor->block.weights * tensor->block.bytes;
      out.bytes.resize(static_cast<size_t>(spec.shape.count()) * size_bytes(dtype));
      std::vector<float> line(static_cast<size_t>(cols));
      std::vector<std::byte> half;
      for (int64_t r = 0; r < rows; ++r) {
        dequantize_blocks(type, at.data + r * row_bytes, line);
        for (const float value : line) {
          if (std::abs(value) <= (dtype == DType::F16 ? 65504.0f : 3e38f)) continue;
          file->fail(fmt::format("{} has the value {} in row {}, which is not finite in {}", name,
                                 value, r, quern::name(dtype)));
        }
        encode_floats(line, dtype, half);
        std::copy(half.begin(), half.end(),
                  out.bytes.begin() + r * static_cast<int64_t>(half.size()));
      }
    }
    if (!order.empty()) {
      const std::vector<std::byte> made = std::move(out.bytes);
      const std::byte* from = made.empty() ? at.data : made.data();
      const auto width =
          static_cast<size_t>(spec.shape.count() / spec.shape[0]) * size_bytes(dtype);
      out.bytes.resize(order.size() * width);
      for (size_t row = 0; row < order.size(); ++row) {
        std::memcpy(out.bytes.data() + row * width, from + static_cast<size_t>(order[row]) * width,
                    width);
      }
    }
    held.push_back(std::move(out));
  }
  for (const GgufTensor& tensor : file->tensors()) {
    if (reading.unused != nullptr && !is_gguf_rope_factors(tensor.name) &&
        !taken.contains(tensor.name)) {
      reading.unused->push_back(tensor.name);
    }
  }
  for (const auto& [type, names] : converted) {
    const std::string others =
        names.size() > 1 ? fmt::format(" and {} more", names.size() - 1) : std::string();
    log::info(fmt::format("{}: weights of type {} become {}: {}{}", path.string(), type,
                          quern::name(reading.blocks), names[0], others));
  }
  return TensorStore::of_memory(path, std::move(held), file);
}

}  // namespace quern
