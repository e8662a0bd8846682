// MBPP (Austin et al. 2021), sanitized part, 3-shot: the rows that the benchmark's authors set
// apart for prompts, 2, 3 and 4, are shown and not scored.
#include <fmt/format.h>

#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/judge_programs.h"
#include "evaluate/tasks/all.h"

namespace quern {
namespace {

constexpr const char* kPublished = "github.com/google-research/google-research, folder mbpp";

struct Row {
  int64_t task_id, index;
  std::string prompt, code;
  std::vector<std::string> imports, tests;
};

std::vector<std::string> strings(const Json& list) {
  std::vector<std::string> out;
  for (const Json& item : list.items()) out.push_back(item.string());
  return out;
}

std::string asked(const Row& row) {
  return fmt::format(
      "You are an expert Python programmer, and here is your task: {} Your code should pass these "
      "tests:\n\n{}\n[BEGIN]\n",
      row.prompt, fmt::join(row.tests, "\n"));
}

std::vector<Item> load(const DataFolder& data, const ItemOptions&) {
  std::vector<Row> rows;
  const fs::path path = data.need("mbpp/mbpp_sanitized.jsonl", kPublished);
  for_each_record(path, [&](const Json& record, int64_t index) {
    rows.push_back({record.at("task_id").integer(), index, record.at("prompt").string(),
                    record.at("code").string(), strings(record.at("test_imports")),
                    strings(record.at("test_list"))});
  });
  std::string shots;
  for (const int64_t id : {2, 3, 4}) {
    const auto row = std::find_if(rows.begin(), rows.end(),
                                  [&](const Row& other) { return other.task_id == id; });
    if (row == rows.end()) {
      throw_bad_input(
          fmt::format("{}: has no task {}, which is shown before the others", path.string(), id));
    }
    shots += asked(*row) + std::string(python::strip(row->code)) + "\n[DONE]\n\n";
  }
  std::vector<Item> items;
  for (const Row& row : rows) {
    if (row.task_id >= 2 && row.task_id <= 4) continue;
    Item item{.task = "mbpp", .split = "test"};
    item.index = row.index;
    item.id = fmt::format("mbpp/{}", row.task_id);
    item.prompt = shots + asked(row);
    item.stop = {"[DONE]"};
    item.max_new_tokens = 512;
    item.extra = {{"imports", row.imports}, {"tests", row.tests}};
    items.push_back(std::move(item));
  }
  return items;
}

ItemVerdict judge(const Item& item, const Response& response, const JudgeContext& context) {
  ItemVerdict verdict;
  verdict.prediction = python::before(python::before(response.text, "<|endoftext|>"), "[DONE]");
  verdict.prediction_fixed = verdict.prediction;
  const auto program = [&](const std::string& code) {
    std::string text;
    for (const auto& line : item.extra.at("imports")) text += line.get<std::string>() + "\n";
    text += code;
    for (const auto& line : item.extra.at("tests")) text += "\n" + line.get<std::string>();
    return text;
  };
  const ProgramLimits limits{.cpu_seconds = 10};
  context.programs->judge(program(*verdict.prediction), program(*verdict.prediction_fixed), limits,
                          verdict);
  return verdict;
}

}  // namespace

Task mbpp_task() {
  Task task{.name = "mbpp"};
  task.title = "MBPP sanitized (382 items), 3-shot";
  task.kind = Task::Kind::Generate;
  task.groups = {"code"};
  task.split = "test";
  task.shots = 3;
  task.metric = "pass_at_1";
  task.runs_code = true;
  task.published = kPublished;
  task.load = load;
  task.judge = judge;
  task.summarize = [](const DataFolder&, std::span<const Judged> judged) {
    return mean_summary(judged, "pass_at_1", Average::Items, {});
  };
  return task;
}

}  // namespace quern
