#include "cli/commands/checkpoint_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "formats/generation_config.h"
#include "formats/gguf.h"
#include "formats/tokenizer_spec.h"
#include "model/config.h"
#include "model/gguf_config.h"
#include "model/relayout.h"
#include "text/chat_template.h"
#include "text/gguf_tokenizer.h"

namespace quern::cli {
namespace {

// tokenizer_config.json and chat_template.jinja, as transformers looks for them.
void write_tokenizer_config(const GgufFile& file, const fs::path& to) {
  nlohmann::ordered_json out = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  const auto& tokens = file.strings("tokenizer.ggml.tokens");
  for (const char* role : {"bos", "eos", "unk", "pad"}) {
    const std::string key =
        fmt::format("tokenizer.ggml.{}_token_id", std::string_view(role) == "unk"   ? "unknown"
                                                  : std::string_view(role) == "pad" ? "padding"
                                                                                    : role);
    if (!file.has(key)) continue;
    const auto id = file.integer(key, 0, static_cast<int64_t>(tokens.size()) - 1);
    out[fmt::format("{}_token", role)] = std::string(tokens[static_cast<size_t>(id)]);
  }
  for (const char* flag : {"add_bos_token", "add_eos_token"}) {
    const std::string key = fmt::format("tokenizer.ggml.{}", flag);
    if (file.has(key)) out[flag] = file.boolean_or(key, false);
  }
  write_file(to / "tokenizer_config.json", dump(out, 2) + "\n");
  if (file.has("tokenizer.chat_template")) {
    write_file(to / "chat_template.jinja", file.string("tokenizer.chat_template"));
  }
}

}  // namespace

void write_gguf_tokenizer(const fs::path& from, const fs::path& to) {
  const GgufFile file(from);
  if (!has_gguf_tokenizer(file)) return;
  const ChatTemplateText chat = find_chat_template(from);
  if (!chat.text.empty()) {
    write_file(to / "chat_template.jinja", chat.text);
    nlohmann::ordered_json tokens = nlohmann::ordered_json::object();
    for (const auto& [name, content] : chat.tokens) tokens[name] = content;
    if (!tokens.empty()) write_file(to / "tokenizer_config.json", dump(tokens, 2) + "\n");
  }
  try {
    write_file(to / "tokenizer.json", to_tokenizer_json(tokenizer_json_of_gguf(file)));
    write_tokenizer_config(file, to);
  } catch (const Error& error) {
    if (error.kind() != Kind::Unsupported) throw;
    log::warning(error.line());
  }
}

std::optional<DType> checkpoint_dtype(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto dtype = dtype_from_user(name);
  if (dtype && (*dtype == DType::F32 || *dtype == DType::F16 || *dtype == DType::BF16)) {
    return dtype;
  }
  throw Error(Kind::Misused, fmt::format("--dtype is '{}'", printable(name, 40)),
              "expected fp32, fp16 or bf16");
}

nlohmann::ordered_json config_with_dtype(const fs::path& folder, std::optional<DType> dtype,
                                         bool decoded) {
  nlohmann::ordered_json config = Json::parse_file((folder / "config.json").string()).raw();
  if (decoded) config.erase("quantization_config");
  if (!dtype) return config;
  const char* name = *dtype == DType::F32   ? "float32"
                     : *dtype == DType::F16 ? "float16"
                                            : "bfloat16";
  // transformers 5 calls it dtype; a file may have both.
  if (config.contains("dtype")) config["dtype"] = name;
  if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = name;
  return config;
}

void copy_side_files(const fs::path& from, const fs::path& to) {
  constexpr const char* kNames[] = {"generation_config.json",
                                    "quantize_config.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "tokenizer.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "chat_template.jinja",
                                    "LICENSE",
                                    "NOTICE"};
  for (const char* name : kNames) {
    if (fs::is_regular_file(from / name)) write_file(to / name, read_file(from / name));
  }
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".tiktoken") {
      write_file(to / entry.path().filename(), read_file(entry.path()));
    }
  }
}

void write_gguf_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype) {
  const GgufFile file(from);
  Config config = family_layout(gguf_config(file));
  config.dtype = dtype.value_or(DType::F16);
  write_file(to / "config.json", dump(to_json(config), 2) + "\n");
  nlohmann::ordered_json generation = to_json(read_generation_config(from));
  if (config.eos_ids.size() > 1) generation["eos_token_id"] = config.eos_ids;
  if (!generation.empty()) {
    write_file(to / "generation_config.json", dump(generation, 2) + "\n");
  }
  write_gguf_tokenizer(from, to);
}

}  // namespace quern::cli
