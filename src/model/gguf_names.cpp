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

namespace quern {
namespace {

constexpr int64_t kMaxDim = int64_t{1} << 22;

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

constexpr std::string_view kRopeFactors[] = {"rope_freqs.weight", "rope_factors_short.weight",
                                             "rope_factors_long.weight"};

std::vector<float> rope_factors(const GgufFile& file, std::string_view name, const Config& c) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) file.fail(fmt::format("lacks the tensor {}", name));
  const auto count = static_cast<size_t>(c.rotary_dim / 2);
  if (!(tensor->shape == Shape{c.rotary_dim / 2}) || tensor->block.type != GgufType::F32) {
    file.fail(fmt::format("{} is {} {}, expected F32 ({})", name, tensor->block.name,
                          to_string(tensor->shape), count));
  }
  std::vector<float> values(count);
  dequantize_blocks(GgufType::F32, tensor->data, values);
  for (const float value : values) {
    if (!(value >= 1e-6f && value <= 1e6f)) {
      file.fail(fmt::format("{} has the factor {}", name, value));
    }
  }
  return values;
}

RopeScaling rope_scaling(const GgufFile& file, const std::string& arch, const Config& c) {
  RopeScaling s;
  const auto key = [&](const char* name) { return arch + ".rope.scaling." + name; };
  s.original_context = static_cast<double>(
      file.integer_or(key("original_context_length"), c.max_context, 1, int64_t{1} << 31));
  // attn_factor is what YaRN's own 0.1 ln(factor) + 1 is multiplied by.
  const double attention = file.number_or(
      key("attn_factor"), file.number_or(key("yarn_attn_factor"), 1, 1e-6, 1e6), 1e-6, 1e6);
  if (file.find("rope_freqs.weight") != nullptr) {
    s.type = RopeScaling::Type::LongRope;
    s.short_factors = s.long_factors = rope_factors(file, "rope_freqs.weight", c);
    s.attention_factor = attention;
  } else if (file.find("rope_factors_long.weight") != nullptr) {
    s.type = RopeScaling::Type::LongRope;
    s.short_factors = rope_factors(file, "rope_factors_short.weight", c);
    s.long_factors = rope_factors(file, "rope_factors_long.weight", c);
    s.attention_factor = attention;
  }
  if (!file.has(key("type"))) return s;
  const std::string_view type = file.string(key("type"));
  if (type == "none" || (type == "longrope" && s.type == RopeScaling::Type::LongRope)) return s;
  if (s.type != RopeScaling::Type::None) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: has rotary factors and the key '{}' of '{}'", file.path().string(),
                            key("type"), printable(type, 40)));
  }
  if (type != "linear" && type != "yarn") {
    file.fail(fmt::format("the key '{}' is '{}', expected none, linear, yarn or longrope",
                          key("type"), printable(type, 40)));
  }
  s.factor = file.number(key("factor"), 1e-3, 1e6);
  if (type == "linear") {
    s.type = RopeScaling::Type::Linear;
  } else {
    s.type = RopeScaling::Type::Yarn;
    s.beta_fast = file.number_or(key("yarn_beta_fast"), 32, 1e-6, 1e6);
    s.beta_slow = file.number_or(key("yarn_beta_slow"), 1, 1e-6, 1e6);
    if (attention != 1) s.attention_factor = attention * (0.1 * std::log(s.factor) + 1);
    if (file.number_or(key("yarn_log_multiplier"), 0, -1e6, 1e6) != 0 ||
        file.number_or(key("yarn_ext_factor"), 1, -1e6, 1e6) != 1) {
      throw Error(Kind::Unsupported, fmt::format("{}: sets '{}' or '{}', which are not supported",
                                                 file.path().string(), key("yarn_log_multiplier"),
                                                 key("yarn_ext_factor")));
    }
  }
  return s;
}

constexpr std::pair<std::string_view, Family> kKnown[] = {{"qwen", Family::Qwen},
                                                          {"qwen2", Family::Qwen2},
                                                          {"qwen3", Family::Qwen3},
                                                          {"llama", Family::Llama}};

}  // namespace

bool has_gguf_layout(Family family) noexcept {
  return std::ranges::find(kKnown, family, &std::pair<std::string_view, Family>::second) !=
         std::end(kKnown);
}

Config gguf_config(const GgufFile& file) {
  const std::string arch(file.string("general.architecture"));
  Config c;
  bool known = false;
  for (const auto& [name, family] : kKnown) {
    if (name != arch) continue;
    c.family = family;
    known = true;
  }
  if (!known) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: the architecture '{}' is not known", file.path().string(),
                            printable(arch, 40)),
                "known are qwen, qwen2, qwen3 and llama");
  }
  const auto key = [&](const char* name) { return arch + "." + name; };
  c.layers = file.integer(key("block_count"), 1, 4096);
  c.hidden = file.integer(key("embedding_length"), 1, kMaxDim);
  c.heads = file.integer(key("attention.head_count"), 1, kMaxDim);
  c.kv_heads = file.integer_or(key("attention.head_count_kv"), c.heads, 1, kMaxDim);
  if (c.heads % c.kv_heads != 0) {
    file.fail(
        fmt::format("has {} heads, which {} key/value heads do not divide", c.heads, c.kv_heads));
  }
  if (!file.has(key("attention.key_length")) && c.hidden % c.heads != 0) {
    file.fail(fmt::format("the key '{}' is {}, which {} heads do not divide",
                          key("embedding_length"), c.hidden, c.heads));
  }
  c.head_dim = file.integer_or(key("attention.key_length"), c.hidden / c.heads, 1, kMaxDim);
  if (file.integer_or(key("attention.value_length"), c.head_dim, 1, kMaxDim) != c.head_dim) {
    file.fail(
        fmt::format("the key '{}' differs from the keys' length", key("attention.value_length")));
  }
  c.rotary_dim = file.integer_or(key("rope.dimension_count"), c.head_dim, 0, c.head_dim);
  if (c.rotary_dim % 2 != 0) {
    file.fail(fmt::format("the key '{}' is {}, expected an even number",
                          key("rope.dimension_count"), c.rotary_dim));
  }
  c.ffn = file.integer(key("feed_forward_length"), 1, 2 * kMaxDim);
  c.norm_eps = static_cast<float>(file.number(key("attention.layer_norm_rms_epsilon"), 1e-20, 1));
  c.rope_theta = file.number_or(key("rope.freq_base"), 10000, 1, 1e12);
  c.max_context = c.trained_context = file.integer(key("context_length"), 2, int64_t{1} << 31);
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2) {
    file.fail("lacks the matrix token_embd.weight");
  }
  c.vocab = c.output_vocab = embedding->shape[0];
  const GgufTensor* head = file.find("output.weight");
  c.tied = head == nullptr;
  if (head != nullptr && head->shape.rank() == 2) c.output_vocab = head->shape[0];
  if (c.output_vocab > c.vocab || c.output_vocab > (1 << 24)) {
    file.fail(fmt::format("output.weight has {} rows, the embedding {}", c.output_vocab, c.vocab));
  }
  if (c.family == Family::Qwen) {
    if (c.ffn % 2 != 0) file.fail(fmt::format("the key '{}' is odd", key("feed_forward_length")));
    c.ffn /= 2;  // the format keeps Qwen's own count, of w1 and w2 together
    c.dynamic_ntk = c.logn = false;
    if (c.hidden != c.heads * c.head_dim) {
      file.fail(fmt::format("the heads' dims are {}, embedding_length is {}", c.heads * c.head_dim,
                            c.hidden));
    }
  }
  c.qkv_bias = c.family == Family::Qwen || c.family == Family::Qwen2 ||
               file.find("blk.0.attn_q.bias") != nullptr;
  c.out_bias = file.find("blk.0.attn_output.bias") != nullptr;
  c.mlp_bias = file.find("blk.0.ffn_down.bias") != nullptr;
  if (c.family == Family::Qwen) c.qkv_order = QkvOrder::Concat;
  c.qk_norm = c.family == Family::Qwen3 ? QkNorm::Heads : QkNorm::None;
  c.rope_scaling = rope_scaling(file, arch, c);
  c.dtype = DType::F16;
  const auto id = [&](const char* name) -> std::optional<int64_t> {
    if (!file.has(name)) return std::nullopt;
    return file.integer(name, 0, c.vocab - 1);
  };
  c.bos_id = id("tokenizer.ggml.bos_token_id");
  for (const char* name : {"eos_token_id", "eot_token_id"}) {
    const auto end = id(fmt::format("tokenizer.ggml.{}", name).c_str());
    if (end && std::ranges::find(c.eos_ids, *end) == c.eos_ids.end()) c.eos_ids.push_back(*end);
  }
  return c;
}

std::string gguf_name(const TensorSpec& spec) {
  const std::string_view ending = spec.role == Role::Bias ? "bias" : "weight";
  if (spec.layer < 0) return fmt::format("{}.{}", part_name(spec.part), ending);
  return fmt::format("blk.{}.{}.{}", spec.layer, part_name(spec.part), ending);
}

bool gguf_reorders(const Config& config, Part part) noexcept {
  return config.family == Family::Llama && (part == Part::Q || part == Part::K);
}

void reorder_heads(std::span<std::byte> bytes, int64_t head_dim, HeadOrder to) {
  // `bytes` holds whole heads; a head's rows are all of one size, which follows from their number.
  const int64_t half = head_dim / 2;
  const size_t row = bytes.size() / static_cast<size_t>(head_dim);
  std::vector<std::byte> head(bytes.begin(), bytes.end());
  for (int64_t j = 0; j < half; ++j) {
    for (int64_t side = 0; side < 2; ++side) {
      const auto ours = static_cast<size_t>(side * half + j) * row;
      const auto theirs = static_cast<size_t>(2 * j + side) * row;
      const size_t from = to == HeadOrder::Ours ? theirs : ours;
      const size_t into = to == HeadOrder::Ours ? ours : theirs;
      std::memcpy(bytes.data() + into, head.data() + from, row);
    }
  }
}

TensorStore gguf_tensors(const fs::path& path, const Config& config, const GgufReading& reading) {
  auto file = std::make_shared<GgufFile>(path);
  std::vector<HeldTensor> held;
  std::set<std::string, std::less<>> taken;
  std::map<std::string_view, std::vector<std::string>> converted;  // names by type
  for (const TensorSpec& spec : tensor_specs(config)) {
    const std::string name = gguf_name(spec);
    const GgufTensor* tensor = file->find(name);
    if (tensor == nullptr) file->fail("lacks the tensor " + name);
    if (!(tensor->shape == spec.shape)) {
      file->fail(fmt::format("{} is {}, the metadata imply {}", name, to_string(tensor->shape),
                             to_string(spec.shape)));
    }
    taken.insert(name);
    HeldTensor out = {.name = spec.name, .bytes = {}, .view = {}};
    const GgufType type = tensor->block.type;
    const bool plain = type == GgufType::F32 || type == GgufType::F16 || type == GgufType::BF16;
    const bool reorder = gguf_reorders(config, spec.part);
    const DType dtype = type == GgufType::F32    ? DType::F32
                        : type == GgufType::BF16 ? DType::BF16
                        : type == GgufType::F16  ? DType::F16
                                                 : reading.blocks;
    out.view = {dtype, spec.shape, tensor->data};
    if (reading.matrices != nullptr && spec.shape.rank() == 2 && packs(type, spec.shape[1])) {
      reading.matrices->push_back({.name = spec.name,
                                   .where = fmt::format("{}: {}", path.string(), name),
                                   .type = type,
                                   .type_name = tensor->block.name,
                                   .rows = spec.shape[0],
                                   .cols = spec.shape[1],
                                   .blocks = tensor->data,
                                   .bytes = tensor->bytes,
                                   .reordered_head_dim = reorder ? config.head_dim : 0});
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
        dequantize_blocks(type, tensor->data + r * row_bytes, line);
        for (const float value : line) {
          if (std::abs(value) <= (dtype == DType::F16 ? 65504.0f : 3e38f)) continue;
          file->fail(fmt::format("{} has the value {} in row {}, which is not finite in {}", name,
                                 value, r, quern::name(dtype)));
        }
        encode_floats(line, dtype, half);
        std::copy(half.begin(), half.end(),
                  out.bytes.begin() + r * static_cast<int64_t>(half.size()));
      }
    } else if (reorder) {
      out.bytes.assign(tensor->data, tensor->data + tensor->bytes);
    }
    if (reorder) {
      const size_t head = out.bytes.size() / static_cast<size_t>(spec.shape[0] / config.head_dim);
      for (size_t begin = 0; begin < out.bytes.size(); begin += head) {
        reorder_heads(std::span(out.bytes).subspan(begin, head), config.head_dim, HeadOrder::Ours);
      }
    }
    held.push_back(std::move(out));
  }
  for (const GgufTensor& tensor : file->tensors()) {
    const bool factors = std::ranges::find(kRopeFactors, tensor.name) != std::end(kRopeFactors);
    if (reading.unused != nullptr && !factors && !taken.contains(tensor.name)) {
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
