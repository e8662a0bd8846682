#include "cli/commands/arguments.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/utf8.h"
#include "text/chat_template.h"
#include "text/chatml.h"

namespace quern::cli {

void ModelArguments::declare(Command& command, bool required, Naming naming) {
  const Option name =
      command
          .positional(
              "model", model,
              "Checkpoint folder (Hugging Face layout), GGUF file, or a name of 'quern models'")
          .replaced(naming == Naming::ServedAs ? resolve_named_model : resolve_model);
  if (required) name.required();
  declare_options(command);
}

void ModelArguments::declare_options(Command& command) {
  command.group("Model");
  command.option("--adapter", adapters, "LoRA adapter folder (PEFT layout); repeatable").folder();
  command
      .option("--kv-cache", kv_cache,
              "Data type of the KV cache; int8 has one scale per call (as Qwen-7B's release has), "
              "int8-token one per token")
      .one_of({"auto", "fp32", "fp16", "bf16", "int8", "int8-token"});
  command
      .option(
          "--dtype", dtype,
          "Numbers of the matrices: auto, as the file has them; float32, every weight exact and "
          "all arithmetic in float32, for checking")
      .one_of({"auto", "float32"});
  command.flag("--strict", strict, "A tensor that the model has no use for is an error");
  command.option("--context", context, "Context length in tokens; 0 = the checkpoint's")
      .range(int64_t{0}, int64_t{1} << 31)
      .usual();
  command
      .option("--dynamic-ntk", dynamic_ntk, "Dynamic NTK scaling of RoPE; auto = the checkpoint's")
      .one_of({"auto", "on", "off"});
  command.option("--logn", logn, "LogN attention scaling; auto = the checkpoint's")
      .one_of({"auto", "on", "off"});
  command
      .option("--layer-windows", layer_windows,
              "Sliding attention window in tokens: one for all layers, a comma-separated list, or "
              "FIRST:LAST interpolated over the layers; 0 = none",
              "the checkpoint's")
      .value("N|N,N,...|N:N");
  command.flag("--first-release", first_release,
               "Special tokens of the first Qwen-7B-Chat release (<R>, <S>, ...)");
  command.flag("--pack-cache", pack_cache,
               "Cache quantized weights in the kernels' layout in a file beside the model, for a "
               "faster start");
  command.option("--extra-vocab", extra_vocab, ".tiktoken file of added tokens").file();
}

void ModelArguments::declare_chat(Command& command) {
  command.option("--chat-template", chat_template,
                 fmt::format("How conversations are written: {}, or a Jinja file",
                             fmt::join(builtin_chat_templates(), ", ")),
                 "the model's own");
}

ModelOptions ModelArguments::options() const {
  ModelOptions options;
  options.threads = globals().threads;
  options.adapters.assign(adapters.begin(), adapters.end());
  options.kv_cache = kv_cache;
  options.dynamic_ntk = parse_switch("--dynamic-ntk", dynamic_ntk);
  options.logn = parse_switch("--logn", logn);
  options.layer_windows = layer_windows;
  options.context = context;
  options.pack_cache = pack_cache;
  options.float32 = dtype == "float32";
  options.strict = strict;
  options.chat_template = chat_template;
  options.tokenizer = {.first_release = first_release, .extra_vocab = extra_vocab};
  return options;
}

void SamplingArguments::declare(Command& command, const std::string& default_seed) {
  command.group("Sampling");
  command.flag("--greedy", greedy, "Greedy decoding, whatever the checkpoint says").usual();
  command
      .option("--temperature", temperature, "Sampling temperature; 0 = greedy", "the checkpoint's")
      .usual();
  command.option("--top-k", top_k, "Sample from the K most likely tokens; 0 = off",
                 "the checkpoint's");
  command
      .option("--top-p", top_p,
              "Nucleus sampling: the most likely tokens up to this total probability; 1 = off",
              "the checkpoint's")
      .usual();
  command.option("--min-p", min_p,
                 "Drop tokens below this fraction of the top token's probability; 0 = off",
                 "the checkpoint's");
  command.option("--typical-p", typical_p, "Locally typical sampling; 1 = off", "the checkpoint's");
  command.option("--repetition-penalty", repetition_penalty,
                 "Multiplicative penalty on tokens seen before; 1 = off", "the checkpoint's");
  command.option("--frequency-penalty", frequency_penalty,
                 "Subtracted from a token's logit per earlier occurrence", "0");
  command.option("--presence-penalty", presence_penalty,
                 "Subtracted from a token's logit once it has occurred", "0");
  command.option("--no-repeat-ngram", no_repeat_ngram,
                 "Never repeat an n-gram of N tokens; 0 = off", "the checkpoint's");
  command.option("--logit-bias", logit_bias, "Added to a token's logit; repeatable")
      .value("ID:BIAS");
  command.option("--seed", seed, "Random seed", default_seed).usual();
  command.group("Stopping");
  command.option("--stop", stop, "Stop string, not shown; repeatable").usual();
  command.flag("--ignore-eos", ignore_eos, "Continue past end-of-text tokens");
}

int64_t chat_window(const Model& model) {
  return model.generation().max_window_size.value_or(kDefaultWindow);
}

SamplingChoice SamplingArguments::choice() const {
  SamplingChoice out = {.temperature = temperature,
                        .top_p = top_p,
                        .min_p = min_p,
                        .typical_p = typical_p,
                        .repetition_penalty = repetition_penalty,
                        .frequency_penalty = frequency_penalty,
                        .presence_penalty = presence_penalty,
                        .top_k = top_k,
                        .no_repeat_ngram = no_repeat_ngram,
                        .seed = seed};
  if (greedy) out.greedy = true;
  for (const std::string& entry : logit_bias) {
    const size_t colon = entry.find(':');
    TokenId id = -1;
    float bias = 0;
    const char* begin = entry.data();
    const char* end = begin + entry.size();
    const bool good = colon != entry.npos &&
                      std::from_chars(begin, begin + colon, id).ptr == begin + colon &&
                      std::from_chars(begin + colon + 1, end, bias).ptr == end;
    if (!good || id < 0) {
      throw Error(Kind::Misused, fmt::format("--logit-bias is '{}'", printable(entry, 40)),
                  "expected ID:BIAS");
    }
    out.logit_bias.emplace_back(id, bias);
  }
  return out;
}

SamplingOptions SamplingArguments::sampling(const Model& model) const {
  const SamplingChoice given = choice();
  for (const auto& [id, bias] : given.logit_bias) {
    if (id < model.config().output_vocab) continue;
    throw Error(
        Kind::Misused, fmt::format("--logit-bias is '{}:{:g}'", id, bias),
        fmt::format("expected ID:BIAS with an id from 0 to {}", model.config().output_vocab - 1));
  }
  return given.on(model.default_sampling());
}

StopRules SamplingArguments::stop_rules(const Model& model) const {
  StopRules rules = model.default_stop();
  rules.strings = stop;
  rules.ignore_ids = ignore_eos;
  return rules;
}

std::vector<std::vector<TokenId>> read_ids_file(const std::string& path) {
  const Json json = Json::parse(read_input(path), path, {.max_bytes = size_t{1} << 30});
  const auto ids_of = [](const Json& list) {
    std::vector<TokenId> ids;
    for (const Json& id : list.items()) {
      ids.push_back(static_cast<TokenId>(id.integer(INT32_MIN, INT32_MAX)));
    }
    if (ids.empty()) list.fail("is empty, expected token ids");
    return ids;
  };
  if (!json.is_array()) json.fail("is not a list of ids");
  if (json.size() == 0) json.fail("is empty, expected token ids");
  if (!json[0].is_array()) return {ids_of(json)};
  std::vector<std::vector<TokenId>> lists;
  for (const Json& list : json.items()) lists.push_back(ids_of(list));
  return lists;
}

std::string explain_api_key(const std::string& name, const std::string&) {
  return name == "api-key" ? "use --api-key-file FILE: arguments can be read by other users" : "";
}

fs::path checkpoint_of(const fs::path& path) {
  const fs::path latest = path / "latest";
  const bool run = fs::is_directory(path) && !fs::exists(path / "config.json");
  return run && fs::exists(latest / "config.json") ? latest : path;
}

std::string for_terminal(std::string_view text) {
  static const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (!terminal) return std::string(text);
  std::string out;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    const bool control = (point.value < 0x20 && point.value != '\n' && point.value != '\t') ||
                         (point.value >= 0x7F && point.value < 0xA0);
    out += control ? std::string("\xEF\xBF\xBD") : std::string(text.substr(0, point.length));
    text.remove_prefix(point.length);
  }
  return out;
}

std::string rate(double per_second, std::string_view unit) {
  const int digits = per_second >= 100 ? 0 : per_second >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}", per_second, digits, unit);
}

}  // namespace quern::cli
