#include "text/tokenizer_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

constexpr int64_t kMaxId = (int64_t{1} << 20) - 2;
constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

// A token given as a text or as an object; its id is not known yet.
AddedToken read_named(const Json& value) {
  AddedToken token = {.id = -1, .content = {}};
  if (value.is_string()) {
    token.content = value.string();
  } else {
    token.content = value.at("content").string();
    token.single_word = value.boolean_or("single_word", false);
    token.lstrip = value.boolean_or("lstrip", false);
    token.rstrip = value.boolean_or("rstrip", false);
    token.normalized = value.boolean_or("normalized", false);
  }
  return token;
}

void add_named(TokenizerConfig& config, AddedToken token) {
  const auto known = std::find_if(config.named.begin(), config.named.end(), [&](const auto& other) {
    return other.content == token.content;
  });
  if (!token.content.empty() && known == config.named.end())
    config.named.push_back(std::move(token));
}

void read_names(const Json& json, TokenizerConfig& config) {
  for (const char* name : kNames) {
    const auto value = json.find(name);
    if (!value || value->is_bool()) continue;
    AddedToken token = read_named(*value);
    const std::string_view key = name;
    std::string* const place = key == "bos_token"   ? &config.bos
                               : key == "eos_token" ? &config.eos
                               : key == "unk_token" ? &config.unknown
                               : key == "cls_token" ? &config.cls
                               : key == "sep_token" ? &config.sep
                                                    : nullptr;
    if (place != nullptr && place->empty()) *place = token.content;
    add_named(config, std::move(token));
  }
  for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto tokens = json.find(list);
    if (!tokens) continue;
    if (tokens->is_array()) {
      for (const Json& token : tokens->items()) add_named(config, read_named(token));
    } else {
      for (const auto& [name, token] : tokens->members()) add_named(config, read_named(token));
    }
  }
}

int64_t id_from_key(const std::string& key, const Json& where) {
  const bool digits =
      !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
  if (!digits) where.fail(fmt::format("has the id '{}'", printable(key, 40)));
  const int64_t id = std::stoll(key);
  if (id > kMaxId) where.fail(fmt::format("has the id {}, at most {} are supported", id, kMaxId));
  return id;
}

std::optional<bool> find_boolean(const Json& json, const char* key) {
  const auto value = json.find(key);
  if (!value) return std::nullopt;
  return value->boolean();
}

void read_main(const Json& json, TokenizerConfig& config) {
  std::string family = json.string_or("tokenizer_class", "");
  for (const std::string_view end : {"Fast", "Tokenizer"}) {
    if (family.ends_with(end)) family.resize(family.size() - end.size());
  }
  config.family = family;
  config.add_bos = find_boolean(json, "add_bos_token");
  config.add_eos = find_boolean(json, "add_eos_token");
  config.legacy = find_boolean(json, "legacy");
  config.add_prefix_space = find_boolean(json, "add_prefix_space");
  config.lowercase = json.boolean_or("do_lower_case", true);
  config.chinese = json.boolean_or("tokenize_chinese_chars", true);
  config.strip_accents = find_boolean(json, "strip_accents");
  if (json.has("extra_ids")) config.extra_ids = json.integer_or("extra_ids", 0, 0, 100'000);
  const double length = json.number_or("model_max_length", 0);  // 1e30 stands for none
  if (length > 0 && length < 1e12) config.max_length = static_cast<int64_t>(length);
  if (const auto options = json.find("sp_model_kwargs")) {
    for (const auto& [name, value] : options->members()) {
      const bool off = (value.is_bool() && !value.boolean()) || name == "alpha" ||
                       name == "nbest_size" || name == "model_file";
      if (!off) {
        throw Error(Kind::Unsupported,
                    value.where() + " is set: pieces drawn by chance are for training alone");
      }
    }
  }
  read_names(json, config);
  if (const auto decoder = json.find("added_tokens_decoder")) {
    for (const auto& [key, value] : decoder->members()) {
      AddedToken token = read_named(value);
      token.id = id_from_key(key, *decoder);
      token.special = value.boolean_or("special", false);
      token.normalized = value.boolean_or("normalized", !token.special);
      if (token.content.empty()) value.fail("has an empty content");
      config.added.push_back(std::move(token));
    }
  }
}

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& folder) {
  TokenizerConfig config;
  if (const fs::path path = folder / "tokenizer_config.json"; fs::exists(path)) {
    read_main(Json::parse_file(path.string()), config);
  }
  if (const fs::path path = folder / "special_tokens_map.json"; fs::exists(path)) {
    read_names(Json::parse_file(path.string()), config);
  }
  if (const fs::path path = folder / "added_tokens.json"; fs::exists(path)) {
    const Json json = Json::parse_file(path.string());
    for (const auto& [content, id] : json.members()) {
      if (content.empty()) json.fail("has an empty token");
      const int64_t value = id.integer(0, kMaxId);
      const bool known = std::any_of(config.added.begin(), config.added.end(),
                                     [&](const auto& token) { return token.content == content; });
      if (known) continue;
      const bool special = std::any_of(config.named.begin(), config.named.end(),
                                       [&](const auto& token) { return token.content == content; });
      config.added.push_back({.id = value, .content = content, .special = special});
    }
  }
  std::sort(config.added.begin(), config.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return config;
}

int64_t id_of(const TokenizerSpec& spec, std::string_view content) {
  for (const AddedToken& token : spec.added) {
    if (token.content == content) return token.id;
  }
  for (size_t id = 0; id < spec.model.tokens.size(); ++id) {
    if (spec.model.known[id] && spec.model.tokens[id] == content) return static_cast<int64_t>(id);
  }
  return -1;
}

void apply_tokenizer_config(const TokenizerConfig& config, TokenizerSpec& spec) {
  std::unordered_map<std::string, size_t> places;  // in spec.added
  std::unordered_set<int64_t> taken;
  const auto add = [&](const AddedToken& token) {
    places.emplace(token.content, spec.added.size());
    taken.insert(token.id);
    spec.added.push_back(token);
  };
  for (const AddedToken& token : std::exchange(spec.added, {})) add(token);
  for (const AddedToken& token : config.added) {
    if (const auto same = places.find(token.content); same != places.end()) {
      AddedToken& known = spec.added[same->second];
      const int64_t id = known.id;
      known = token;
      known.id = id;
      continue;
    }
    if (taken.contains(token.id)) {
      throw_bad_input(
          fmt::format("{}: the files beside it give the id {} to '{}', which it gives "
                      "to another token",
                      spec.source, token.id, printable(token.content, 80)));
    }
    add(token);
  }
  for (const AddedToken& named : config.named) {
    if (places.contains(named.content)) continue;
    AddedToken token = named;
    token.id = id_of(spec, named.content);
    if (token.id >= 0) add(token);
  }
  if (!config.bos.empty()) spec.bos = id_of(spec, config.bos);
  if (!config.eos.empty()) spec.eos = id_of(spec, config.eos);
  spec.max_length = config.max_length;
  // LLaMA's class sets the ids around a text anew; others only add what they are told to.
  const bool llama =
      config.family == "Llama" || config.family == "CodeLlama" || config.family == "Gemma";
  const auto bos = static_cast<int32_t>(spec.bos), eos = static_cast<int32_t>(spec.eos);
  if (llama) {
    spec.before.clear();
    spec.after.clear();
    if (config.add_bos.value_or(true) && bos >= 0) spec.before = {bos};
    if (config.add_eos.value_or(false) && eos >= 0) spec.after = {eos};
    return;
  }
  const auto has = [](const std::vector<int32_t>& ids, int32_t id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (config.add_bos.value_or(false) && bos >= 0 && !has(spec.before, bos)) {
    spec.before.insert(spec.before.begin(), bos);
  }
  if (config.add_eos.value_or(false) && eos >= 0 && !has(spec.after, eos)) {
    spec.after.push_back(eos);
  }
}

}  // namespace quern
