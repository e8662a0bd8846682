// The files of a run: a result file for each task, the samples, a table in the memo's form.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "evaluate/run.h"

namespace quern {

// The result file: task, version, model, rules, settings, results, groups, counts, and what
// `compare` needs of every item.
nlohmann::ordered_json result_json(const TaskRun& run, const std::string& model_path,
                                   const nlohmann::ordered_json& identity,
                                   const RunOptions& options);

// A line for each item: id, prompt_sha256, tokens, response, predictions, verdicts.
std::string samples_jsonl(const TaskRun& run);

// C-Eval keeps its test answers: what its authors' form takes, {subject: {"0": "A"}}.
nlohmann::ordered_json submission_json(const TaskRun& run);

// One row of the memo's tables.
struct MemoFigure {
  std::string_view task, model;
  double value;
};
// The memo's figures for `task`, in its order.
std::vector<MemoFigure> memo_figures(std::string_view task);

// The runs beside the memo's figures, as text for a terminal and as CSV.
std::string result_table(std::span<const TaskRun> runs, const std::string& model);
std::string result_csv(std::span<const TaskRun> runs, const std::string& model);

// A page with the table, accuracy by subject, and the items that went wrong.
std::string result_html(std::span<const TaskRun> runs, const std::string& model);

}  // namespace quern
