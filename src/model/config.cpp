#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "model/config_keys.h"
#include "model/config_rope.h"
#include "model/gguf_names.h"

namespace quern {
namespace {

// Limits no real model comes near; past them a number is a mistake or an attack.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxDim = int64_t{1} << 22;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 31;

constexpr std::string_view kFamilyNames[] = {"qwen", "qwen2", "qwen3", "llama"};
constexpr std::string_view kArchitectures[] = {"QWenLMHeadModel", "Qwen2ForCausalLM",
                                               "Qwen3ForCausalLM", "LlamaForCausalLM"};

// The first of the names that is there: the same field under its old and its new name.
std::optional<Json> find_any(const Json& json, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (auto value = json.find(name)) return value;
  }
  return std::nullopt;
}

int64_t dim(const Json& json, std::initializer_list<std::string_view> names, int64_t max) {
  const auto value = find_any(json, names);
  if (!value) json.fail(fmt::format("lacks the member '{}'", *names.begin()));
  return value->integer(1, max);
}

Family detect_family(const Json& json) {
  const std::string type = json.string_or("model_type", "");
  std::string architecture;
  if (const auto list = json.find("architectures"); list && list->size() > 0) {
    architecture = (*list)[0].string();
  }
  for (size_t i = 0; i < std::size(kFamilyNames); ++i) {
    const bool by_architecture = architecture == kArchitectures[i];
    if (by_architecture || (architecture.empty() && type == kFamilyNames[i])) {
      return static_cast<Family>(i);
    }
  }
  throw_bad_input(fmt::format("{}: the architecture '{}' (model_type '{}') is not known",
                              json.where(), printable(architecture, 80), printable(type, 80)),
                  fmt::format("known are {}", fmt::join(kArchitectures, ", ")));
}

DType parse_dtype(const Json& json) {
  const auto value = find_any(json, {"torch_dtype", "dtype", "params_dtype"});
  if (!value) {
    if (json.boolean_or("bf16", false)) return DType::BF16;
    return json.boolean_or("fp16", false) ? DType::F16 : DType::F32;
  }
  const auto dtype = dtype_from_user(value->string());
  if (!dtype || *dtype == DType::I8) {
    value->fail(fmt::format("is '{}', expected float32, float16 or bfloat16",
                            printable(value->string(), 40)));
  }
  return *dtype;
}

std::vector<int64_t> parse_token_ids(const Json& json, std::string_view key) {
  const auto value = json.find(key);
  if (!value) return {};
  if (!value->is_array()) return {value->integer(0, kMaxVocab)};
  std::vector<int64_t> ids;
  for (const Json& id : value->items()) ids.push_back(id.integer(0, kMaxVocab));
  return ids;
}

std::vector<int64_t> parse_config_windows(const Json& json, const Config& config) {
  const auto count = static_cast<size_t>(config.layers);
  if (const auto list = json.find("quern_layer_windows")) {  // our own key: any list of windows
    if (list->size() != count) {
      list->fail(fmt::format("has {} items, expected one for each of the {} layers", list->size(),
                             config.layers));
    }
    std::vector<int64_t> windows;
    for (const Json& item : list->items()) windows.push_back(item.integer(0, kMaxContext));
    return windows;
  }
  const bool qwen = config.family == Family::Qwen2 || config.family == Family::Qwen3;
  if (!qwen || !json.boolean_or("use_sliding_window", false) || !json.has("sliding_window")) {
    return {};
  }
  const int64_t window = json.at("sliding_window").integer(1, kMaxContext);
  std::vector<int64_t> windows(count, 0);
  if (const auto types = json.find("layer_types")) {
    if (types->size() != count) types->fail("does not have one item for each layer");
    for (size_t layer = 0; layer < count; ++layer) {
      const Json type = (*types)[layer];
      if (type.string() == "sliding_attention") {
        windows[layer] = window;
      } else if (type.string() != "full_attention") {
        type.fail(fmt::format("is '{}', expected full_attention or sliding_attention",
                              printable(type.string(), 40)));
      }
    }
    return windows;
  }
  const int64_t first = json.integer_or("max_window_layers", 28, 0, kMaxLayers);
  for (int64_t layer = first; layer < config.layers; ++layer) {
    windows[static_cast<size_t>(layer)] = window;
  }
  return windows;
}

// Qwen's own configuration: names of the first release (n_embd, ...) and of the later one.
void parse_qwen(const Json& json, Config& c) {
  c.layers = dim(json, {"num_hidden_layers", "n_layer"}, kMaxLayers);
  c.hidden = dim(json, {"hidden_size", "n_embd"}, kMaxDim);
  c.heads = dim(json, {"num_attention_heads", "n_head"}, kMaxDim);
  c.kv_heads = c.heads;
  c.head_dim = json.integer_or("kv_channels", c.hidden / c.heads, 1, kMaxDim);
  const int64_t both = dim(json, {"intermediate_size", "ffn_hidden_size"}, kMaxDim);
  if (both % 2 != 0)
    json.fail(fmt::format("intermediate_size is {}, expected an even number", both));
  c.ffn = both / 2;  // one half each for w1 and w2
  c.output_vocab = dim(json, {"vocab_size"}, kMaxVocab);
  c.vocab = json.integer_or("padded_vocab_size", c.output_vocab, 1, kMaxVocab);
  c.norm_eps = static_cast<float>(json.number_or("layer_norm_epsilon", 1e-6, 1e-20, 1));
  c.rope_theta = json.number_or("rotary_emb_base", 10000, 1, 1e12);
  const double rotary_pct = json.number_or("rotary_pct", 1, 0, 1);
  c.rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * rotary_pct);
  c.qkv_bias = true;
  c.out_bias = c.mlp_bias = !json.boolean_or("no_bias", true);
  c.trained_context = json.integer_or("seq_length", 2048, 2, kMaxContext);
  const auto positions = find_any(json, {"max_position_embeddings", "n_positions"});
  // The first release's n_positions is the trained length and no limit: NTK goes beyond it.
  c.max_context = std::max(positions ? positions->integer(1, kMaxContext) : c.trained_context,
                           c.trained_context);
  c.dynamic_ntk = json.boolean_or("use_dynamic_ntk", false);
  c.logn = json.boolean_or("use_logn_attn", false);
  if (c.hidden != c.heads * c.head_dim) {
    json.fail(fmt::format("hidden_size is {}, expected {} heads x {} kv_channels = {}", c.hidden,
                          c.heads, c.head_dim, c.heads * c.head_dim));
  }
}

// The layout that Qwen1.5 and later, and LLaMA, share.
void parse_llama_like(const Json& json, Config& c) {
  c.layers = dim(json, {"num_hidden_layers"}, kMaxLayers);
  c.hidden = dim(json, {"hidden_size"}, kMaxDim);
  c.heads = dim(json, {"num_attention_heads"}, kMaxDim);
  c.kv_heads = json.integer_or("num_key_value_heads", c.heads, 1, kMaxDim);
  if (!json.has("head_dim") && c.hidden % c.heads != 0) {
    json.fail(fmt::format("hidden_size is {}, which {} heads do not divide", c.hidden, c.heads));
  }
  const int64_t default_head_dim = c.family == Family::Qwen3 ? 128 : c.hidden / c.heads;
  c.head_dim = json.integer_or("head_dim", default_head_dim, 1, kMaxDim);
  c.rotary_dim = c.head_dim;
  c.ffn = dim(json, {"intermediate_size"}, kMaxDim);
  c.vocab = c.output_vocab = dim(json, {"vocab_size"}, kMaxVocab);
  c.norm_eps = static_cast<float>(json.number_or("rms_norm_eps", 1e-6, 1e-20, 1));
  const bool attention_bias = json.boolean_or("attention_bias", false);
  c.qkv_bias = c.family == Family::Qwen2 || attention_bias;
  c.out_bias = c.family != Family::Qwen2 && attention_bias;
  c.mlp_bias = c.family == Family::Llama && json.boolean_or("mlp_bias", false);
  c.qk_norm = c.family == Family::Qwen3;
  c.max_context = json.integer_or("max_position_embeddings", 2048, 1, kMaxContext);
  c.trained_context = c.max_context;
  parse_rope(json, c);
  c.dynamic_ntk = json.boolean_or("use_dynamic_ntk", false);
  c.logn = json.boolean_or("use_logn_attn", false);
  const std::string activation = json.string_or("hidden_act", "silu");
  if (activation != "silu") {
    json.fail(fmt::format("hidden_act is '{}', expected silu", printable(activation, 40)));
  }
}

nlohmann::ordered_json qwen_json(const Config& c) {
  nlohmann::ordered_json out = {
      {"hidden_size", c.hidden},
      {"intermediate_size", 2 * c.ffn},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"kv_channels", c.head_dim},
      {"vocab_size", c.output_vocab},
      {"layer_norm_epsilon", static_cast<double>(c.norm_eps)},
      {"rotary_emb_base", c.rope_theta},
      {"rotary_pct", static_cast<double>(c.rotary_dim) / static_cast<double>(c.head_dim)},
      {"no_bias", !c.mlp_bias},
      {"seq_length", c.trained_context},
      {"max_position_embeddings", c.max_context},
      {"use_dynamic_ntk", c.dynamic_ntk},
      {"use_logn_attn", c.logn},
      {"scale_attn_weights", true},
      {"tokenizer_class", "QWenTokenizer"},
  };
  if (c.vocab != c.output_vocab) out["padded_vocab_size"] = c.vocab;
  return out;
}

nlohmann::ordered_json llama_like_json(const Config& c) {
  nlohmann::ordered_json out = {
      {"hidden_size", c.hidden},
      {"intermediate_size", c.ffn},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_dim},
      {"vocab_size", c.vocab},
      {"rms_norm_eps", static_cast<double>(c.norm_eps)},
      {"hidden_act", "silu"},
  };
  if (c.family != Family::Qwen2) out["attention_bias"] = c.out_bias;
  if (c.family == Family::Llama) out["mlp_bias"] = c.mlp_bias;
  if (c.dynamic_ntk) out["use_dynamic_ntk"] = true;
  if (c.logn) out["use_logn_attn"] = true;
  add_rope(c, out);
  return out;
}

}  // namespace

std::string_view name(Family family) noexcept { return kFamilyNames[static_cast<size_t>(family)]; }

Config parse_config(const Json& json) {
  Config c;
  c.family = detect_family(json);
  if (json.has("auto_map")) {
    log::debug(json.where() + ": auto_map names Python code, which Quern never runs");
  }
  if (c.family == Family::Qwen) {
    parse_qwen(json, c);
  } else {
    parse_llama_like(json, c);
  }
  c.tied = json.boolean_or("tie_word_embeddings", false);
  c.dtype = parse_dtype(json);
  c.initializer_range = json.number_or("initializer_range", 0.02, 0, 10);
  if (const auto ids = parse_token_ids(json, "bos_token_id"); !ids.empty()) c.bos_id = ids[0];
  c.eos_ids = parse_token_ids(json, "eos_token_id");
  c.windows = parse_config_windows(json, c);
  if (c.heads % c.kv_heads != 0) {
    json.fail(
        fmt::format("has {} heads, which {} key/value heads do not divide", c.heads, c.kv_heads));
  }
  if (c.rotary_dim % 2 != 0) {
    json.fail(fmt::format("rotates {} dims of each head, expected an even number", c.rotary_dim));
  }
  if (c.vocab < c.output_vocab) {
    json.fail(fmt::format("padded_vocab_size is {}, expected at least vocab_size, {}", c.vocab,
                          c.output_vocab));
  }
  if (c.tied && c.vocab != c.output_vocab) {
    json.fail("ties the embeddings, but vocab_size and padded_vocab_size differ");
  }
  warn_of_unread(json, c);
  return c;
}

Config load_config(const std::filesystem::path& model_folder) {
  if (is_gguf(model_folder)) return gguf_config(GgufFile(model_folder));
  const auto path = model_folder / "config.json";
  if (!std::filesystem::exists(path)) {
    if (!std::filesystem::exists(model_folder)) {
      throw_bad_input(model_folder.string() + ": there is no such file or folder",
                      "name a checkpoint's folder or a GGUF file");
    }
    if (!std::filesystem::is_directory(model_folder)) {
      const auto parent = model_folder.parent_path();
      throw_bad_input(model_folder.string() + ": is a file, expected a checkpoint's folder",
                      "name the folder" + (parent.empty() ? "" : ", " + parent.string()));
    }
    const auto latest = model_folder / "latest";
    throw_bad_input(model_folder.string() + ": has no config.json",
                    std::filesystem::exists(latest / "config.json")
                        ? "it is a training run; its newest checkpoint is " + latest.string()
                        : "name the folder of a Hugging Face checkpoint");
  }
  return parse_config(Json::parse_file(path.string(), {.max_bytes = size_t{16} << 20}));
}

nlohmann::ordered_json to_json(const Config& c) {
  nlohmann::ordered_json out = {
      {"architectures", {kArchitectures[static_cast<size_t>(c.family)]}},
      {"model_type", name(c.family)},
  };
  out.update(c.family == Family::Qwen ? qwen_json(c) : llama_like_json(c));
  out["tie_word_embeddings"] = c.tied;
  out["initializer_range"] = c.initializer_range;
  constexpr const char* kDTypes[] = {"float64", "float32", "float16", "bfloat16"};
  out["torch_dtype"] = kDTypes[static_cast<size_t>(c.dtype)];
  if (!c.windows.empty()) out["quern_layer_windows"] = c.windows;
  if (c.bos_id) out["bos_token_id"] = *c.bos_id;
  if (c.eos_ids.size() == 1) out["eos_token_id"] = c.eos_ids[0];
  if (c.eos_ids.size() > 1) out["eos_token_id"] = c.eos_ids;
  return out;
}

std::vector<int64_t> parse_windows(std::string_view text, int64_t layers) {
  const auto number = [&](std::string_view part) {
    int64_t value = 0;
    const auto [end, failure] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (failure != std::errc{} || end != part.data() + part.size() || value < 0) {
      throw Error(Kind::Misused,
                  fmt::format("the window '{}' is not a number of tokens", printable(part, 40)),
                  "give one window, a list with one for each layer, or FIRST:LAST");
    }
    return value;
  };
  const auto count = static_cast<size_t>(layers);
  if (const size_t colon = text.find(':'); colon != text.npos) {
    const int64_t first = number(text.substr(0, colon)), last = number(text.substr(colon + 1));
    std::vector<int64_t> windows(count, first);
    for (size_t i = 1; i < count; ++i) {
      windows[i] = first + (last - first) * static_cast<int64_t>(i) / (layers - 1);
    }
    return windows;
  }
  std::vector<int64_t> windows;
  size_t begin = 0;
  while (true) {
    const size_t comma = text.find(',', begin);
    windows.push_back(number(text.substr(begin, comma - begin)));
    if (comma == text.npos) break;
    begin = comma + 1;
  }
  if (windows.size() == 1) windows.resize(count, windows[0]);
  if (windows.size() != count) {
    throw Error(Kind::Misused,
                fmt::format("{} windows are given for {} layers", windows.size(), layers));
  }
  return windows;
}

namespace {

struct Preset {
  std::string_view name;
  Config config;
};

// A dense model of the Qwen family, as the memo describes it.
Config qwen_config(int64_t layers, int64_t hidden, int64_t heads, int64_t ffn, int64_t vocab,
                   int64_t context) {
  Config c;
  c.family = Family::Qwen;
  c.layers = layers;
  c.hidden = hidden;
  c.heads = c.kv_heads = heads;
  c.head_dim = c.rotary_dim = hidden / heads;
  c.ffn = ffn;
  c.vocab = c.output_vocab = vocab;
  c.qkv_bias = true;
  c.trained_context = context;
  c.max_context = 4 * context;
  c.dynamic_ntk = c.logn = true;
  c.dtype = DType::BF16;
  return c;
}

const std::vector<Preset>& presets() {
  static const std::vector<Preset> table = [] {
    std::vector<Preset> out = {
        {"qwen-7b", qwen_config(32, 4096, 32, 11008, 151936, 8192)},
        {"qwen-1.8b", qwen_config(24, 2048, 16, 5504, 151936, 8192)},
        {"mini", qwen_config(8, 256, 4, 704, 8192, 512)},
        {"tiny", qwen_config(4, 128, 4, 344, 1024, 256)},
    };
    out[0].config.max_context = out[1].config.max_context = 32768;
    return out;
  }();
  return table;
}

}  // namespace

Config preset(std::string_view name) {
  for (const Preset& row : presets()) {
    if (row.name == name) return row.config;
  }
  throw Error(Kind::Misused, fmt::format("there is no preset '{}'", printable(name, 40)),
              fmt::format("known are {}", fmt::join(preset_names(), ", ")));
}

std::vector<std::string_view> preset_names() {
  std::vector<std::string_view> names;
  for (const Preset& row : presets()) names.push_back(row.name);
  return names;
}

}  // namespace quern
