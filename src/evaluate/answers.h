// Who answers the items of a benchmark: a model of this machine, through the scheduler.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "answer/answerer.h"
#include "evaluate/item.h"
#include "generate/model.h"

namespace quern {

// What came back for an item, with what it took.
struct ItemAnswer {
  Response response;
  int64_t prompt_tokens = 0, reused_tokens = 0, new_tokens = 0;
  bool truncated = false;  // the prompt's beginning was cut to fit
  std::string finish;      // "stop", "length"; "score" where choices were scored
  double seconds = 0;
};

// An item as it is put to a model.
struct Question {
  const Item* item = nullptr;
  // Prompts of more tokens lose their beginning, so that one token less than this is left: a rule
  // of MMLU's script. 0: none.
  int64_t cut_above = 0;
  // Says that a text needs no further tokens, for ends that no stop string can say; may be empty.
  std::function<bool(std::string_view text)> complete;
  // How a text is drawn, of which item->sample tells the draws apart; null: the likeliest tokens.
  const SamplingChoice* sampling = nullptr;
};

enum class Truncate { Refuse, Left };

class AnswerSource {
 public:
  virtual ~AnswerSource() = default;
  // Answers each; `take` is called as each is done, in any order. Ends early where `cancel` becomes
  // true. Throws BadInput naming the item for a prompt that does not fit.
  virtual void answer(std::span<const Question> questions,
                      const std::function<void(size_t index, ItemAnswer answer)>& take,
                      const std::atomic<bool>& cancel) = 0;
  // Everything about it that could change an answer.
  virtual nlohmann::ordered_json identity() const = 0;
  virtual bool is_chat() const = 0;
};

// A model of this machine. Few-shot prompts that begin alike are computed once.
class LocalModel : public AnswerSource {
 public:
  struct Options {
    Truncate truncate = Truncate::Refuse;
    bool share_prefixes = true;
  };
  LocalModel(Model& model, std::string weights_sha256, Options options);
  ~LocalModel() override;

  void answer(std::span<const Question> questions,
              const std::function<void(size_t, ItemAnswer)>& take,
              const std::atomic<bool>& cancel) override;
  nlohmann::ordered_json identity() const override;
  bool is_chat() const override { return model_.is_chat(); }

 private:
  struct Pending;
  std::vector<TokenId> prompt_ids(const Item& item) const;
  void ask_choices(Pending& pending);
  void ask_text(Pending& pending);
  void give_choice(Pending& pending, size_t choice, Completion completion);

  Model& model_;
  std::string weights_sha256_;
  Options options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<Scheduler::Id> complete_;  // texts that need no further tokens
};

}  // namespace quern
