// quern models: what is there to be named.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/model_store.h"
#include "cli/framework/command.h"
#include "core/json.h"
#include "core/progress.h"
#include "generate/model_card.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  bool json = false;
};

ordered_json to_json(const StoredModel& stored, const ModelCard& model) {
  ordered_json out = {
      {"name", stored.name}, {"path", stored.path.string()}, {"bytes", model.bytes}};
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
  const std::vector<StoredModel> all = stored_models();
  if (args.json) {
    ordered_json list = ordered_json::array();
    for (const StoredModel& model : all) list.push_back(to_json(model, describe_model(model.path)));
    print(dump(ordered_json{{"models", std::move(list)}}, 2) + "\n");
    return;
  }
  if (all.empty()) {
    print(fmt::format("no model is in {}; get one with 'quern pull'\n", model_cache().string()));
    return;
  }
  for (const StoredModel& stored : all) {
    const ModelCard model = describe_model(stored.path);
    print(stored.name + "\n");
    if (!model.problem.empty()) {
      print("  cannot be read: " + model.problem + "\n");
    } else {
      print(fmt::format(
          "  {}, {} parameters, {}, {} on disk, context {}, template: {}, licence: {}\n",
          model.family, human_count(static_cast<uint64_t>(model.parameters)), model.quantization,
          human_bytes(model.bytes), model.context, model.chat_template,
          model.licence.empty() ? "not said" : model.licence));
    }
    print("  " + stored.path.string() + "\n");
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
