// From answers to numbers: the one function that everything an evaluation prints comes from.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "evaluate/task.h"
#include "sandbox/python.h"

namespace quern {

// An item, what came back for it, and how it went.
struct Sample {
  const Item* item = nullptr;
  Response response;
  ItemVerdict verdict;
};

struct ScoreOptions {
  int workers = 0;  // programs run at once; 0: one for each core
  PythonOptions python;
  const Tokenizer* tokenizer = nullptr;  // where a task needs one
  // Called as items are judged, by one thread at a time.
  std::function<void(int64_t done)> on_progress;
};

struct TaskScore {
  const Task* task = nullptr;
  std::vector<Sample> samples;
  Summary summary;
  int64_t ties = 0, timeouts = 0, missing = 0;
  bool unsafe = false;  // programs ran outside the sandbox
};

// Judges the samples, whose items and responses are set, and sums them up. Throws what a broken
// sandbox or a missing interpreter throw.
TaskScore score_task(const Task& task, const DataFolder& data, std::vector<Sample> samples,
                     const ScoreOptions& options);

// Recorded answers by id: {"id","response"} or {"id","choice_logprobs":[...]} a line. A second
// answer for one id throws BadInput.
std::unordered_map<std::string, Response> read_responses(const fs::path& path);

// Items with their recorded answers. Items without one throw BadInput naming the first and how many
// there are, or are left out where `partial`; answers without an item throw always.
std::vector<Sample> match_responses(const std::vector<Item>& items,
                                    std::unordered_map<std::string, Response> responses,
                                    const std::string& source, bool partial, int64_t& missing);

// `results`, `groups` and the counts, as --json and result files have them.
nlohmann::ordered_json score_json(const TaskScore& score);
// A line of the samples file.
nlohmann::ordered_json sample_json(const Sample& sample);

}  // namespace quern
