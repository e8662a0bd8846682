// Where chat templates lie: in a model's files, or in the program itself.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "formats/gguf.h"
#include "text/chat_template.h"
#include "text/chatml.h"
#include "text/load.h"

namespace quern {
namespace {

constexpr std::string_view kTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};

// A token is named by its content, or described by an object that has it.
void read_tokens(const Json& json, ChatTemplateText& out) {
  for (const std::string_view name : kTokenNames) {
    const auto value = json.find(name);
    const bool known = std::any_of(out.tokens.begin(), out.tokens.end(),
                                   [&](const auto& row) { return row.first == name; });
    if (!value || known) continue;
    const Json content = value->is_object() ? value->at("content") : *value;
    out.tokens.emplace_back(std::string(name), content.string());
  }
}

std::string read_template(const fs::path& path) {
  return read_file(path, chat_template::kMaxTemplateBytes);
}

// A text, or a list of {name, template}, of which "default" and "tool_use" are known.
void read_named(const Json& value, ChatTemplateText& out) {
  if (value.is_string()) {
    out.text = value.string();
    return;
  }
  for (const Json& item : value.items()) {
    const std::string& name = item.at("name").string();
    if (name == "default") out.text = item.at("template").string();
    if (name == "tool_use") out.with_tools = item.at("template").string();
  }
  if (out.text.empty() && value.size() > 0) value.fail("has no template of the name default");
}

ChatTemplateText from_gguf(const fs::path& path) {
  const GgufFile file(path);
  ChatTemplateText out{.where = path.string() + ": tokenizer.chat_template"};
  if (file.has("tokenizer.chat_template")) out.text = file.string("tokenizer.chat_template");
  if (file.has("tokenizer.chat_template.tool_use")) {
    out.with_tools = file.string("tokenizer.chat_template.tool_use");
  }
  if (!file.has("tokenizer.ggml.tokens")) return out;
  const auto& tokens = file.strings("tokenizer.ggml.tokens");
  constexpr std::pair<const char*, const char*> kIds[] = {
      {"bos_token", "tokenizer.ggml.bos_token_id"},
      {"eos_token", "tokenizer.ggml.eos_token_id"},
      {"unk_token", "tokenizer.ggml.unknown_token_id"},
      {"pad_token", "tokenizer.ggml.padding_token_id"}};
  for (const auto& [name, key] : kIds) {
    if (!file.has(key)) continue;
    const int64_t id = file.integer(key, 0, static_cast<int64_t>(tokens.size()) - 1);
    out.tokens.emplace_back(name, std::string(tokens[static_cast<size_t>(id)]));
  }
  return out;
}

}  // namespace

ChatTemplateText find_chat_template(const fs::path& model) {
  if (is_gguf(model)) return from_gguf(model);
  const fs::path folder = fs::is_directory(model) ? model : model.parent_path();
  ChatTemplateText out;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const fs::path path = folder / name;
    if (!fs::is_regular_file(path)) continue;
    const Json json = Json::parse_file(path.string());
    read_tokens(json, out);
    const auto value = json.find("chat_template");
    if (!value || !out.text.empty()) continue;
    out.where = path.string() + ": chat_template";
    read_named(*value, out);
  }
  const fs::path own = folder / "chat_template.jinja", other = folder / "chat_template.json";
  if (fs::is_regular_file(own)) {
    out.where = own.string();
    out.text = read_template(own);
    const fs::path tools = folder / "additional_chat_templates" / "tool_use.jinja";
    out.with_tools = fs::is_regular_file(tools) ? read_template(tools) : std::string();
  } else if (out.text.empty() && fs::is_regular_file(other)) {
    out.where = other.string() + ": chat_template";
    read_named(Json::parse_file(other.string()).at("chat_template"), out);
  }
  return out;
}

void save_release_template(const Tokenizer& tokenizer, const fs::path& folder) {
  if (!supports_chatml(tokenizer) || !find_chat_template(folder).text.empty()) return;
  write_file(folder / "chat_template.jinja", builtin_chat_template("qwen"));
}

ChatTemplateText named_chat_template(const std::string& name, const fs::path& model) {
  ChatTemplateText out = find_chat_template(model);
  out.with_tools.clear();
  if (const std::string_view text = builtin_chat_template(name); !text.empty()) {
    out.text = text;
    out.where = "the built-in template " + name;
    return out;
  }
  if (fs::is_regular_file(name)) {
    out.text = read_template(name);
    out.where = name;
    return out;
  }
  throw Error(Kind::Misused,
              fmt::format("--chat-template is '{}', which is neither a built-in name nor a file",
                          printable(name, 80)),
              fmt::format("built in are {}", fmt::join(builtin_chat_templates(), ", ")));
}

}  // namespace quern
