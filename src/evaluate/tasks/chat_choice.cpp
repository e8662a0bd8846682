// C-Eval and MMLU put to a chat model: it answers in words, and the letter is read out of them.
#include "evaluate/extract/choices.h"
#include "evaluate/tasks/all.h"
#include "evaluate/tasks/multiple_choice.h"

namespace quern {
namespace {

using Extract = ExtractedChoice (*)(const std::string& reply, const ChoiceQuestion& question);

ItemVerdict judge(const Item& item, const Response& response, Extract parity, Extract fixed) {
  const ChoiceQuestion question{item.question, item.options};
  const ExtractedChoice chosen = parity(response.text, question);
  const ExtractedChoice better = fixed(response.text, question);
  ItemVerdict verdict;
  const auto letter = [](int index) { return std::string(1, static_cast<char>('A' + index)); };
  if (chosen.option) verdict.prediction = letter(*chosen.option);
  if (better.option) verdict.prediction_fixed = letter(*better.option);
  if (item.target) {
    verdict.correct = verdict.prediction == item.target;
    verdict.correct_fixed = verdict.prediction_fixed == item.target;
  }
  verdict.details["rule"] = chosen.rule;
  return verdict;
}

std::vector<Item> items_of(const std::string& task, const std::string& split,
                           const std::vector<Subject>& subjects, const std::string& instruction,
                           const std::string& gap) {
  std::vector<Item> items;
  for (const Subject& subject : subjects) {
    for (size_t i = 0; i < subject.rows.size(); ++i) {
      const ChoiceRow& row = subject.rows[i];
      Item item = choice_item(task, split, subject, i);
      item.messages = {{ChatRole::System, std::string(kDefaultSystem)},
                       {ChatRole::User, instruction + row.question + gap + option_lines(row)}};
      item.max_new_tokens = 512;
      items.push_back(std::move(item));
    }
  }
  return items;
}

Task chat_task(const std::string& name, const std::string& title) {
  Task task{.name = name};
  task.title = title;
  task.kind = Task::Kind::Chat;
  task.groups = {"knowledge", "chat"};
  task.metric = "acc";
  return task;
}

}  // namespace

Task chat_ceval_task() {
  Task task = chat_task("chat-ceval", "C-Eval validation, chat, 0-shot");
  task.split = "val";
  task.published = kCevalPublished;
  task.load = [](const DataFolder& data, const ItemOptions& options) {
    return items_of("chat-ceval", "val", ceval_subjects(data, "val", options), "", "\n\n");
  };
  task.judge = [](const Item& item, const Response& response, const JudgeContext&) {
    return judge(item, response, chinese_choice, chinese_choice_fixed);
  };
  task.summarize = [](const DataFolder& data, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Subjects, ceval_groups(data));
  };
  return task;
}

Task chat_mmlu_task() {
  Task task = chat_task("chat-mmlu", "MMLU, chat, 0-shot");
  task.split = "test";
  task.published = kMmluPublished;
  task.load = [](const DataFolder& data, const ItemOptions& options) {
    return items_of("chat-mmlu", "test", mmlu_subjects(data, "test", options),
                    "The following is a multiple-choice question. Please choose the most suitable "
                    "one among A, B, C and D as the answer to this question.\n\n",
                    "\n");
  };
  task.judge = [](const Item& item, const Response& response, const JudgeContext&) {
    return judge(item, response, english_choice, english_choice_fixed);
  };
  task.summarize = [](const DataFolder& data, std::span<const Judged> judged) {
    return mean_summary(judged, "acc", Average::Items, read_groups(data / "mmlu/categories.json"));
  };
  return task;
}

}  // namespace quern
