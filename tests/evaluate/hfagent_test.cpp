// The agent benchmark's code: what runs, what a value is, and the scores of made-up replies.
#include "evaluate/code_action.h"
#include "evaluate/score.h"
#include "support/support.h"

namespace quern {
namespace {

CodeActionOutcome run_code(const std::string& code, const std::vector<std::string>& answers) {
  ProgramJudge programs({});
  CodeAction action{.code = code, .inputs = {"image", "text"}, .tools = {}, .answers = answers};
  action.tools = nlohmann::ordered_json::parse(R"([
    {"name": "upper", "stub_parameters": ["text", "times=2"], "stub_result": "{text} x {times}"},
    {"name": "look", "stub_parameters": ["image"], "stub_result": "seen {image}",
     "stub_requires": {"parameter": "image", "must_contain": "image"}}])");
  return run_code_action(action, programs);
}

TEST(CodeAction, ValuesAreThoseOfTheSmallPython) {
  const auto value = [](const std::string& code) { return run_code(code, {"upper('a')"}).value; };
  EXPECT_EQ(value("upper(text)"), "'<<text>> x 2'");
  EXPECT_EQ(value("a = upper(text='b', times=3)\nprint(a)"), "'b x 3'");  // print gives None
  EXPECT_EQ(value("a = look(image)\nf'{a}!'"), "'seen <<image>>!'");
  EXPECT_EQ(value("for i in range(3):\n  i"), "2");
  EXPECT_EQ(value("if 1 < 2:\n  'yes'\nelse:\n  'no'"), "'yes'");
  EXPECT_EQ(value("d = {'colour': 1}\nd['color']"), "1");  // the nearest key
  // An unknown call or other syntax ends the run and keeps what there was.
  EXPECT_EQ(value("a = 1\nopen('f')\na = 2"), "1");
  EXPECT_EQ(value("a = 1\na = 1 + 1"), "1");
  EXPECT_EQ(value("a = 1\nunknown"), "1");
  // A tool that fails, a wrong argument, and text that is no Python leave nothing.
  EXPECT_EQ(value("a = 1\nlook(text)"), "None");
  EXPECT_EQ(value("a = 1\nupper()"), "None");
  EXPECT_EQ(value("a = 1\na ="), "None");
}

TEST(CodeAction, IsRightByItsValue) {
  EXPECT_EQ(run_code("upper('b')", {"upper('a')", "upper('b')"}).equal, 1);
  EXPECT_EQ(run_code("upper('c')", {"upper('a')"}).equal, -1);
  EXPECT_TRUE(run_code("{'k': upper('a')}", {"upper('a')"}).holds);
  // Nothing is not the value of an answer that fails.
  EXPECT_EQ(run_code("", {"look(text)"}).equal, -1);
  const CodeActionOutcome endless = run_code("for i in range(10000000000):\n  i", {"upper('a')"});
  EXPECT_TRUE(endless.timed_out);
  EXPECT_EQ(endless.equal, -1);
}

// The score of the benchmark where `reply_of` answers each item.
TaskScore score_of(const std::function<std::string(const Item&)>& reply_of) {
  const DataFolder data(test::shared("data/eval"));
  const Task& task = find_task("hfagent");
  static std::vector<Item> items;
  items = task.load(data, {});
  std::vector<Sample> samples;
  for (const Item& item : items) samples.push_back({&item, {.text = reply_of(item)}, {}});
  return score_task(task, data, std::move(samples), {});
}

// The reply that names the right tools and runs the answer.
std::string right_reply(const Item& item) {
  std::string names;
  for (const auto& tool : item.extra.at("tools")) {
    const auto name = tool.at("name").get<std::string>();
    if (item.target->find(name) != item.target->npos) names += " `" + name + "`";
  }
  return "tools:" + names + ".\n\nAnswer:\n```py\nresult = " + *item.target + "\n```\n";
}

TEST(HfAgent, RightRepliesScoreAllAndOneWrongCostsWhatTheMemoShows) {
  QUERN_NEED(test::shared("data/eval/hfagent"));
  const auto values = [](const TaskScore& score) {
    std::map<std::string, double> out;
    for (const auto& [name, value] : score.summary.all.parity) out[name] = value.value;
    return out;
  };
  const TaskScore all = score_of(right_reply);
  EXPECT_EQ(all.samples.size(), 27u);
  EXPECT_NEAR(values(all)["tool_selection"], 100, 1e-9);
  EXPECT_NEAR(values(all)["tool_used"], 100, 1e-9);
  EXPECT_NEAR(values(all)["code"], 100, 1e-9);
  // 97.41 = (26 + 0.3) / 27 is in the memo.
  const TaskScore one = score_of([](const Item& item) {
    return item.index == 5 ? right_reply(item) + "nonsense(" : right_reply(item);
  });
  EXPECT_NEAR(values(one)["code"], 100 * 26.3 / 27, 1e-9);
  EXPECT_NEAR(values(one)["tool_used"], 100, 1e-9);
  // No mark, or two: no tools and no code.
  const TaskScore none = score_of([](const Item& item) {
    return item.index == 0 ? "I cannot." : right_reply(item) + "Answer: again";
  });
  EXPECT_NEAR(values(none)["code"], 30, 1e-9);
  EXPECT_LT(values(none)["tool_selection"], 80);
}

}  // namespace
}  // namespace quern
