// MMLU, 5-shot (Hendrycks et al. 2021), as the release's script asks it: one space before the
// subject, the word `Question: `, letters with a space, the average over all questions.
#include <fmt/format.h>

#include <algorithm>

#include "core/python_text.h"
#include "evaluate/tasks/all.h"
#include "evaluate/tasks/multiple_choice.h"

namespace quern {
namespace {

constexpr size_t kShots = 5;

std::string asked(const ChoiceRow& row) {
  return "Question: " + row.question + "\n" + option_lines(row) + "Answer:";
}

std::vector<Item> load(const DataFolder& data, const ItemOptions& options) {
  const auto examples = mmlu_subjects(data, "dev", options);
  std::vector<Item> items;
  for (const Subject& subject : mmlu_subjects(data, "test", options)) {
    std::string words = subject.name;
    std::replace(words.begin(), words.end(), '_', ' ');
    std::string shots = fmt::format(
        "The following are multiple choice questions (with answers) about {}.\n\n", words);
    const std::vector<ChoiceRow>& dev = examples_for(subject, examples, "mmlu").rows;
    for (size_t i = 0; i < std::min(kShots, dev.size()); ++i) {
      shots += asked(dev[i]) + " " + dev[i].answer + "\n\n";
    }
    for (size_t i = 0; i < subject.rows.size(); ++i) {
      Item item = choice_item("mmlu", "test", subject, i);
      item.prompt = shots + asked(subject.rows[i]);
      item.choices = {" A", " B", " C", " D"};
      item.target = " " + subject.rows[i].answer;
      items.push_back(std::move(item));
    }
  }
  return items;
}

}  // namespace

Task mmlu_task() {
  Task task{.name = "mmlu"};
  task.title = "MMLU, 5-shot";
  task.groups = {"knowledge"};
  task.split = "test";
  task.shots = kShots;
  task.cut_above = 2048;  // max_seq_len of the release's script
  task.metric = "acc";
  task.published = kMmluPublished;
  task.load = load;
  task.judge = judge_choice;
  task.summarize = [](const DataFolder& d, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Items, read_groups(d / "mmlu/categories.json"));
  };
  return task;
}

// AQuA-RAT (Ling et al. 2017), 0-shot, asked in MMLU's form with five options.
Task aqua_task() {
  static constexpr const char* kPublished = "github.com/google-deepmind/AQuA";
  Task task{.name = "aqua"};
  task.title = "AQuA, 0-shot";
  task.groups = {"math"};
  task.split = "test";
  task.metric = "acc";
  task.published = kPublished;
  task.load = [](const DataFolder& data, const ItemOptions&) {
    std::vector<Item> items;
    for_each_record(data.need("aqua/test.jsonl", kPublished), [&](const Json& record, int64_t row) {
      Item item{.task = "aqua", .split = "test"};
      item.index = row;
      item.id = fmt::format("aqua/{}", row);
      item.question = record.at("question").string();
      item.prompt = "Question: " + item.question;
      const auto options = record.at("options").items();
      if (options.size() != 5) record.at("options").fail("does not have five options");
      for (size_t i = 0; i < options.size(); ++i) {
        const std::string& text = options[i].string();
        const auto letter = static_cast<char>('A' + i);
        if (!text.starts_with(std::string{letter, ')'})) {
          options[i].fail(fmt::format("does not begin with '{})'", letter));
        }
        const std::string option(python::strip(std::string_view(text).substr(2)));
        item.prompt += fmt::format("\n{}. {}", letter, option);
        item.options.push_back(option);
        item.choices.push_back(std::string{' ', letter});
      }
      item.prompt += "\nAnswer:";
      const std::string& correct = record.at("correct").string();
      if (correct.size() != 1 || correct[0] < 'A' || correct[0] > 'E') {
        record.at("correct").fail("is no letter from A to E");
      }
      item.target = " " + correct;
      items.push_back(std::move(item));
    });
    return items;
  };
  task.judge = judge_choice;
  task.summarize = [](const DataFolder&, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Items, {});
  };
  return task;
}

}  // namespace quern
