// HumanEval (Chen et al. 2021): the body of a function after its head, or the function after a
// request for it; what passes the tests counts.
#include <fmt/format.h>

#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/extract/programs.h"
#include "evaluate/judge_programs.h"
#include "evaluate/tasks/all.h"

namespace quern {
namespace {

constexpr const char* kPublished = "github.com/openai/human-eval";

// Between `def NAME` and the colon that ends its line.
std::string signature_of(const std::string& prompt, const std::string& name, const Json& record) {
  for (size_t at = 0; (at = prompt.find("def", at)) != prompt.npos; at += 3) {
    const std::string_view rest = python::lstrip(std::string_view(prompt).substr(at + 3));
    if (rest.data() == prompt.data() + at + 3 || !rest.starts_with(name)) continue;
    const std::string_view line = python::before(rest, "\n");
    const std::string_view head = python::rstrip(line);
    if (head.ends_with(':')) return std::string(head.substr(0, head.size() - 1));
  }
  record.fail("'prompt' has no line 'def " + name + "...:'");
}

// The first text in triple quotes, each line trimmed.
std::string docstring_of(const std::string& prompt, const Json& record) {
  const size_t begin = std::min(prompt.find("\"\"\""), prompt.find("'''"));
  if (begin == prompt.npos) record.fail("'prompt' has no docstring");
  const size_t end = std::min(prompt.find("\"\"\"", begin + 3), prompt.find("'''", begin + 3));
  if (end == prompt.npos) record.fail("'prompt' has a docstring without an end");
  std::string out;
  for (const std::string_view line :
       python::split_at(std::string_view(prompt).substr(begin + 3, end - begin - 3), "\n")) {
    if (!out.empty() || line.data() != prompt.data() + begin + 3) out += '\n';
    out += python::strip(line);
  }
  return out;
}

std::vector<Item> load(const std::string& task, const DataFolder& data) {
  std::vector<Item> items;
  for_each_record(data.need("humaneval/HumanEval.jsonl", kPublished), [&](const Json& record,
                                                                          int64_t row) {
    Item item{.task = task, .split = "test"};
    item.index = row;
    item.id = record.at("task_id").string();
    item.max_new_tokens = 512;
    const std::string& prompt = record.at("prompt").string();
    const std::string& name = record.at("entry_point").string();
    if (task == "humaneval") {
      item.prompt = prompt;
      item.stop = {"\n\n", "def "};
    } else {
      item.messages = {
          {ChatRole::System, std::string(kDefaultSystem)},
          {ChatRole::User,
           fmt::format("Write a Python function `{}` to solve the following problem:\n{}\n{}",
                       signature_of(prompt, name, record), docstring_of(prompt, record), prompt)}};
    }
    item.extra = {{"prompt", prompt}, {"entry_point", name}, {"test", record.at("test").string()}};
    items.push_back(std::move(item));
  });
  return items;
}

ItemVerdict judge(const Item& item, const Response& response, const JudgeContext& context) {
  const auto field = [&](const char* name) { return item.extra.at(name).get<std::string>(); };
  const std::string prompt = field("prompt"), name = field("entry_point");
  const std::string check = "\n" + field("test") + "\ncheck(" + name + ")";
  ItemVerdict verdict;
  std::string program_fixed;
  if (item.is_chat()) {
    verdict.prediction = chat_completion(response.text, name);
    program_fixed = chat_program(response.text, prompt, name);
    verdict.prediction_fixed = program_fixed;
  } else {
    verdict.prediction = base_completion(response.text);
    verdict.prediction_fixed = whole_body(response.text);
    program_fixed = prompt + *verdict.prediction_fixed;
  }
  const std::string program = prompt + *verdict.prediction;
  const ProgramLimits limits{.cpu_seconds = 3};
  context.programs->judge(program + check, program_fixed + check, limits, verdict);
  return verdict;
}

Task humaneval(const std::string& name) {
  Task task{.name = name};
  task.kind = name == "humaneval" ? Task::Kind::Generate : Task::Kind::Chat;
  task.title = name == "humaneval" ? "HumanEval, 0-shot" : "HumanEval, chat, 0-shot";
  task.groups = {"code"};
  if (name != "humaneval") task.groups.push_back("chat");
  task.split = "test";
  task.metric = "pass_at_1";
  task.runs_code = true;
  // The better rule reads further than the release's stops.
  if (name == "humaneval") task.complete = both_complete;
  task.published = kPublished;
  task.load = [name](const DataFolder& data, const ItemOptions&) { return load(name, data); };
  task.judge = judge;
  task.summarize = [](const DataFolder&, std::span<const Judged> judged) {
    return mean_summary(judged, "pass_at_1", Average::Items, {});
  };
  return task;
}

}  // namespace

Task humaneval_task() { return humaneval("humaneval"); }
Task chat_humaneval_task() { return humaneval("chat-humaneval"); }

}  // namespace quern
