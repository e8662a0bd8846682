// How well a model predicts texts, under the context rules asked for: what WikiText-2 and the table
// of long contexts are made of. What was measured is kept as answers are.
#pragma once

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "evaluate/answer_store.h"
#include "evaluate/perplexity.h"

namespace quern {

// How attention reaches beyond the trained length.
struct ContextVariant {
  std::string name;
  bool dynamic_ntk = false, logn = false;
  std::vector<int64_t> windows;  // of each layer; empty: none
};

struct MeterOptions {
  nlohmann::ordered_json identity;  // what could change a result beside the text and the variant
  AnswerStore* store = nullptr;     // null: nothing is kept
  int64_t limit = 0;                // of the run: windows of WikiText-2, documents by twenty
  fs::path text;                    // a text in place of the data's long documents
  std::vector<int64_t> lengths;     // of windows; empty: the table's own
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(int64_t done, int64_t all)> on_progress;  // in tokens
};

class TextMeter {
 public:
  TextMeter(Model& model, MeterOptions options) : model_(model), options_(std::move(options)) {}

  Model& model() noexcept { return model_; }
  const MeterOptions& options() const noexcept { return options_; }

  // The variant that the model runs with by itself.
  ContextVariant own() const;
  // What on_progress counts to.
  void expect(int64_t tokens) noexcept { all_ = tokens; }
  // The expected tokens that are a known result's.
  void skip(int64_t tokens);
  // Windows of `length` tokens side by side, each a prompt of its own; positions 1 to length - 1 of
  // each count. Throws Partial where `cancel` ended it.
  PerplexityResult measure(std::span<const TokenId> ids, int64_t length,
                           const ContextVariant& variant);

  int64_t tokens() const noexcept { return done_; }
  double seconds() const noexcept { return seconds_; }

 private:
  Model& model_;
  MeterOptions options_;
  int64_t done_ = 0, all_ = 0;
  double seconds_ = 0;
};

}  // namespace quern
