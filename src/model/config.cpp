#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "formats/safetensors.h"
#include "model/config_keys.h"
#include "model/config_rope.h"
#include "model/families.h"
#include "model/gguf_config.h"
#include "model/stored_tensors.h"

namespace quern {
namespace {

int64_t dim(const Json& json, std::initializer_list<std::string_view> names, int64_t max) {
  const auto value = find_any(json, names);
  if (!value) json.fail(fmt::format("lacks the member '{}'", *names.begin()));
  return value->integer(1, max);
}

const FamilyRow& detect_family(const Json& json) {
  const std::string type = json.string_or("model_type", "");
  std::string architecture;
  if (const auto list = json.find("architectures"); list && list->size() > 0) {
    architecture = (*list)[0].string();
  }
  const auto among = [](std::string_view word, std::initializer_list<std::string_view> list) {
    return std::ranges::find(list, word) != list.end();
  };
  for (const FamilyRow& row : families()) {
    if (among(architecture, row.architectures)) return row;
    if (architecture.empty() && (type == row.type || among(type, row.other_types))) return row;
  }
  std::vector<std::string_view> known;
  for (const FamilyRow& row : families()) known.push_back(*row.architectures.begin());
  throw_bad_input(fmt::format("{}: the architecture '{}' (model_type '{}') is not known",
                              json.where(), printable(architecture, 80), printable(type, 80)),
                  fmt::format("known are {}", fmt::join(known, ", ")));
}

std::optional<Json> dtype_field(const Json& json) {
  return find_any(json, {"torch_dtype", "dtype", "params_dtype"});
}

DType parse_dtype(const Json& json) {
  const auto value = dtype_field(json);
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

// Our own key: any list of windows.
void read_layer_windows(const Json& json, Config& c) {
  const auto list = json.find("quern_layer_windows");
  if (!list) return;
  if (static_cast<int64_t>(list->size()) != c.layers) {
    list->fail(fmt::format("has {} items, expected one for each of the {} layers", list->size(),
                           c.layers));
  }
  c.windows.clear();
  for (const Json& item : list->items()) c.windows.push_back(item.integer(0, kMaxContext));
}

// The fields that all families have, under any of their names.
void read_usual(const Json& json, const ConfigNames& keys, Config& c) {
  c.layers = dim(json, {keys.layers, "num_hidden_layers", "n_layer", "n_layers", "num_layers"},
                 kMaxLayers);
  c.hidden = dim(json, {keys.hidden, "hidden_size", "n_embd", "n_embed", "d_model"}, kMaxDim);
  c.heads = dim(json, {keys.heads, "num_attention_heads", "n_head", "n_heads"}, kMaxDim);
  c.kv_heads = json.integer_or(keys.kv_heads, c.heads, 1, kMaxDim);
  if (!find_any(json, {"head_dim", "kv_channels"}) && c.hidden % c.heads != 0) {
    json.fail(fmt::format("hidden_size is {}, which {} heads do not divide", c.hidden, c.heads));
  }
  c.head_dim = json.integer_or("head_dim", std::max<int64_t>(c.hidden / c.heads, 1), 1, kMaxDim);
  c.rotary_dim = c.head_dim;
  // An MLP without a gate defaults to 4 · hidden; MPT's reader takes expansion_ratio instead.
  const auto ffn = find_any(json, {keys.ffn, "intermediate_size", "ffn_hidden_size", "n_inner"});
  const bool may_be_silent = keys.ffn != ConfigNames{}.ffn || keys.layers == "n_layers";
  if (ffn) {
    c.ffn = ffn->integer(1, 2 * kMaxDim);
  } else if (may_be_silent && c.family != Family::ChatGlm) {
    c.ffn = 4 * c.hidden;
  } else {
    c.ffn = dim(json, {keys.ffn}, kMaxDim);
  }
  c.vocab = c.output_vocab = dim(json, {keys.vocab, "vocab_size", "padded_vocab_size"}, kMaxVocab);
  const auto eps = find_any(json, {keys.eps, "rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps",
                                   "layernorm_epsilon", "norm_epsilon"});
  const double usual_eps = keys.eps == ConfigNames{}.eps || c.family == Family::Qwen ? 1e-6 : 1e-5;
  c.norm_eps = static_cast<float>(eps ? eps->number(1e-20, 1) : usual_eps);
  const auto context = find_any(json, {keys.context, "max_position_embeddings", "n_positions"});
  c.max_context = c.trained_context = context ? context->integer(1, kMaxContext) : 2048;
}

nlohmann::ordered_json usual_json(const Config& c, const ConfigNames& keys) {
  return {{keys.hidden, c.hidden},      {keys.ffn, c.ffn},
          {keys.layers, c.layers},      {keys.heads, c.heads},
          {keys.kv_heads, c.kv_heads},  {"head_dim", c.head_dim},
          {keys.vocab, c.vocab},        {keys.eps, static_cast<double>(c.norm_eps)},
          {keys.context, c.max_context}};
}

void check(const Json& json, const Config& c) {
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
}

// The language model's part of a config. Models that also see keep it inside, where their makers left
// out what their library fills in: Gemma 3's.
Json text_part(const Json& whole, const FamilyRow& row) {
  const auto inner = whole.find("text_config");
  if (!inner) return whole;
  if (row.family != Family::Gemma3) return *inner;
  nlohmann::json filled = {{"num_attention_heads", 8},
                           {"num_key_value_heads", 4},
                           {"head_dim", 256},
                           {"vocab_size", 262208},
                           {"max_position_embeddings", 131072}};
  if (!inner->is_object()) inner->fail("is no object");
  for (const auto& [key, value] : inner->members()) {
    if (!value.is_null()) filled[key] = value.raw();
  }
  return Json::wrap(std::move(filled), inner->where());
}

bool says_tied(const Json& whole) {
  const auto inner = whole.find("text_config");
  return whole.has("tie_word_embeddings") || (inner && inner->has("tie_word_embeddings"));
}

// Where config.json does not say whether the embedding is the head, it is that in a checkpoint without
// a head.
bool lacks_head(const std::filesystem::path& folder, const Config& c) {
  if (!std::filesystem::exists(folder / "model.safetensors") &&
      !std::filesystem::exists(folder / "model.safetensors.index.json")) {
    return false;
  }
  const TensorStore store = TensorStore::open(folder);
  const TensorNames& names = row_of(c.family).names;
  const auto has = [&](std::string_view module) {
    return std::ranges::any_of(std::array{".weight", ".qweight"}, [&](const char* ending) {
      return store.find(stored_name(store, std::string(module) + ending)).has_value();
    });
  };
  return has(names.embedding) && !has(names.lm_head);
}

}  // namespace

std::string_view name(Family family) noexcept { return row_of(family).type; }

Config parse_config(const Json& whole) {
  const FamilyRow& row = detect_family(whole);
  const Json json = text_part(whole, row);
  if (whole.has("auto_map")) {
    log::debug(whole.where() + ": auto_map names Python code, which Quern never runs");
  }
  Config c;
  c.family = row.family;
  read_usual(json, row.keys, c);
  row.read(json, c);
  if (has_usual_rope(c)) parse_rope(json, c);
  const auto holder = [&](std::string_view key) -> const Json& {
    return json.has(key) ? json : whole;
  };
  c.tied = holder("tie_word_embeddings").boolean_or("tie_word_embeddings", row.ties);
  c.dtype = parse_dtype(dtype_field(json) ? json : whole);
  c.initializer_range = json.number_or("initializer_range", 0.02, 0, 10);
  if (const auto ids = parse_token_ids(holder("bos_token_id"), "bos_token_id"); !ids.empty()) {
    c.bos_id = ids[0];
  }
  c.eos_ids = parse_token_ids(holder("eos_token_id"), "eos_token_id");
  read_layer_windows(json, c);
  check(json, c);
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
  const Json json = Json::parse_file(path.string(), {.max_bytes = size_t{16} << 20});
  Config config = parse_config(json);
  if (!config.tied && config.vocab == config.output_vocab && !says_tied(json)) {
    config.tied = lacks_head(model_folder, config);
  }
  return config;
}

nlohmann::ordered_json to_json(const Config& c) {
  const FamilyRow& row = row_of(c.family);
  nlohmann::ordered_json out = {
      {"architectures", {*row.architectures.begin()}},
      {"model_type", row.type},
  };
  out.update(usual_json(c, row.keys));
  if (has_usual_rope(c)) add_rope(c, out);
  row.write(c, out);
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

}  // namespace quern
