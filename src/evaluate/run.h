// A task from its items to its numbers: items that have an answer are not asked again.
#pragma once

#include "evaluate/answer_store.h"
#include "evaluate/answers.h"
#include "evaluate/score.h"
#include "evaluate/text_meter.h"

namespace quern {

struct RunOptions {
  ItemOptions items;
  int64_t limit = 0;  // items of a task, drawn evenly over its subjects; 0: all
  uint64_t seed = 0;  // of the draw
  // Programs drawn for each item of a task that runs them, for pass@k; 1: the likeliest one.
  int64_t samples_per_task = 1;
  SamplingChoice sampling;  // of several
  ScoreOptions score;
  AnswerStore* store = nullptr;  // null: nothing is kept
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(int64_t done, int64_t all)> on_answer;
  // Of several processes that share the store: this one answers the items whose number falls to it, and
  // run_task returns without a score. One process: all, and scored.
  int64_t share = 0, shares = 1;
};

// Everything of a task's run. Samples point into `items`.
struct TaskRun {
  std::vector<Item> items;
  TaskScore score;
  std::vector<ItemAnswer> answers;  // beside score.samples
  int64_t truncated = 0, prompt_tokens = 0, reused_tokens = 0, new_tokens = 0;
  double seconds = 0;          // of the answers, when they were made
  std::string prompts_sha256;  // over the items asked
  std::string table, chart;    // of a task that measures texts: see Measured
};

// Throws Partial where `cancel` ended it: what was answered is kept. Throws Failed where all choices
// of all items have one log-probability, as a broken model or server gives them.
TaskRun run_task(const Task& task, const DataFolder& data, AnswerSource& source,
                 const RunOptions& options);

// The same of a task of Kind::Text: its documents, or the text that the meter's options name.
TaskRun measure_task(const Task& task, const DataFolder& data, TextMeter& meter,
                     const RunOptions& options);

// `limit` of the items, as evenly over the subjects as their numbers allow, in their order.
std::vector<Item> draw_items(std::vector<Item> items, int64_t limit, uint64_t seed);

}  // namespace quern
