#include "generate/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/json.h"
#include "formats/gguf.h"
#include "formats/gptq.h"
#include "model/config.h"
#include "model/tensors.h"

namespace quern {
namespace {

uint64_t bytes_of(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return fs::file_size(path, ignored);
  uint64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path, ignored)) {
    if (entry.is_regular_file(ignored)) sum += entry.file_size(ignored);
  }
  return sum;
}

// The type that most of the matrices' bytes have.
std::string main_type(const GgufFile& file) {
  std::map<std::string, uint64_t> bytes;
  for (const GgufTensor& tensor : file.tensors())
    bytes[std::string(tensor.block.name)] += tensor.bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : most->first;
}

// "licence" of the front matter of a model card (between lines of three hyphens, YAML).
std::string licence_of_card(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {"README.md", "LICENSE.md"}) {
    if (!fs::is_regular_file(folder / name, ignored)) continue;
    const std::string text = read_file(folder / name, 16 << 20);
    if (!text.starts_with("---")) continue;
    const std::string head = text.substr(0, text.find("\n---", 3));
    for (const char* key : {"\nlicense:", "\nlicense_name:"}) {
      const size_t at = head.find(key);
      if (at == head.npos) continue;
      const size_t begin = head.find_first_not_of(" \"'", at + std::string_view(key).size());
      const std::string value = head.substr(begin, head.find_first_of("\"'\n\r", begin) - begin);
      if (value != "other") return printable(value, 60);
    }
  }
  return fs::exists(folder / "LICENSE", ignored) ? "see LICENSE" : "";
}

void describe_gguf(const fs::path& path, ModelCard& out) {
  const GgufFile file(path);
  out.quantization = main_type(file);
  out.chat_template = file.has("tokenizer.chat_template") ? "yes" : "no";
  if (file.has("general.license")) out.licence = printable(file.string("general.license"), 60);
}

void describe_folder(const fs::path& folder, const Config& config, ModelCard& out) {
  const auto gptq = read_gptq_config(folder);
  out.quantization = gptq ? fmt::format("GPTQ int{}", gptq->bits) : std::string(name(config.dtype));
  const fs::path settings = folder / "tokenizer_config.json";
  std::error_code ignored;
  const bool own =
      fs::exists(folder / "chat_template.jinja", ignored) ||
      fs::exists(folder / "chat_template.json", ignored) ||
      (fs::exists(settings, ignored) && Json::parse_file(settings.string()).has("chat_template"));
  const fs::path generation = folder / "generation_config.json";
  const bool format =
      fs::exists(generation, ignored) && Json::parse_file(generation.string()).has("chat_format");
  out.chat_template = own ? "yes" : format ? "chat_format" : "no";
  out.licence = licence_of_card(folder);
}

}  // namespace

ModelCard describe_model(const fs::path& path) {
  ModelCard out;
  out.bytes = bytes_of(path);
  try {
    const Config config = load_config(path);
    out.family = name(config.family);
    out.parameters = count_parameters(config).total;
    out.context = config.max_context;
    if (is_gguf(path)) {
      describe_gguf(path, out);
    } else {
      describe_folder(path, config, out);
    }
  } catch (const Error& failure) {
    out.problem = failure.line();
  }
  return out;
}

}  // namespace quern
