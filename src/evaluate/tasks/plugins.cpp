// Tool use by ReAct: is the right plugin chosen, are its arguments right, is one called where none
// fits? The release's benchmark is not public; its scorer's rules are kept, on its own records
// where they are at hand, else on queries of the Berkeley function-calling benchmark.
#include <fmt/format.h>

#include "agent/react_prompt.h"
#include "agent/reply.h"
#include "core/ascii.h"
#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/mean.h"
#include "evaluate/metrics/rouge.h"
#include "evaluate/tasks/all.h"
#include "formats/byte_source.h"
#include "text/tokenizer.h"

namespace quern {
namespace {

constexpr const char* kPublished =
    "github.com/ShishirPatil/gorilla, folder berkeley-function-call-leaderboard";

// A record of the release holds prompt and gold reply, one of ours query, tools and gold.
Item item_of(const OrderedJson& record, const std::string& where) {
  const auto text = [&](const char* field) {
    const OrderedJson* value = record.find(field);
    if (value == nullptr || !value->is_string()) {
      throw_bad_input(fmt::format("{}: has no string '{}'", where, field));
    }
    return value->text;
  };
  Item item{.task = "plugins"};
  std::string prompt;
  if (record.find("prompt") != nullptr) {
    prompt = text("prompt");
    if (record.find("response") != nullptr) {
      const ReactParity gold = parse_react_as_release(text("response"));
      item.extra = {{"action", gold.action}, {"input", gold.action_input}};
    }
  } else {
    const OrderedJson* tools = record.find("tools");
    if (tools == nullptr) throw_bad_input(where + ": has no 'tools'");
    prompt = react_prompt(ReactForm::React, react_tools(*tools, ReactForm::React, where), {},
                          text("query"));
    const OrderedJson* gold = record.find("gold");
    if (gold != nullptr && gold->is_object()) {
      const OrderedJson* action = gold->find("action");
      const OrderedJson* input = gold->find("action_input");
      if (action == nullptr || !action->is_string() || input == nullptr) {
        throw_bad_input(where + ": 'gold' lacks action, a string, or action_input");
      }
      // Arguments given as text are read as the scorer reads a reply's.
      const std::string arguments =
          input->is_string()
              ? parse_react_as_release("\nAction: x\nAction Input: " + input->text).action_input
              : python_dumps(*input, {.sort_keys = true});
      item.extra = {{"action", action->text}, {"input", arguments}};
    }
  }
  if (const OrderedJson* id = record.find("id"); id != nullptr && id->is_string()) {
    item.id = id->text;
  }
  item.messages = {{ChatRole::System, std::string(kDefaultSystem)}, {ChatRole::User, prompt}};
  item.stop = {"Observation:"};
  item.max_new_tokens = 512;
  return item;
}

void add_items(const fs::path& path, const std::string& split, bool gold_wanted,
               std::vector<Item>& items) {
  LineReader lines(ByteSource::open(path), path.string(), uint64_t{64} << 20);
  int64_t row = 0;
  for (std::string line; lines.next(line); ++row) {
    const std::string where = fmt::format("{}: line {}", path.string(), lines.number());
    Item item = item_of(OrderedJson::parse(line, where), where);
    item.split = split;
    item.index = row;
    item.subset = split;
    if (item.id.empty()) item.id = fmt::format("plugins/{}/{}", split, row);
    if (gold_wanted != item.extra.contains("action")) {
      throw_bad_input(where + (gold_wanted ? ": has no gold call" : ": has a gold call"));
    }
    if (gold_wanted) item.target = item.extra.at("action").get<std::string>();
    items.push_back(std::move(item));
  }
}

std::vector<Item> load(const DataFolder& data, const ItemOptions&) {
  std::vector<Item> items;
  for (const bool positive : {true, false}) {
    const std::string split = positive ? "positive" : "negative";
    fs::path path = data / ("plugin/exam_plugin_v1_react_" + split + ".jsonl");
    if (!fs::exists(path)) path = data.need("plugin/react_" + split + ".jsonl", kPublished);
    add_items(path, split, positive, items);
  }
  return items;
}

std::string bare(std::string_view text) { return ascii_lower(python::strip(text)); }

// ROUGE-L over the model's tokens, as the release's scorer splits: tokens joined by spaces and
// split again, so that those of white space alone vanish.
double input_score(const std::string& reply, const std::string& gold, const Tokenizer& tokenizer) {
  if (reply.empty() || gold.empty()) return 0;
  const auto tokens = [&](const std::string& text) {
    std::string joined;
    for (const TokenId id : tokenizer.encode(text)) {
      const TokenId one[] = {id};
      joined += tokenizer.decode(one) + " ";
    }
    return joined;
  };
  return rouge_l(tokens(reply), tokens(gold)).f1;
}

ItemVerdict judge(const Item& item, const Response& response, const JudgeContext& context) {
  const ReactParity parity = parse_react_as_release(response.text);
  const ParsedReply fixed = parse_react(response.text);
  ItemVerdict verdict;
  if (parity.positive) verdict.prediction = parity.action;
  if (!fixed.calls.empty()) verdict.prediction_fixed = fixed.calls.front().name;
  if (!item.target) {
    verdict.details = {{"false_positive", parity.positive},
                       {"false_positive_fixed", !fixed.calls.empty()}};
    verdict.correct = !parity.positive;
    verdict.correct_fixed = fixed.calls.empty();
    return verdict;
  }
  const std::string gold = item.extra.at("input").get<std::string>();
  const std::string arguments =
      fixed.calls.empty() ? std::string()
                          : python_dumps(fixed.calls.front().arguments, {.sort_keys = true});
  verdict.correct = parity.positive && bare(parity.action) == bare(*item.target);
  verdict.correct_fixed =
      verdict.prediction_fixed && bare(*verdict.prediction_fixed) == bare(*item.target);
  verdict.details = {{"tool_input", input_score(parity.action_input, gold, *context.tokenizer)},
                     {"tool_input_fixed", input_score(arguments, gold, *context.tokenizer)}};
  return verdict;
}

// The mean of a number over the items that have it.
void add_mean(std::span<const Judged> judged, const std::string& field, double scale,
              const std::string& name, Metrics& metrics, bool fixed) {
  Mean mean;
  for (const Judged& entry : judged) {
    const auto found = entry.verdict->details.find(field);
    if (found == entry.verdict->details.end()) continue;
    mean.add(scale * (found->is_boolean() ? found->get<bool>() : found->get<double>()));
  }
  if (mean.count == 0) return;
  (fixed ? metrics.fixed : metrics.parity).emplace_back(name, mean.value());
}

Summary summarize(const DataFolder&, std::span<const Judged> judged) {
  std::vector<Judged> positive;
  for (const Judged& entry : judged) {
    if (entry.item->target) positive.push_back(entry);
  }
  Summary summary = mean_summary(positive, "tool_selection", Average::Items, {});
  for (const bool fixed : {false, true}) {
    const std::string suffix = fixed ? "_fixed" : "";
    add_mean(judged, "tool_input" + suffix, 1, "tool_input", summary.all, fixed);
    add_mean(judged, "false_positive" + suffix, 100, "false_positive", summary.all, fixed);
  }
  return summary;
}

Task plugin_task(const std::string& name, const std::string& title) {
  Task task{.name = name};
  task.title = title;
  task.kind = Task::Kind::Chat;
  task.groups = {"chat", "agent"};
  task.metric = "tool_selection";
  task.needs_tokenizer = true;
  task.judge = judge;
  task.summarize = summarize;
  return task;
}

}  // namespace

Task plugins_task() {
  Task task = plugin_task("plugins", "Plugins: tool selection, input, false positives");
  task.split = "positive, negative";
  task.published = kPublished;
  task.load = load;
  return task;
}

// Cases of the user's own: {id, lang, kind, query, tools, gold, accepted} in one file.
Task plugins_own_task() {
  Task task = plugin_task("plugins-own", "Plugins, own cases");
  task.split = "test";
  task.published = "plugins_own.jsonl";
  task.present = [](const DataFolder& data) {
    return fs::exists(data / "plugins_own.jsonl") || fs::exists(data / "plugins_own.jsonl.gz");
  };
  task.load = [](const DataFolder& data, const ItemOptions&) {
    const fs::path packed = data / "plugins_own.jsonl.gz";
    const fs::path path =
        fs::exists(packed) ? packed
                           : data.need("plugins_own.jsonl", "nowhere: it holds cases of your own");
    std::vector<Item> items;
    LineReader lines(ByteSource::open(path), path.string(), uint64_t{64} << 20);
    int64_t row = 0;
    for (std::string line; lines.next(line); ++row) {
      const std::string where = fmt::format("{}: line {}", path.string(), lines.number());
      const OrderedJson record = OrderedJson::parse(line, where);
      Item item = item_of(record, where);
      item.task = "plugins-own";
      item.split = "test";
      item.index = row;
      if (const OrderedJson* kind = record.find("kind")) item.subset = kind->text;
      if (item.id.empty()) item.id = fmt::format("plugins-own/{}", row);
      if (item.extra.contains("action")) item.target = item.extra.at("action").get<std::string>();
      items.push_back(std::move(item));
    }
    return items;
  };
  return task;
}

}  // namespace quern
