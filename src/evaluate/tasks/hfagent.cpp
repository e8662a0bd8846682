// The benchmark of transformers' agents (2023), its run part: eleven problems in 27 phrasings, each
// answered with an explanation that names tools and with code that calls them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "evaluate/code_action.h"
#include "evaluate/python_text.h"
#include "evaluate/tasks/all.h"

namespace quern {
namespace {

constexpr const char* kPublished = "github.com/huggingface/transformers, src/transformers/tools";
constexpr std::string_view kBegin = "I will use the following ";
constexpr double kWrong = 0.3;     // for code without the right value, even where nothing ran
constexpr double kAmong = 0.75;    // for a dictionary that holds it
constexpr double kMissing = 0.25;  // a tool that is missing or not wanted takes this away

std::string text_of(const Json& value) { return value.string(); }

std::vector<Item> load(const DataFolder& data, const ItemOptions&) {
  const Json file = Json::parse_file(data.need("hfagent/hfagent.json", kPublished));
  std::string lines;
  nlohmann::ordered_json tools = nlohmann::ordered_json::array();
  for (const Json& tool : file.at("tools").items()) {
    if (!lines.empty()) lines += "\n";
    lines += fmt::format("- {}: {}", text_of(tool.at("name")), text_of(tool.at("description")));
    tool.at("stub_result");
    tool.at("stub_parameters");
    tools.push_back(nlohmann::ordered_json(tool.raw()));
  }
  std::string form = text_of(file.at("run_prompt_template"));
  for (const char* place : {"<<all_tools>>", "<<prompt>>"}) {
    if (form.find(place) == form.npos) {
      file.at("run_prompt_template").fail(fmt::format("has no {}", place));
    }
  }
  form = python::replace(form, "<<all_tools>>", lines);
  std::vector<Item> items;
  int64_t problem = 0;
  for (const Json& task : file.at("run_tasks").items()) {
    int64_t phrasing = 0;
    for (const Json& variant : task.at("variants").items()) {
      Item item{.task = "hfagent", .split = "run"};
      item.index = static_cast<int64_t>(items.size());
      item.id = fmt::format("hfagent/{}/{}", problem, phrasing++);
      std::string prompt = python::replace(form, "<<prompt>>", text_of(variant));
      prompt = python::replace(prompt, "Human:", "_HUMAN_:");
      prompt = python::replace(prompt, "Assistant:", "_ASSISTANT_:");
      item.messages = {{ChatRole::System, std::string(kDefaultSystem)},
                       {ChatRole::User, std::move(prompt)}};
      nlohmann::ordered_json answers = nlohmann::ordered_json::array();
      const Json answer = task.at("answer");
      if (answer.is_string()) {
        answers.push_back(answer.string());
      } else {
        for (const Json& one : answer.items()) answers.push_back(one.string());
      }
      if (answers.empty()) answer.fail("is empty");
      item.question = text_of(variant);
      item.target = answers.front().get<std::string>();
      item.stop = {"Task:"};
      item.max_new_tokens = 512;
      item.extra = {{"inputs", nlohmann::ordered_json(task.at("inputs").raw())},
                    {"answers", answers},
                    {"tools", tools}};
      items.push_back(std::move(item));
    }
    ++problem;
  }
  return items;
}

// What a reply explains and what it runs; both empty where it does not have the one mark that parts
// them.
std::pair<std::string, std::string> parts_of(const std::string& reply) {
  const std::string text = std::string(kBegin) + std::string(python::before(reply, "Task:"));
  const auto parts = python::split_at(text, "Answer:");
  if (parts.size() != 2) return {};
  auto lines = python::split_at(python::strip(parts[1]), "\n");
  const auto opens = [](std::string_view line) {
    return line == "```" || line == "```py" || line == "```python";
  };
  if (opens(lines.front())) lines.erase(lines.begin());
  if (!lines.empty() && lines.back() == "```") lines.pop_back();
  return {std::string(python::strip(parts[0])), fmt::format("{}", fmt::join(lines, "\n"))};
}

// Less for each tool that is missing, and for each that is not wanted.
double tool_score(const std::vector<std::string>& wanted, const std::vector<std::string>& named) {
  const auto lacks = [](const std::vector<std::string>& list, const std::string& name) {
    return std::find(list.begin(), list.end(), name) == list.end();
  };
  double score = 1;
  for (const std::string& name : wanted) score -= lacks(named, name) ? kMissing : 0;
  for (const std::string& name : named) score -= lacks(wanted, name) ? kMissing : 0;
  return std::max(0.0, score);
}

ItemVerdict judge(const Item& item, const Response& response, const JudgeContext& context) {
  const auto [explanation, code] = parts_of(response.text);
  CodeAction action{code, item.extra.at("inputs"), item.extra.at("tools"),
                    item.extra.at("answers").get<std::vector<std::string>>()};
  const CodeActionOutcome outcome = run_code_action(action, *context.programs);
  const std::string& expected = action.answers[size_t(std::max(outcome.equal, 0))];
  std::vector<std::string> wanted, explained, used;
  for (const auto& tool : action.tools) {
    const auto name = tool.at("name").get<std::string>();
    if (expected.find(name) != expected.npos) wanted.push_back(name);
    if (explanation.find("`" + name + "`") != explanation.npos) explained.push_back(name);
    if (code.find(name) != code.npos) used.push_back(name);
  }
  ItemVerdict verdict;
  verdict.prediction = code;
  verdict.prediction_fixed = code;
  verdict.timed_out = outcome.timed_out;
  verdict.correct = tool_score(wanted, explained);
  verdict.correct_fixed = verdict.correct;
  verdict.details = {{"tool_used", tool_score(wanted, used)},
                     {"code", outcome.equal >= 0 ? 1.0 : (outcome.holds ? kAmong : kWrong)},
                     {"value", outcome.value}};
  return verdict;
}

MetricValue mean_of(std::span<const Judged> judged, const std::string& field) {
  double sum = 0, squares = 0;
  for (const Judged& entry : judged) {
    const double x = 100 * entry.verdict->details.at(field).get<double>();
    sum += x;
    squares += x * x;
  }
  const auto n = static_cast<double>(judged.size());
  const double variance = n < 2 ? 0 : std::max(0.0, (squares - sum * sum / n) / (n - 1));
  return {sum / n, std::sqrt(variance / n), static_cast<int64_t>(judged.size())};
}

}  // namespace

Task hfagent_task() {
  Task task{.name = "hfagent"};
  task.title = "HuggingFace agent: tools, tools used, code";
  task.kind = Task::Kind::Chat;
  task.groups = {"chat", "agent"};
  task.split = "run";
  task.metric = "tool_selection";
  task.runs_code = true;
  task.published = kPublished;
  task.load = load;
  task.judge = judge;
  task.summarize = [](const DataFolder&, std::span<const Judged> judged) {
    Summary summary = mean_summary(judged, "tool_selection", Average::Items, {});
    if (judged.empty()) return summary;
    for (const char* field : {"tool_used", "code"}) {
      summary.all.parity.emplace_back(field, mean_of(judged, field));
    }
    summary.all.fixed = summary.all.parity;
    return summary;
  };
  return task;
}

}  // namespace quern
