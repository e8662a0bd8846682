// GSM8K (Cobbe et al. 2021): grade-school word problems. Eight worked examples before a base model;
// none, or four in one turn, before a chat model. SVAMP (Patel et al. 2021) is asked the same way.
#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/extract/numbers.h"
#include "evaluate/tasks/all.h"
#include "evaluate/tasks/word_problems.h"

namespace quern {
namespace {

constexpr const char* kThink = "\nLet's think step by step\n";

// The result after the `#### ` of an answer, without commas.
std::string gold_of(const Json& answer) {
  const std::string& text = answer.string();
  const size_t mark = text.rfind("#### ");
  if (mark == text.npos) answer.fail("has no '#### ' before the result");
  return python::replace(python::strip(std::string_view(text).substr(mark + 5)), ",", "");
}

ItemVerdict judge_base(const Item& item, const Response& response, const JudgeContext&) {
  return judge_numbers(base_number(response.text), fixed_number(base_answer(response.text)),
                       *item.target);
}

ItemVerdict judge_chat(const Item& item, const Response& response, const JudgeContext&) {
  // The reference reads the gold from the worked answer by the rule that reads the reply.
  ItemVerdict verdict =
      judge_numbers(chat_number(response.text), fixed_number(response.text), *item.target);
  const auto gold = chat_number(item.extra.at("answer").get_ref<const std::string&>());
  verdict.correct = verdict.prediction && gold && same_number(*verdict.prediction, *gold);
  return verdict;
}

Summary accuracy(const DataFolder&, std::span<const Judged> judged) {
  return mean_summary(judged, "acc", Average::Items, {});
}

std::vector<Item> gsm8k_items(const std::string& task, const DataFolder& data,
                              const std::function<void(Item&)>& ask) {
  std::vector<Item> items;
  for_each_record(data.need("gsm8k/test.jsonl", kGsm8kPublished),
                  [&](const Json& record, int64_t row) {
                    Item item{.task = task, .split = "test"};
                    item.index = row;
                    item.id = fmt::format("{}/{}", task, row);
                    item.question = record.at("question").string();
                    item.target = gold_of(record.at("answer"));
                    item.extra["answer"] = record.at("answer").string();
                    item.max_new_tokens = 512;
                    ask(item);
                    items.push_back(std::move(item));
                  });
  return items;
}

Task word_problems(const std::string& name, const std::string& title, int shots) {
  Task task{.name = name};
  task.title = title;
  task.kind = Task::Kind::Generate;
  task.groups = {"math"};
  task.split = "test";
  task.shots = shots;
  task.metric = "acc";
  task.published = kGsm8kPublished;
  task.judge = judge_base;
  task.summarize = accuracy;
  return task;
}

Task chat_word_problems(const std::string& name, const std::string& title, int shots) {
  Task task = word_problems(name, title, shots);
  task.kind = Task::Kind::Chat;
  task.groups = {"math", "chat"};
  task.judge = judge_chat;
  return task;
}

std::vector<Message> user_turn(std::string text) {
  return {{ChatRole::System, std::string(kDefaultSystem)}, {ChatRole::User, std::move(text)}};
}

}  // namespace

std::string worked_examples(const fs::path& path) {
  std::string text;
  for_each_record(path, [&](const Json& record, int64_t) {
    text += fmt::format("Question: {}{}{}\nThe answer is {}\n\n", record.at("question").string(),
                        kThink, record.at("rationale").string(), record.at("answer").string());
  });
  return text;
}

std::string gsm8k_prompt(const std::string& examples, const std::string& question) {
  return examples + "Question: " + question + kThink;
}

Task gsm8k_task() {
  Task task = word_problems("gsm8k", "GSM8K, 8-shot", 8);
  task.load = [](const DataFolder& data, const ItemOptions&) {
    const std::string examples =
        worked_examples(data.need("gsm8k/fewshot_8.jsonl", kGsm8kPublished));
    return gsm8k_items("gsm8k", data, [&](Item& item) {
      item.prompt = gsm8k_prompt(examples, item.question);
      item.stop = {"\n\n", "Question:"};
    });
  };
  return task;
}

Task svamp_task() {
  Task task = word_problems("svamp", "SVAMP, 8-shot", 8);
  task.published = "github.com/arkilpatel/SVAMP";
  task.load = [published = task.published](const DataFolder& data, const ItemOptions&) {
    const std::string examples =
        worked_examples(data.need("gsm8k/fewshot_8.jsonl", kGsm8kPublished));
    std::vector<Item> items;
    for_each_record(data.need("svamp/svamp.jsonl", published),
                    [&](const Json& record, int64_t row) {
                      Item item{.task = "svamp", .split = "test"};
                      item.index = row;
                      item.id = record.at("id").string();
                      item.question = record.at("question").string();
                      item.prompt = gsm8k_prompt(examples, item.question);
                      item.stop = {"\n\n", "Question:"};
                      item.max_new_tokens = 512;
                      item.target = fmt::format("{}", record.at("answer").number());
                      items.push_back(std::move(item));
                    });
    return items;
  };
  return task;
}

Task chat_gsm8k_task() {
  Task task = chat_word_problems("chat-gsm8k", "GSM8K, chat, 0-shot", 0);
  task.load = [](const DataFolder& data, const ItemOptions&) {
    return gsm8k_items("chat-gsm8k", data,
                       [&](Item& item) { item.messages = user_turn(item.question); });
  };
  return task;
}

Task chat_gsm8k_4shot_task() {
  Task task = chat_word_problems("chat-gsm8k-4shot", "GSM8K, chat, 4-shot", 4);
  task.load = [](const DataFolder& data, const ItemOptions&) {
    const std::string examples =
        worked_examples(data.need("gsm8k/fewshot_4_chat.jsonl", kGsm8kPublished));
    return gsm8k_items("chat-gsm8k-4shot", data, [&](Item& item) {
      std::string text = gsm8k_prompt(examples, item.question);
      text.pop_back();  // the turn ends without a line break
      item.messages = user_turn(std::move(text));
    });
  };
  return task;
}

}  // namespace quern
