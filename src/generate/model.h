// A model ready to run: the one place where commands get a checkpoint from.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compute/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "formats/generation_config.h"
#include "generate/engine.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/chat_format.h"
#include "text/load.h"

namespace quern {

// What commands let a user change about a model.
struct ModelOptions {
  int threads = 0;  // 0: one for each core
  std::vector<fs::path> adapters;
  std::string kv_cache = "auto";    // auto, fp32, fp16, bf16, int8
  std::optional<bool> dynamic_ntk;  // absent: as config.json says
  std::optional<bool> logn;
  std::string layer_windows;  // parse_windows(); empty: as config.json says
  int64_t context = 0;        // 0: the checkpoint's
  TokenizerOptions tokenizer;
  std::string chat_template;  // a built-in name or a file; empty: the model's own
  bool pack_cache = false;    // see LoadOptions
  bool float32 = false;
  bool strict = false;
};

class Model {
 public:
  // Throws BadInput for anything wrong with the files, NoResources with the sum where weights and a
  // cache for the context cannot fit into the machine's memory.
  explicit Model(const fs::path& folder, const ModelOptions& options = {});
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const fs::path& folder() const noexcept { return folder_; }
  const Config& config() const noexcept { return config_; }
  const LoadedWeights& loaded() const noexcept { return weights_; }
  const Weights& weights() const noexcept { return weights_.weights(); }
  const GenerationConfig& generation() const noexcept { return generation_; }
  CpuBackend& backend() noexcept { return backend_; }
  Network network() noexcept { return {backend_, config_, weights()}; }
  ThreadPool& pool() noexcept { return pool_; }
  const EngineOptions& engine_options() const noexcept { return engine_; }

  bool has_tokenizer() const noexcept { return tokenizer_ != nullptr; }
  const Tokenizer* tokenizer_or_null() const noexcept { return tokenizer_.get(); }
  // Throws BadInput naming the folder where there is none, Unsupported where it can't be read.
  const Tokenizer& tokenizer() const;

  // What the checkpoint's generation_config says; greedy where it says do_sample false.
  SamplingOptions default_sampling() const;
  // End-of-text ids and stop sequences: eos ids, and what ends a turn in the chat format.
  StopRules default_stop() const;
  // How it writes conversations: as ModelOptions::chat_template says, else by its own template, else
  // as the first Qwen releases do where the vocabulary has ChatML's tokens. Throws BadInput that says
  // the way out where there is none, or the template has a mistake.
  bool is_chat() const noexcept { return chat_ != nullptr; }
  const ChatFormat& chat() const;
  // A raw prompt's ids: special tokens' names are recognized, and what the tokenizer's files put
  // around a text is there. Empty text gives the token that begins a text.
  std::vector<TokenId> raw_prompt(std::string_view text) const;

  // An error about results that are not finite, made to name the tensor at fault if one is.
  [[noreturn]] void explain_nonfinite() const;

 private:
  void find_chat(const std::string& name);

  fs::path folder_;
  ThreadPool pool_;
  CpuBackend backend_;
  Config config_;
  LoadedWeights weights_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<Error> no_tokenizer_;       // why there is none, where the files hold one
  std::unique_ptr<const ChatFormat> chat_;  // null for a model that only goes on with texts
  std::optional<Error> chat_failure_;       // what is wrong with its template
  GenerationConfig generation_;
  EngineOptions engine_;
};

// "fp32", "fp16", "bf16", "int8", or "auto": fp32 below a billion parameters, else fp16. Throws
// Misused for another word.
DType parse_kv_type(std::string_view name, const Config& config);

// Memory that the machine could still give, in bytes.
uint64_t available_memory() noexcept;

}  // namespace quern
