// A benchmark: what is asked, and how answers are judged. Each is declared in a file of tasks/; the
// table here lists them all.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "evaluate/data_folder.h"
#include "evaluate/item.h"

namespace quern {

class Tokenizer;
class ProgramJudge;
class TextMeter;

struct ItemOptions {
  // Cells that pandas takes for missing (`None`, `NA`, ...) are written `nan`, as the reference
  // does by accident.
  bool pandas_none = false;
};

// What a judge needs beside the item and the answer.
struct JudgeContext {
  ProgramJudge* programs = nullptr;      // runs code; null where a task needs none
  const Tokenizer* tokenizer = nullptr;  // of the model, for ROUGE-L over its tokens
};

// The numbers of a task, or of a part of it.
struct Metrics {
  std::vector<std::pair<std::string, MetricValue>> parity, fixed;
};

struct Summary {
  Metrics all;
  std::vector<std::pair<std::string, Metrics>> groups;
};

// Items and their verdicts, side by side.
struct Judged {
  const Item* item;
  const ItemVerdict* verdict;
};

// What a model made of a task's texts.
struct Measured {
  Summary summary;
  std::string table;  // lines for a terminal, where the summary says too little
  std::string chart;  // SVG
};

struct Task {
  std::string name;
  int version = 1;  // raised when prompts or rules change: results of two versions don't compare
  std::string title;
  std::vector<std::string> groups;  // names under which it runs, beside its own and `all`
  // Text: what is there is predicted; nothing is answered, so there is nothing to score from files.
  enum class Kind { Choice, Generate, Chat, Text } kind = Kind::Choice;
  std::string split;
  int shots = 0;
  std::string metric;  // its first number
  bool lower_is_better = false;
  bool runs_code = false;
  bool needs_tokenizer = false;
  // Prompts of more tokens lose their beginning, so that one token less than this is left; 0: none.
  int64_t cut_above = 0;
  // Says that a generated text needs no further tokens, where no stop string can; may be empty.
  std::function<bool(std::string_view text)> complete;
  std::string published;  // where the data are to be had
  // Data that nobody publishes: where `present` says that there are none, groups do without.
  std::function<bool(const DataFolder&)> present;
  bool optional() const noexcept { return present != nullptr; }

  std::function<std::vector<Item>(const DataFolder&, const ItemOptions&)> load;
  std::function<ItemVerdict(const Item&, const Response&, const JudgeContext&)> judge;
  std::function<Summary(const DataFolder&, std::span<const Judged>)> summarize;
  std::function<Measured(std::span<const Item>, TextMeter&)>
      measure;  // of Kind::Text, in their place
};

// All tasks, in the order of the memo's tables.
const std::vector<Task>& tasks();
// Throws Misused naming the nearest.
const Task& find_task(std::string_view name);
// Tasks by name, by group, or `all`, each once, in the table's order. Throws Misused for a word that
// is neither.
std::vector<const Task*> select_tasks(std::span<const std::string> words);
std::vector<std::string> task_groups();

// --- what declarations share

// The mean over all items, or over the means of the subjects, of `correct`; name it `metric`.
enum class Average { Items, Subjects };
Summary mean_summary(std::span<const Judged> judged, const std::string& metric, Average average,
                     const std::vector<std::pair<std::string, std::vector<std::string>>>& groups);

// "The release's own letter": the choice with the highest log-probability, the first of equals.
ItemVerdict judge_choice(const Item& item, const Response& response, const JudgeContext& context);

}  // namespace quern
