// Options that several commands share, declared once.
#pragma once

#include "answer/answerer.h"
#include "cli/framework/command.h"
#include "generate/model.h"

namespace quern::cli {

// Which model, and how it is to run.
struct ModelArguments {
  std::string model;
  std::vector<std::string> adapters;
  std::string kv_cache = "auto";
  std::string dynamic_ntk = "auto", logn = "auto";
  std::string layer_windows;
  int64_t context = 0;
  bool pack_cache = false, strict = false;
  std::string dtype = "auto";
  bool first_release = false;
  std::string extra_vocab;

  std::string chat_template;

  enum class Naming { Model, ServedAs };  // ServedAs: also NAME=MODEL
  void declare(Command& command, bool required = true, Naming naming = Naming::Model);
  void declare_options(Command& command);  // all but the model itself
  void declare_chat(Command& command);     // --chat-template, for commands that write conversations
  ModelOptions options() const;
};

struct SamplingArguments {
  bool greedy = false;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty;
  std::optional<double> frequency_penalty, presence_penalty;
  std::optional<int64_t> top_k, no_repeat_ngram;
  std::vector<std::string> logit_bias;  // "ID:BIAS"
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  // `default_seed` says what the seed is where none is given.
  void declare(Command& command, const std::string& default_seed = "0");
  // Throws Misused for a --logit-bias that is none.
  SamplingChoice choice() const;
  // On top of what the checkpoint's generation config says.
  SamplingOptions sampling(const Model& model) const;
  StopRules stop_rules(const Model& model) const;
};

// How much of a conversation's history a prompt keeps, for formats that know such a limit.
int64_t chat_window(const Model& model);

// A checkpoint's folder as it is; of a training run's folder, its latest checkpoint.
fs::path checkpoint_of(const fs::path& path);

// Ids from a JSON file: one list, or a list of lists. Throws BadInput naming the file and place.
std::vector<std::vector<TokenId>> read_ids_file(const std::string& path);

// What to say of an option --api-key, for commands that have --api-key-file.
std::string explain_api_key(const std::string& name, const std::string& value);

// Text for standard output: as it is for a file or pipe; on a terminal without control characters
// that could move its cursor or change its state.
std::string for_terminal(std::string_view text);

// "1.2 GB" after what is measured; rates with three digits.
std::string rate(double per_second, std::string_view unit);

}  // namespace quern::cli
