#include "cli/commands/convert_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "formats/gguf_writer.h"
#include "formats/gptq.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"
#include "model/gguf_names.h"
#include "model/rotary.h"
#include "text/chat_template.h"
#include "text/gguf_pre_rules.h"
#include "text/load.h"

namespace quern::cli {
namespace {

constexpr int64_t kWeightsAtOnce = 1 << 16;  // that a thread takes

void add_config(GgufWriter& out, const Config& c, const std::string& name) {
  const std::string arch(quern::name(c.family));
  const auto key = [&](const char* field) { return arch + "." + field; };
  const auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
  out.add_string("general.architecture", arch);
  out.add_string("general.name", name);
  out.add_u32(key("context_length"), u32(c.max_context));
  out.add_u32(key("block_count"), u32(c.layers));
  out.add_u32(key("embedding_length"), u32(c.hidden));
  out.add_u32(key("feed_forward_length"), u32(c.family == Family::Qwen ? 2 * c.ffn : c.ffn));
  out.add_u32(key("attention.head_count"), u32(c.heads));
  out.add_u32(key("attention.head_count_kv"), u32(c.kv_heads));
  if (c.head_dim * c.heads != c.hidden || c.family == Family::Qwen3) {
    out.add_u32(key("attention.key_length"), u32(c.head_dim));
    out.add_u32(key("attention.value_length"), u32(c.head_dim));
  }
  out.add_u32(key("rope.dimension_count"), u32(c.rotary_dim));
  out.add_f32(key("rope.freq_base"), static_cast<float>(c.rope_theta));
  out.add_f32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
  out.add_u32(key("vocab_size"), u32(c.vocab));
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::Linear || s.type == RopeScaling::Type::Yarn) {
    const bool linear = s.type == RopeScaling::Type::Linear;
    out.add_string(key("rope.scaling.type"), linear ? "linear" : "yarn");
    out.add_f32(key("rope.scaling.factor"), static_cast<float>(s.factor));
    out.add_u32(key("rope.scaling.original_context_length"),
                static_cast<uint32_t>(s.original_context));
  }
}

// What llama.cpp divides each frequency by, where the scaling has no keys of its own: LLaMA 3's
// rule, and factors that are the same for every length. Empty for others.
std::vector<float> rope_factors(const Config& c) {
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::LongRope) return s.short_factors;
  if (s.type != RopeScaling::Type::Llama3) return {};
  Config plain = c;
  plain.rope_scaling = {};
  std::vector<float> out = inverse_frequencies(plain, 1);
  const std::vector<float> scaled = inverse_frequencies(c, 1);
  for (size_t i = 0; i < out.size(); ++i) out[i] /= scaled[i];
  return out;
}

// Ranks say which tokens there are, not what they were merged from: each one's parts are what
// merging by the ranks below its own leaves of its bytes.
void add_merges(const std::vector<std::string>& tokens, TokenizerJson& out) {
  std::unordered_map<std::string_view, size_t> ranks;
  for (size_t id = 0; id < tokens.size(); ++id) ranks.emplace(tokens[id], id);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    if (token.size() < 2) continue;
    std::vector<std::string_view> parts;
    for (size_t i = 0; i < token.size(); ++i) parts.push_back(std::string_view(token).substr(i, 1));
    while (parts.size() > 2) {
      size_t best = id, where = parts.size();
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const std::string_view pair(parts[i].data(), parts[i].size() + parts[i + 1].size());
        const auto found = ranks.find(pair);
        if (found == ranks.end() || found->second >= best) continue;
        best = found->second;
        where = i;
      }
      if (where == parts.size()) break;
      parts[where] = {parts[where].data(), parts[where].size() + parts[where + 1].size()};
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    if (parts.size() == 2) out.merges.emplace_back(parts[0], parts[1]);
  }
}

}  // namespace

TokenizerJson tokenizer_parts(const fs::path& model) {
  if (fs::exists(model / "tokenizer.json")) return read_tokenizer_json(model / "tokenizer.json");
  if (fs::exists(model / "vocab.json")) {
    return read_vocab_and_merges(model / "vocab.json", model / "merges.txt");
  }
  for (const auto& entry : fs::directory_iterator(model)) {
    if (entry.path().extension() != ".tiktoken") continue;
    TokenizerJson out;
    out.nfc = true;
    out.pattern = gguf_pre_rule("qwen2")->patterns[0];
    out.tokens = read_tiktoken(entry.path()).tokens;
    add_merges(out.tokens, out);
    const auto tokenizer = load_tokenizer(model);
    for (const SpecialToken& special : tokenizer->specials()) {
      out.added.push_back({special.id, special.name});
    }
    return out;
  }
  throw Error(Kind::Unsupported,
              model.string() + ": its tokenizer is not byte-level BPE, and is not written to GGUF");
}

namespace {

void add_tokenizer(GgufWriter& out, const fs::path& model, const Config& c) {
  if (!has_tokenizer(model)) {
    log::info(model.string() + ": has no tokenizer, so the GGUF file gets none");
    return;
  }
  const TokenizerJson parts = tokenizer_parts(model);
  const auto count = static_cast<size_t>(c.vocab);
  std::vector<std::string> tokens(count);
  std::vector<int32_t> types(count, 5);  // unused
  for (size_t id = 0; id < count; ++id) {
    if (id < parts.tokens.size() && !parts.tokens[id].empty()) {
      tokens[id] = bytes_to_byte_level(parts.tokens[id]);
      types[id] = 1;
    } else {
      tokens[id] = fmt::format("[PAD{}]", id);
    }
  }
  std::optional<int64_t> end_of_text;
  bool chatml = false;
  for (const AddedToken& token : parts.added) {
    if (token.id >= c.vocab) continue;  // the embedding has no row for it
    tokens[static_cast<size_t>(token.id)] = token.content;
    types[static_cast<size_t>(token.id)] = token.special ? 3 : 4;
    if (token.content == "<|endoftext|>") end_of_text = token.id;
    chatml = chatml || token.content == "<|im_start|>";
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : parts.merges) {
    merges.push_back(bytes_to_byte_level(left) + " " + bytes_to_byte_level(right));
  }
  out.add_string("tokenizer.ggml.model", "gpt2");
  out.add_string("tokenizer.ggml.pre", "qwen2");
  out.add_strings("tokenizer.ggml.tokens", tokens);
  out.add_i32s("tokenizer.ggml.token_type", types);
  out.add_strings("tokenizer.ggml.merges", merges);
  const auto add_id = [&](const char* key, std::optional<int64_t> id) {
    if (id && *id < c.vocab) out.add_u32(key, static_cast<uint32_t>(*id));
  };
  add_id("tokenizer.ggml.bos_token_id", c.bos_id ? c.bos_id : end_of_text);
  const auto& ends = c.eos_ids;
  add_id("tokenizer.ggml.eos_token_id", ends.empty() ? end_of_text : ends[0]);
  if (ends.size() > 1) add_id("tokenizer.ggml.eot_token_id", ends[1]);
  out.add_bool("tokenizer.ggml.add_bos_token", false);
  // A model's own template, or that of the first Qwen releases, which have it in their program.
  std::string chat = find_chat_template(model).text;
  if (chat.empty() && chatml) chat = builtin_chat_template("qwen");
  if (!chat.empty()) out.add_string("tokenizer.chat_template", chat);
}

}  // namespace

std::vector<std::string> lost_in_gguf(const Config& c) {
  std::vector<std::string> lost;
  if (c.dynamic_ntk) lost.emplace_back("dynamic NTK");
  if (c.logn) lost.emplace_back("LogN scaling");
  if (std::ranges::any_of(c.windows, [](int64_t window) { return window > 0; })) {
    lost.emplace_back("attention windows of the layers");
  }
  const RopeScaling& s = c.rope_scaling;
  if (s.type == RopeScaling::Type::Dynamic) lost.emplace_back("rope_scaling of type dynamic");
  if (s.type == RopeScaling::Type::LongRope &&
      (s.short_factors != s.long_factors || rotary_magnitude(c) != 1)) {
    lost.emplace_back("rope_scaling of type longrope");
  }
  if (s.type == RopeScaling::Type::Yarn) {
    if (s.beta_fast != 32) lost.emplace_back("YaRN's beta_fast");
    if (s.beta_slow != 1) lost.emplace_back("YaRN's beta_slow");
    if (!s.truncate) lost.emplace_back("YaRN's truncate");
    RopeScaling usual = s;
    usual.attention_factor = usual.mscale = usual.mscale_all_dim = std::nullopt;
    Config other = c;
    other.rope_scaling = usual;
    if (rotary_magnitude(other) != rotary_magnitude(c)) {
      lost.emplace_back(s.attention_factor ? "YaRN's attention_factor" : "YaRN's mscale");
    }
  }
  if (c.eos_ids.size() > 2) lost.emplace_back("the third and further ends of text");
  return lost;
}

void report_lost(const std::string& where, const std::vector<std::string>& lost, bool lossy) {
  if (lost.empty()) return;
  const std::string line = fmt::format("{} would lose {}", where, fmt::join(lost, ", "));
  if (!lossy) throw Error(Kind::Unsupported, line, "--lossy writes it all the same");
  log::warning(line + ": the result computes something else where they act");
}

void convert_to_gguf(const fs::path& model, const fs::path& path, const std::string& type,
                     bool lossy) {
  const auto wanted = gguf_block_named(type);
  const bool writable =
      wanted && (wanted->weights == 1 || wanted->type == GgufType::Q8_0 ||
                 wanted->type == GgufType::Q4_0 || wanted->type == GgufType::Q4_K);
  if (!writable) {
    throw Error(Kind::Misused, fmt::format("--type is '{}'", printable(type, 40)),
                "expected F32, F16, BF16, Q8_0, Q4_0 or Q4_K");
  }
  if (!is_gguf(path)) {
    throw Error(Kind::Misused, path.string() + ": the name of a GGUF file ends in .gguf");
  }
  if (!fs::is_directory(model)) throw_bad_input(model.string() + ": is not a checkpoint's folder");
  if (read_gptq_config(model)) {
    throw_bad_input(model.string() + ": is quantized already", "convert the float checkpoint");
  }
  const Config c = load_config(model);
  if (!has_gguf_layout(c.family)) {
    throw Error(Kind::Unsupported,
                fmt::format("{}: models of the family {} are not written to GGUF", model.string(),
                            quern::name(c.family)),
                "GGUF is for qwen, qwen2, qwen3 and llama");
  }
  report_lost(path.string(), lost_in_gguf(c), lossy);
  const TensorStore store = TensorStore::open(model);
  GgufWriter out(path);
  add_config(out, c, model.filename().string());
  out.add_u32("general.quantization_version", 2);
  add_tokenizer(out, model, c);
  const auto type_of = [&](const TensorSpec& spec) {
    if (spec.shape.rank() < 2) return *gguf_block_named("F32");
    const bool outer = spec.role == Role::Embedding || spec.role == Role::Head;
    const bool four_bits = wanted->type == GgufType::Q4_0 || wanted->type == GgufType::Q4_K;
    if (!(four_bits && outer) && spec.shape[1] % wanted->weights == 0) return *wanted;
    return *gguf_block_named(four_bits && spec.shape[1] % 32 == 0 ? "Q8_0" : "F16");
  };
  const std::vector<TensorSpec> specs = tensor_specs(c);
  uint64_t total = 0, done = 0;
  for (const TensorSpec& spec : specs) {
    out.add_tensor(gguf_name(spec), type_of(spec), spec.shape);
    total += static_cast<uint64_t>(spec.shape.count());
  }
  const std::vector<float> factors = rope_factors(c);
  if (!factors.empty()) {
    out.add_tensor("rope_freqs.weight", *gguf_block_named("F32"),
                   {static_cast<int64_t>(factors.size())});
  }
  const InterruptScope scope;
  ThreadPool pool;
  Progress progress("writing " + path.string(), total, "weights");
  out.begin();
  for (const TensorSpec& spec : specs) {
    check_interrupted();
    const ConstTensorView view = store.at(spec.name);
    if (!(view.shape == spec.shape)) {
      throw_bad_input(fmt::format("{}: {} is {}, config.json implies {}", store.file_of(spec.name),
                                  spec.name, to_string(view.shape), to_string(spec.shape)));
    }
    std::vector<float> values = to_floats(view, spec.name);
    if (count_nonfinite({DType::F32, Shape{spec.shape.count()},
                         reinterpret_cast<const std::byte*>(values.data())}) > 0) {
      throw_bad_input(fmt::format("{}: {} has values that are NaN or infinite",
                                  store.file_of(spec.name), spec.name));
    }
    if (gguf_reorders(c, spec.part)) {
      const auto head = static_cast<size_t>(c.head_dim * spec.shape[1]);
      for (size_t begin = 0; begin < values.size(); begin += head) {
        reorder_heads(std::as_writable_bytes(std::span(values).subspan(begin, head)), c.head_dim,
                      HeadOrder::Theirs);
      }
    }
    const GgufBlock block = type_of(spec);
    std::vector<std::byte> blocks(
        static_cast<size_t>(spec.shape.count() / block.weights * block.bytes));
    const int64_t grain = kWeightsAtOnce / block.weights;
    pool.parallel_for(
        spec.shape.count() / block.weights, grain, [&](int64_t begin, int64_t end, int) {
          quantize_blocks(
              block.type,
              std::span(values).subspan(static_cast<size_t>(begin * block.weights),
                                        static_cast<size_t>((end - begin) * block.weights)),
              blocks.data() + begin * block.bytes);
        });
    out.write(blocks);
    done += values.size();
    progress.update(done);
  }
  if (!factors.empty()) out.write(std::as_bytes(std::span(factors)));
  out.finish();
  progress.finish();
  print(fmt::format("{}: {} tensors, {}\n", path.string(), specs.size(),
                    human_bytes(fs::file_size(path))));
}

}  // namespace quern::cli
