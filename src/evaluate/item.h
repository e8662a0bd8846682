// One question of a benchmark, and what a model made of it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/chatml.h"

namespace quern {

struct Item {
  std::string task;
  std::optional<std::string> subset;  // the subject, where the benchmark has subjects
  std::string split;
  int64_t index = 0;  // row of its file, from 0
  std::string id;
  int64_t sample = 0;  // which of several answers to the item, where more than one is drawn

  // The exact text that goes to the tokenizer, or the turns that go into the model's own chat
  // template: one of them.
  std::string prompt;
  std::vector<Message> messages;
  bool is_chat() const noexcept { return !messages.empty(); }

  // Continuations whose log-probabilities decide; empty where a text is generated.
  std::vector<std::string> choices;
  std::optional<std::string> target;  // the right answer, where the data tell it
  std::vector<std::string> stop;      // strings that end a generated text
  int64_t max_new_tokens = 0;

  // What only the scorer reads.
  std::string question;
  std::vector<std::string> options;  // texts of A, B, ...
  nlohmann::ordered_json extra;      // by task: tests of a program, accepted arguments, ...
};

// What came back for an item: a text, or a log-probability for each of its choices.
struct Response {
  std::string text;
  std::vector<double> choice_logprobs;
  bool failed = false;  // the model gave none
  std::string failure;  // why
};

// How an item went, by the reference's rule (parity) and by the better one (fixed). Where a task
// has one rule both are equal.
struct ItemVerdict {
  std::optional<std::string> prediction, prediction_fixed;  // absent: no answer was found
  std::optional<double> correct, correct_fixed;  // 0 or 1, or a share; absent: there is no gold
  bool tie = false;                // another choice has the same log-probability as the one taken
  bool timed_out = false;          // a program that was run did not end
  nlohmann::ordered_json details;  // more numbers of the item, by task
};

// One of a task's numbers, in percent where it is a share.
struct MetricValue {
  double value = 0;
  double standard_error = 0;
  int64_t count = 0;  // items that it comes from
};

}  // namespace quern
