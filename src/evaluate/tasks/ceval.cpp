// C-Eval, 5-shot (Huang et al. 2023), as the release's script asks it: no header, no space before
// the letter, and the average over subjects, not rows.
#include <algorithm>

#include "evaluate/tasks/all.h"
#include "evaluate/tasks/multiple_choice.h"

namespace quern {
namespace {

constexpr size_t kShots = 5;

std::string asked(const ChoiceRow& row) {
  return "问题：" + row.question + "\n" + option_lines(row) + "答案：";
}

std::string shots_of(const std::vector<ChoiceRow>& rows) {
  std::string text;
  for (size_t i = 0; i < std::min(kShots, rows.size()); ++i) {
    text += asked(rows[i]) + rows[i].answer + "\n\n";
  }
  return text;
}

std::vector<Item> items_of(const std::string& task, const std::string& split,
                           const std::vector<Subject>& subjects,
                           const std::vector<Subject>& examples) {
  std::vector<Item> items;
  for (const Subject& subject : subjects) {
    const std::string shots = shots_of(examples_for(subject, examples, task).rows);
    for (size_t i = 0; i < subject.rows.size(); ++i) {
      Item item = choice_item(task, split, subject, i);
      item.prompt = shots + asked(subject.rows[i]);
      item.choices = {"A", "B", "C", "D"};
      items.push_back(std::move(item));
    }
  }
  return items;
}

Task ceval(const std::string& name, const std::string& split) {
  Task task{.name = name};
  task.title = "C-Eval " + (split == "val" ? std::string("validation") : split) + ", 5-shot";
  task.groups = {"knowledge"};
  task.split = split;
  task.shots = kShots;
  task.metric = "acc";
  task.published = kCevalPublished;
  task.load = [name, split](const DataFolder& data, const ItemOptions& options) {
    return items_of(name, split, ceval_subjects(data, split, options),
                    ceval_subjects(data, "dev", options));
  };
  task.judge = judge_choice;
  task.summarize = [](const DataFolder& data, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Subjects, ceval_groups(data));
  };
  return task;
}

std::vector<Subject> cmmlu_subjects(const DataFolder& data, const std::string& split,
                                    const ItemOptions& options) {
  std::vector<Subject> subjects;
  for (const std::string& name : data.names("cmmlu/" + split, ".csv", kCmmluPublished)) {
    const CsvTable table(data / ("cmmlu/" + split + "/" + name + ".csv"),
                         {"Question", "A", "B", "C", "D", "Answer"});
    subjects.push_back({name, choice_rows(table, true, options)});
  }
  return subjects;
}

}  // namespace

Task ceval_task() { return ceval("ceval", "val"); }

Task ceval_test_task() {
  Task task = ceval("ceval-test", "test");
  task.metric = "submission";
  return task;
}

// CMMLU (Li et al. 2023) is asked the same way.
Task cmmlu_task() {
  Task task = ceval("cmmlu", "test");
  task.title = "CMMLU, 5-shot";
  task.published = kCmmluPublished;
  task.load = [](const DataFolder& data, const ItemOptions& options) {
    return items_of("cmmlu", "test", cmmlu_subjects(data, "test", options),
                    cmmlu_subjects(data, "dev", options));
  };
  task.summarize = [](const DataFolder& data, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Subjects,
                        read_groups(data / "cmmlu/categories.json"));
  };
  return task;
}

}  // namespace quern
