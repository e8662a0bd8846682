#include "train/run_config.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/toml.h"
#include "train/presets.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr int64_t kMany = int64_t{1} << 40;

// The keys of each table: what may stand in it, and what --set is offered.
using Keys = std::vector<std::string_view>;
const Keys kModelKeys = {"preset", "config", "tokenizer", "init_from"};
const Keys kDataKeys = {"seq", "packing", "isolate_documents", "train", "valid"};
const Keys kTrainKeys = {"steps",     "batch",   "micro_batch",     "seed",
                         "precision", "dropout", "recompute_layers"};
const Keys kOptimizerKeys = {"learning_rate", "min_ratio", "warmup",       "schedule", "beta_1",
                             "beta_2",        "epsilon",   "weight_decay", "decay",    "clip"};
const Keys kGuardKeys = {"z_score", "settle_steps", "max_skips"};
const Keys kCheckpointKeys = {"every", "keep_last", "keep_every", "background"};
const Keys kValidationKeys = {"every", "tokens"};
const Keys kTuneKeys = {"method", "neftune_alpha"};
const Keys kLoraKeys = {"rank",          "alpha",  "dropout", "targets",
                        "saved_modules", "rslora", "use_dora"};
const Keys kDpoKeys = {"beta", "loss", "trains"};
const Keys kParallelKeys = {"deterministic", "zero", "timeout"};
const Keys kSampleKeys = {"every", "tokens", "prompts"};
const std::pair<std::string_view, const Keys*> kTables[] = {{"train", &kTrainKeys},
                                                            {"optimizer", &kOptimizerKeys},
                                                            {"data", &kDataKeys},
                                                            {"model", &kModelKeys},
                                                            {"checkpoint", &kCheckpointKeys},
                                                            {"validation", &kValidationKeys},
                                                            {"samples", &kSampleKeys},
                                                            {"guard", &kGuardKeys},
                                                            {"tune", &kTuneKeys},
                                                            {"lora", &kLoraKeys},
                                                            {"dpo", &kDpoKeys},
                                                            {"parallel", &kParallelKeys}};

// Keys that hold a path, or a list of them.
constexpr std::array<std::string_view, 5> kPathKeys = {"config", "tokenizer", "init_from", "path",
                                                       "files"};

fs::path absolute_in(const fs::path& folder, const std::string& path) {
  return fs::absolute(folder / path).lexically_normal();
}

// Makes the paths of a tree absolute, seen from `folder`.
void resolve_paths(json& node, const fs::path& folder) {
  if (node.is_array()) {
    for (json& item : node) resolve_paths(item, folder);
  }
  if (!node.is_object()) return;
  for (auto& [key, value] : node.items()) {
    const bool path = std::find(kPathKeys.begin(), kPathKeys.end(), key) != kPathKeys.end();
    if (path && value.is_string() && !value.get_ref<const std::string&>().empty()) {
      value = absolute_in(folder, value.get<std::string>()).string();
    } else if (path && value.is_array()) {
      for (json& item : value) {
        if (item.is_string()) item = absolute_in(folder, item.get<std::string>()).string();
      }
    } else {
      resolve_paths(value, folder);
    }
  }
}

// A model's name where no path of that name is there.
void resolve_names(json& tree, const fs::path& folder, const ModelNames& names) {
  if (!tree.contains("model") || !tree["model"].is_object()) return;
  for (const char* key : {"init_from", "tokenizer"}) {
    json& model = tree["model"];
    if (!model.contains(key) || !model[key].is_string()) continue;
    const std::string name = model[key].get<std::string>();
    if (name.empty() || fs::exists(absolute_in(folder, name))) continue;
    model[key] = fs::absolute(names(name)).string();
  }
}

// "optimizer.clip=0.5" into the tree. A word that is no TOML value is a string.
void apply_override(json& tree, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(Kind::Misused, fmt::format("--set is '{}'", printable(text, 80)),
                "expected KEY=VALUE, as in --set train.steps=100");
  }
  const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
  json parsed;
  try {
    parsed = parse_toml("v = " + value, "--set " + key).at("v").raw();
  } catch (const Error&) {
    parsed = value;
  }
  json* node = &tree;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t dot = std::min(key.find('.', begin), key.size());
    if (node->is_null()) *node = json::object();
    if (!node->is_object()) {
      throw Error(Kind::Misused, fmt::format("--set {}: '{}' is no table", printable(key, 80),
                                             printable(key.substr(0, begin - 1), 80)));
    }
    node = &(*node)[key.substr(begin, dot - begin)];
    begin = dot + 1;
  }
  *node = std::move(parsed);
}

// The files that a pattern of the shell names.
void expand(const Json& item, std::vector<fs::path>& out) {
  glob_t found{};
  const int status = ::glob(item.string().c_str(), 0, nullptr, &found);
  for (size_t i = 0; status == 0 && i < found.gl_pathc; ++i) out.emplace_back(found.gl_pathv[i]);
  ::globfree(&found);
  if (status != 0) item.fail("names no file: " + printable(item.string()));
}

std::vector<std::pair<std::string, std::string>> read_pairs(const Json& table) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, value] : table.members()) {
    if (value.is_array()) {
      for (const Json& item : value.items()) out.emplace_back(key, item.string());
    } else {
      out.emplace_back(key, value.string());
    }
  }
  return out;
}

// A word out of a list, or `fallback` where the key is not there.
template <class T>
T read_word(const Json& table, const char* key, T fallback,
            std::optional<T> (*parse)(std::string_view) noexcept, std::string_view expected) {
  const auto word = table.find(key);
  if (!word) return fallback;
  const auto value = parse(word->string());
  if (!value) {
    word->fail(fmt::format("is '{}', expected {}", printable(word->string(), 40), expected));
  }
  return *value;
}

void read_chat(const Json& table, RunSource& out) {
  out.chat = true;
  out.form = read_word(table, "format", out.form, conversation_form,
                       "auto, openai, sharegpt, alpaca or release");
  out.mask = read_word(table, "mask", out.mask, chat_mask, "memo, release or assistant");
  out.when_long = read_word(table, "long", out.when_long, long_chat, "drop, cut or error");
  out.strict = table.boolean_or("strict", false);
}

RunSource read_source(const Json& table, RunKind kind) {
  RunSource out;
  // Files are conversations in fine-tuning, unless a field of texts is named.
  if (kind == RunKind::Finetune && table.find("files") && !table.find("field")) {
    table.only_keys({"name", "files", "format", "mask", "long", "strict", "weight"});
    read_chat(table, out);
  } else {
    table.only_keys({"name", "path", "files", "field", "messages", "where", "replace", "weight"});
  }
  out.path = table.string_or("path", "");
  if (const auto files = table.find("files")) {
    for (const Json& item : files->items()) expand(item, out.files);
  }
  if (out.path.empty() == out.files.empty()) {
    table.fail("has neither or both of path and files", "name a dataset's folder, or documents");
  }
  out.documents.text_field = table.string_or("field", "text");
  out.documents.messages_field = table.string_or("messages", "");
  if (const auto where = table.find("where")) out.documents.where = read_pairs(*where);
  if (const auto replace = table.find("replace")) out.documents.replace = read_pairs(*replace);
  const fs::path& named = out.path.empty() ? out.files[0] : out.path;
  out.name = table.string_or("name", named.stem().string());
  out.weight = table.number_or("weight", 1, 1e-9, 1e9);
  return out;
}

std::vector<RunSource> read_sources(const Json& list, RunKind kind) {
  std::vector<RunSource> out;
  for (const Json& table : list.items()) {
    out.push_back(read_source(table, kind));
    for (size_t i = 0; i + 1 < out.size(); ++i) {
      if (out[i].name == out.back().name) {
        table.fail(
            fmt::format("has the name '{}', as another one has", printable(out.back().name, 60)),
            "give each its own name");
      }
    }
  }
  return out;
}

// An empty table where there is none, so that every default stands in one place.
Json table_of(const Json& root, std::string_view key) {
  if (const auto found = root.find(key)) return *found;
  return Json::wrap(json::object(), root.where());
}

void read_model(const Json& table, RunConfig& out) {
  table.only_keys(kModelKeys);
  out.init_from = table.string_or("init_from", "");
  const std::string config = table.string_or("config", "");
  if (!out.init_from.empty()) {
    out.model = load_config(out.init_from);
  } else if (!config.empty()) {
    out.model = parse_config(Json::parse_file(config));
  } else if (const auto name = table.find("preset")) {
    const auto names = preset_names();
    if (std::find(names.begin(), names.end(), name->string()) == names.end()) {
      name->fail(fmt::format("is '{}'", printable(name->string(), 40)),
                 "known are " + fmt::format("{}", fmt::join(names, ", ")));
    }
    out.model = preset(name->string());
  } else {
    table.fail("names no model", "set model.preset, model.config or model.init_from");
  }
  out.tokenizer = table.string_or("tokenizer", out.init_from.string());
  if (out.tokenizer.empty()) {
    table.fail("names no tokenizer", "set model.tokenizer to a tokenizer's file or folder");
  }
}

void read_data(const Json& table, RunKind kind, RunConfig& out) {
  table.only_keys(kDataKeys);
  out.seq = table.integer_or("seq", out.seq, 2, int64_t{1} << 24);
  out.packing =
      parse_packing(table.string_or("packing", kind == RunKind::Finetune ? "documents" : "stream"),
                    table.where() + ".packing");
  out.isolate_documents = table.boolean_or("isolate_documents", true);
  out.train = read_sources(table.at("train"), kind);
  if (out.train.empty()) table.at("train").fail("names no source");
  if (const auto valid = table.find("valid")) out.valid = read_sources(*valid, kind);
}

// The last parts of the names of the blocks' matrices: c_attn, c_proj, w1, w2.
std::vector<std::string> linear_names(const Config& model) {
  std::vector<std::string> out;
  for (const TensorSpec& spec : tensor_specs(model)) {
    if (spec.role != Role::Matrix) continue;
    const std::string name = spec.module.substr(spec.module.rfind('.') + 1);
    if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  }
  return out;
}

bool names_module(std::string_view name, std::string_view module) {
  if (!module.ends_with(name)) return false;
  return module.size() == name.size() || module[module.size() - name.size() - 1] == '.';
}

// Settings of preference optimization, and what it leaves no choice of.
void read_dpo(const Json& root, RunConfig& out, TuneOptions& tune) {
  const Json dpo = table_of(root, "dpo");
  dpo.only_keys(kDpoKeys);
  TuneOptions::Preference preference;
  preference.beta = dpo.number_or("beta", preference.beta, 1e-6, 1e6);
  const std::string loss = dpo.string_or("loss", "sigmoid");
  if (loss != "sigmoid" && loss != "ipo") {
    dpo.at("loss").fail(fmt::format("is '{}', expected sigmoid or ipo", printable(loss, 40)));
  }
  preference.squared = loss == "ipo";
  const std::string trains = dpo.string_or("trains", "lora");
  if (trains != "lora" && trains != "full") {
    dpo.at("trains").fail(fmt::format("is '{}', expected lora or full", printable(trains, 40)));
  }
  if (trains == "full") tune.method = TuneOptions::Method::Full;
  tune.preference = preference;
  // Both models read the same without noise; a dropped activation would be taken for a preference.
  tune.dropout = 0;
  for (const auto& [name, key] :
       {std::pair{"lora", "dropout"}, {"train", "dropout"}, {"tune", "neftune_alpha"}}) {
    const Json noise = table_of(root, name);
    if (noise.number_or(key, 0) != 0) {
      noise.at(key).fail("is not 0: preferences are learnt without noise", "leave it out");
    }
  }
  const Json data = table_of(root, "data");
  if (data.find("packing")) data.at("packing").fail("has no use: pairs stay by themselves");
  out.packing = Packing::Pairs;
  for (std::vector<RunSource>* sources : {&out.train, &out.valid}) {
    for (RunSource& source : *sources) {
      if (!source.path.empty()) {
        data.fail("names a packed dataset", "pairs of answers are read from files = [...]");
      }
      source.preferences = true;
      source.mask = ChatMask::Assistant;
    }
  }
}

void read_tune(const Json& root, RunConfig& out) {
  const Json table = table_of(root, "tune"), lora = table_of(root, "lora");
  table.only_keys(kTuneKeys);
  lora.only_keys(kLoraKeys);
  TuneOptions tune;
  const std::string method = table.string_or("method", "lora");
  if (method != "lora" && method != "full" && method != "dpo") {
    table.at("method").fail(
        fmt::format("is '{}', expected lora, full or dpo", printable(method, 40)));
  }
  tune.method = method == "full" ? TuneOptions::Method::Full : TuneOptions::Method::Lora;
  if (method == "dpo") {
    read_dpo(root, out, tune);
  } else if (root.find("dpo")) {
    root.at("dpo").fail("is there, though tune.method is " + method, "leave one of them out");
  }
  tune.neftune_alpha = table.number_or("neftune_alpha", 0, 0, 1e6);
  if (out.init_from.empty()) {
    table_of(root, "model").fail("names no init_from", "fine-tuning begins with a model's weights");
  }
  if (!tune.lora()) {
    if (root.find("lora")) {
      root.at("lora").fail("is there, though tune.method is full", "leave one of them out");
    }
    out.tune = tune;
    return;
  }
  tune.rank = lora.integer_or("rank", tune.rank, 1, 1 << 16);
  tune.alpha = lora.number_or("alpha", tune.alpha, 1e-6, 1e9);
  tune.dropout = lora.number_or("dropout", tune.dropout, 0, 0.99);
  tune.rank_stabilized = lora.boolean_or("rslora", false);
  if (lora.boolean_or("use_dora", false)) {
    throw Error(Kind::Unsupported,
                lora.at("use_dora").where() + " is true: DoRA, which is not supported",
                "set it to false, which is LoRA");
  }
  const std::vector<std::string> known = linear_names(out.model);
  const auto targets = lora.find("targets");
  if (!targets || (targets->is_string() && targets->string() == "all-linear")) {
    tune.targets = known;
  } else {
    for (const Json& item : targets->items()) {
      const std::string& name = item.string();
      if (name == "lm_head") {
        item.fail("is lm_head, which is not trained by low-rank updates",
                  "name it in lora.saved_modules to train it in full");
      }
      const auto specs = tensor_specs(out.model);
      const bool found = std::ranges::any_of(specs, [&](const TensorSpec& spec) {
        return spec.role == Role::Matrix && names_module(name, spec.module);
      });
      if (!found) {
        item.fail(fmt::format("is '{}', which names no matrix of this model", printable(name, 40)),
                  fmt::format("known are {}, or \"all-linear\" in place of the list",
                              fmt::join(known, ", ")));
      }
      tune.targets.push_back(name);
    }
    if (tune.targets.empty()) targets->fail("names no matrix");
  }
  if (const auto saved = lora.find("saved_modules")) {
    const auto specs = tensor_specs(out.model);
    const std::string embedding = specs[0].module.substr(specs[0].module.rfind('.') + 1);
    for (const Json& item : saved->items()) {
      const std::string& name = item.string();
      if (name != embedding && name != "lm_head") {
        item.fail(fmt::format("is '{}'", printable(name, 40)),
                  fmt::format("what can be trained in full beside low-rank updates: {}, lm_head",
                              embedding));
      }
      tune.saved_modules.push_back(name);
    }
    const auto has = [&](const std::string& name) {
      return std::ranges::find(tune.saved_modules, name) != tune.saved_modules.end();
    };
    if (out.model.tied && has(embedding) && !has("lm_head")) {
      saved->fail(fmt::format("names {} alone, which is the head of this model as well", embedding),
                  "name lm_head beside it: each is trained and kept apart");
    }
  }
  out.tune = tune;
}

void read_training(const Json& table, RunConfig& out) {
  table.only_keys(kTrainKeys);
  out.steps = table.integer_or("steps", out.steps, 1, kMany);
  out.batch = table.integer_or("batch", out.batch, 1, 1 << 24);
  out.micro_batch = table.integer_or("micro_batch", 0, 0, out.batch);
  if (out.micro_batch == 0) out.micro_batch = out.batch;
  if (out.batch % out.micro_batch != 0) {
    table.at("micro_batch")
        .fail(fmt::format("is {}, which does not divide batch, {}", out.micro_batch, out.batch));
  }
  out.seed = static_cast<uint64_t>(table.integer_or("seed", 0, 0));
  out.precision = table.string_or("precision", out.precision);
  if (out.precision != "auto" && out.precision != "fp32" && out.precision != "bf16") {
    table.at("precision")
        .fail(fmt::format("is '{}', expected auto, fp32 or bf16", printable(out.precision, 40)));
  }
  out.dropout = table.number_or("dropout", 0, 0, 0.99);
  out.recompute_layers = table.integer_or("recompute_layers", 0, 0, out.model.layers);
}

void read_optimizer(const Json& table, RunConfig& out) {
  table.only_keys(kOptimizerKeys);
  out.schedule.peak = table.number_or("learning_rate", out.schedule.peak, 0, 10);
  out.schedule.floor = table.number_or("min_ratio", out.schedule.floor, 0, 1);
  out.schedule.warmup = table.integer_or("warmup", std::min<int64_t>(2000, out.steps / 10), 0);
  out.schedule.total = out.steps;
  out.schedule.decline =
      parse_decline(table.string_or("schedule", "cosine"), table.where() + ".schedule");
  OptimizerOptions& adamw = out.optimizer;
  adamw.beta_1 = table.number_or("beta_1", adamw.beta_1, 0, 0.999999);
  adamw.beta_2 = table.number_or("beta_2", adamw.beta_2, 0, 0.999999);
  adamw.epsilon = table.number_or("epsilon", adamw.epsilon, 1e-30, 1);
  adamw.weight_decay = table.number_or("weight_decay", adamw.weight_decay, 0, 10);
  adamw.decay = parse_decay(table.string_or("decay", "matrices"));
  adamw.clip = table.number_or("clip", adamw.clip, 0, 1e9);
}

void read_parallel(const Json& root, RunConfig& out) {
  const Json parallel = table_of(root, "parallel");
  parallel.only_keys(kParallelKeys);
  out.deterministic = parallel.boolean_or("deterministic", true);
  out.rank_seconds = parallel.number_or("timeout", out.rank_seconds, 1, 86400);
  out.zero = static_cast<int>(parallel.integer_or("zero", out.zero, 0, 3));
  if (out.zero > 1) {
    throw Error(Kind::Unsupported,
                fmt::format("{}.zero is {}: gradients and weights are whole on every rank",
                            parallel.where(), out.zero),
                "0 and 1 are known");
  }
}

void read_reports(const Json& root, RunConfig& out) {
  const Json guard = table_of(root, "guard");
  guard.only_keys(kGuardKeys);
  out.guard.z_score = guard.number_or("z_score", out.guard.z_score, 0, 1e6);
  out.guard.settle_steps = guard.integer_or("settle_steps", out.guard.settle_steps, 1);
  out.guard.max_skips = guard.integer_or("max_skips", out.guard.max_skips, 1);

  const Json checkpoint = table_of(root, "checkpoint");
  checkpoint.only_keys(kCheckpointKeys);
  out.save_every = checkpoint.integer_or("every", out.save_every, 1);
  out.keep_last = checkpoint.integer_or("keep_last", out.keep_last, 1);
  out.keep_every = checkpoint.integer_or("keep_every", 0, 0);
  out.save_in_background = checkpoint.boolean_or("background", true);

  const Json validation = table_of(root, "validation");
  validation.only_keys(kValidationKeys);
  out.validate_every = validation.integer_or("every", out.validate_every, 1);
  out.validate_tokens = validation.integer_or("tokens", out.validate_tokens, 1, kMany);

  const Json samples = table_of(root, "samples");
  samples.only_keys(kSampleKeys);
  out.sample_every = samples.integer_or("every", out.sample_every, 1);
  out.sample_tokens = samples.integer_or("tokens", out.sample_tokens, 1, 1 << 20);
  if (const auto prompts = samples.find("prompts")) {
    for (const Json& item : prompts->items()) out.sample_prompts.push_back(item.string());
  }
}

}  // namespace

RunConfig load_run_config(const fs::path& file, const std::vector<std::string>& overrides,
                          RunKind kind, const ModelNames& names) {
  const std::string source = file.string();
  json own = parse_toml_file(source).raw();
  if (names) resolve_names(own, fs::absolute(file).parent_path(), names);
  resolve_paths(own, fs::absolute(file).parent_path());
  json set = json::object();
  for (const std::string& text : overrides) apply_override(set, text);
  if (names) resolve_names(set, fs::current_path(), names);
  resolve_paths(set, fs::current_path());
  own.merge_patch(set);

  json tree = json::object();
  if (const auto name = Json::wrap(own, source).find("preset")) {
    tree = parse_toml(run_preset(name->string(), source + ": preset"), "preset").raw();
  }
  // A model named another way is not the preset's as well.
  if (tree.contains("model") && own.contains("model") && own["model"].is_object() &&
      (own["model"].contains("config") || own["model"].contains("init_from"))) {
    tree["model"].erase("preset");
  }
  tree.merge_patch(own);
  tree.erase("preset");

  RunConfig out{.merged = Json::wrap(tree, source)};
  std::vector<std::string_view> tables;
  for (const auto& [name, keys] : kTables) tables.push_back(name);
  out.merged.only_keys(tables);
  for (const char* table : {"tune", "lora", "dpo"}) {
    if (kind == RunKind::Finetune || !out.merged.find(table)) continue;
    out.merged.at(table).fail("belongs to fine-tuning", "use quern finetune");
  }
  read_model(table_of(out.merged, "model"), out);
  read_data(table_of(out.merged, "data"), kind, out);
  read_training(table_of(out.merged, "train"), out);
  read_optimizer(table_of(out.merged, "optimizer"), out);
  read_parallel(out.merged, out);
  read_reports(out.merged, out);
  if (kind == RunKind::Finetune) {
    read_tune(out.merged, out);
    // One sequence after the other, so that sums are grouped alike however a batch is cut.
    if (out.micro_batch != 1 && out.micro_batch != out.batch) {
      log::warning(
          fmt::format("train.micro_batch is {}, but fine-tuning computes one sequence at a "
                      "time",
                      out.micro_batch));
    }
    out.micro_batch = 1;
  }
  if (out.seq > out.model.max_context) {
    out.merged.at("data").fail(fmt::format("seq is {}, the model's longest context is {}", out.seq,
                                           out.model.max_context));
  }
  return out;
}

std::vector<TensorSpec> trained_specs(const RunConfig& config) {
  if (!config.tune || !config.tune->lora()) return tensor_specs(config.model);
  const TuneOptions& tune = *config.tune;
  const auto rank = static_cast<double>(tune.rank);
  const auto scale =
      static_cast<float>(tune.alpha / (tune.rank_stabilized ? std::sqrt(rank) : rank));
  const auto targeted = [&](const TensorSpec& spec) {
    return spec.role == Role::Matrix &&
           std::ranges::any_of(tune.targets, [&](const std::string& name) {
             return names_module(name, spec.module);
           });
  };
  std::vector<TensorSpec> out = adapter_specs(config.model, [&](const TensorSpec& spec) {
    return targeted(spec) ? AdapterShape{tune.rank, scale} : AdapterShape{};
  });
  std::vector<TensorSpec> whole = {tensor_specs(config.model)[0]};
  whole.push_back({"lm_head.weight",
                   "lm_head",
                   {config.model.output_vocab, config.model.hidden},
                   Part::LmHead,
                   Role::Head,
                   -1});
  for (TensorSpec spec : whole) {
    const bool saved = std::ranges::any_of(tune.saved_modules, [&](const std::string& name) {
      return names_module(name, spec.module);
    });
    if (!saved) continue;
    spec.module = "base_model.model." + spec.module;
    spec.name = spec.module + ".weight";
    out.push_back(spec);
  }
  return out;
}

const std::vector<std::string>& run_config_keys() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> out;
    for (const auto& [name, keys] : kTables) {
      for (const std::string_view key : *keys) out.push_back(fmt::format("{}.{}", name, key));
    }
    return out;
  }();
  return all;
}

}  // namespace quern
