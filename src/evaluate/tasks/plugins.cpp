// Tool use by ReAct: is the right plugin chosen, are its arguments right, is one called where none
// fits? The release's benchmark is not public; its scorer's rules are kept, on its own records
// where they are at hand, else on queries of the Berkeley function-calling benchmark.
#include <fmt/format.h>

#include <algorithm>
#include <set>

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

// Words in lower case: runs of letters and digits, names also split where capitals begin; a
// character of a script without spaces is a word.
std::set<std::string> words_of(std::string_view text) {
  std::set<std::string> out;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) out.insert(ascii_lower(word));
    word.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) >= 0xE0) {  // three or four bytes of UTF-8
      end_word();
      const size_t size = static_cast<unsigned char>(c) >= 0xF0 ? 4 : 3;
      out.insert(std::string(text.substr(i, size)));
      i += size - 1;
    } else if (is_ascii_letter(c) || (c >= '0' && c <= '9') ||
               static_cast<unsigned char>(c) >= 0x80) {
      const bool capital = c >= 'A' && c <= 'Z';
      if (capital && !word.empty() && !(word.back() >= 'A' && word.back() <= 'Z')) end_word();
      word += c;
    } else {
      end_word();
    }
  }
  end_word();
  return out;
}

// What choosing without a model comes to: the first tool, any of them, the one whose name,
// description and parameters share most words with the query.
nlohmann::ordered_json baselines(const std::vector<ReactTool>& tools, const std::string& query,
                                 const std::string& gold) {
  const std::set<std::string> asked = words_of(query);
  size_t best = 0, most = 0;
  for (size_t i = 0; i < tools.size(); ++i) {
    size_t common = 0;
    for (const std::string& word : words_of(tools[i].name + " " + tools[i].description + " " +
                                            python_dumps(tools[i].parameters))) {
      common += asked.count(word);
    }
    if (common > most) {
      most = common;
      best = i;
    }
  }
  const auto right = [&](size_t i) { return i < tools.size() && tools[i].name == gold; };
  return {{"baseline_first", right(0)},
          {"baseline_random", tools.empty() ? 0.0 : 1.0 / static_cast<double>(tools.size())},
          {"baseline_words", right(best)}};
}

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
    const std::vector<ReactTool> offered = react_tools(*tools, ReactForm::React, where);
    prompt = react_prompt(ReactForm::React, offered, {}, text("query"));
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
      item.extra["baselines"] = baselines(offered, text("query"), action->text);
      if (const OrderedJson* accepted = record.find("accepted")) {
        if (!accepted->is_object()) throw_bad_input(where + ": 'accepted' is no object");
        for (const auto& [name, values] : accepted->members) {
          if (!values.is_array()) {
            throw_bad_input(
                fmt::format("{}: accepted.{} is no list of values", where, printable(name, 60)));
          }
        }
        item.extra["accepted"] = nlohmann::ordered_json::parse(python_dumps(*accepted));
      }
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

// `accepted` lists values; members of a table, also of one in a list, are such lists again.
bool accepts(const nlohmann::json& values, const nlohmann::json& given);
bool accepts_table(const nlohmann::json& accepted, const nlohmann::json& given) {
  for (const auto& [name, value] : given.items()) {
    if (!accepted.contains(name) || !accepts(accepted[name], value)) return false;
  }
  for (const auto& [name, values] : accepted.items()) {
    const bool optional =
        std::find(values.begin(), values.end(), nlohmann::json("")) != values.end();
    if (!optional && !given.contains(name)) return false;
  }
  return true;
}
bool accepts(const nlohmann::json& values, const nlohmann::json& given) {
  const auto lists = [](const nlohmann::json& table) {
    return table.is_object() &&
           std::ranges::all_of(table, [](const auto& value) { return value.is_array(); });
  };
  return std::ranges::any_of(values, [&](const nlohmann::json& value) {
    if (value == given) return true;
    if (given.is_object()) return lists(value) && accepts_table(value, given);
    if (!given.is_array() || !value.is_array() || value.size() != given.size()) return false;
    for (size_t i = 0; i < value.size(); ++i) {
      if (!accepts(nlohmann::json::array({value[i]}), given[i])) return false;
    }
    return true;
  });
}

// Whether a call's arguments are exactly those wanted: of `accepted` one value for each, those that
// may be "" also left out, and no other argument. Without `accepted` they are the gold call's.
bool exact_arguments(const std::string& text, const Item& item) {
  using nlohmann::json;
  if (text.empty()) return false;
  const json given = json::parse(text, nullptr, false);
  if (!given.is_object()) return false;
  if (!item.extra.contains("accepted")) {
    return given == json::parse(item.extra.at("input").get<std::string>(), nullptr, false);
  }
  return accepts_table(item.extra.at("accepted"), given);
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
  verdict.details = {
      {"tool_input", input_score(parity.action_input, gold, *context.tokenizer)},
      {"tool_input_fixed", input_score(arguments, gold, *context.tokenizer)},
      {"exact_arguments", verdict.correct == 1 && exact_arguments(parity.action_input, item)},
      {"exact_arguments_fixed", verdict.correct_fixed == 1 && exact_arguments(arguments, item)},
      {"unreadable", !fixed.error.empty()}};
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
    add_mean(judged, "exact_arguments" + suffix, 100, "exact_arguments", summary.all, fixed);
    add_mean(judged, "false_positive" + suffix, 100, "false_positive", summary.all, fixed);
  }
  add_mean(judged, "unreadable", 100, "unreadable", summary.all, true);
  for (const char* name : {"baseline_first", "baseline_random", "baseline_words"}) {
    Mean mean;
    for (const Judged& entry : positive) {
      if (!entry.item->extra.contains("baselines")) continue;
      const auto& value = entry.item->extra.at("baselines").at(name);
      mean.add(100 * (value.is_boolean() ? value.get<bool>() : value.get<double>()));
    }
    if (mean.count > 0) summary.all.fixed.emplace_back(name, mean.value());
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
