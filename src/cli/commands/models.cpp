// quern models: what is there to be named.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands/model_store.h"
#include "cli/framework/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "formats/gguf.h"
#include "formats/gptq.h"
#include "model/config.h"
#include "model/tensors.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  bool json = false;
};

struct Listed {
  std::string name, family, quantization, chat_template, licence, path, problem;
  int64_t parameters = 0, context = 0;
  uint64_t bytes = 0;
};

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

void describe_gguf(const fs::path& path, Listed& out) {
  const GgufFile file(path);
  out.quantization = main_type(file);
  out.chat_template = file.has("tokenizer.chat_template") ? "yes" : "no";
  if (file.has("general.license")) out.licence = printable(file.string("general.license"), 60);
}

void describe_folder(const fs::path& folder, const Config& config, Listed& out) {
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

Listed describe(const StoredModel& model) {
  Listed out;
  out.name = model.name;
  out.path = model.path.string();
  out.bytes = bytes_of(model.path);
  try {
    const Config config = load_config(model.path);
    out.family = name(config.family);
    out.parameters = count_parameters(config).total;
    out.context = config.max_context;
    if (is_gguf(model.path)) {
      describe_gguf(model.path, out);
    } else {
      describe_folder(model.path, config, out);
    }
  } catch (const Error& failure) {
    out.problem = failure.line();
  }
  return out;
}

ordered_json to_json(const Listed& model) {
  ordered_json out = {{"name", model.name}, {"path", model.path}, {"bytes", model.bytes}};
  if (!model.problem.empty()) {
    out["problem"] = model.problem;
    return out;
  }
  out["family"] = model.family;
  out["parameters"] = model.parameters;
  out["quantization"] = model.quantization;
  out["context"] = model.context;
  out["template"] = model.chat_template;
  out["licence"] = model.licence.empty() ? ordered_json() : ordered_json(model.licence);
  return out;
}

void models(const Arguments& args) {
  std::vector<Listed> all;
  for (const StoredModel& model : stored_models()) all.push_back(describe(model));
  if (args.json) {
    ordered_json list = ordered_json::array();
    for (const Listed& model : all) list.push_back(to_json(model));
    print(dump(ordered_json{{"models", std::move(list)}}, 2) + "\n");
    return;
  }
  if (all.empty()) {
    print(fmt::format("no model is in {}; get one with 'quern pull'\n", model_cache().string()));
    return;
  }
  for (const Listed& model : all) {
    print(model.name + "\n");
    if (!model.problem.empty()) {
      print("  cannot be read: " + model.problem + "\n");
    } else {
      print(fmt::format(
          "  {}, {} parameters, {}, {} on disk, context {}, template: {}, licence: {}\n",
          model.family, human_count(static_cast<uint64_t>(model.parameters)), model.quantization,
          human_bytes(model.bytes), model.context, model.chat_template,
          model.licence.empty() ? "not said" : model.licence));
    }
    print("  " + model.path + "\n");
  }
}

}  // namespace

void add_models(CLI::App& root) {
  Command command(root, "models", "List the models that can be named without a path",
                  {{"models", "the one that comes with Quern, and what 'quern pull' fetched"},
                   {"models --json", "the same for programs"}});
  auto args = std::make_shared<Arguments>();
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args] { models(*args); });
}

}  // namespace quern::cli
