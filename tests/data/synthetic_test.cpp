// Records made by a grammar.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "data/stages/generate.h"
#include "data/synthetic/text_grammar.h"
#include "support/support.h"

namespace quern::test {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSums = R"toml(
[list]
person = [{name = "Anna", they = "she"}, {name = "Ben", they = "he"}]
thing = ["apple", "orange", "pear"]
tool = [{name = "add", spec = {params = ["x", "y"]}}, {name = "sub", spec = {params = []}},
        {name = "mul", spec = {params = ["x"]}}]

[rule]
ask = [
  "{who.name} has {a} {thing}s. How many does {who.they} have?",
  {text = "{who.name} gives {b} of {a} away.", when = "minus == 1", weight = 3},
]
line = "- {item.name}"

[let]
who = "person"
thing = "thing"
minus = {from = 0, to = 1}
b = {from = 2, to = 20}
a = {from = "b + 1", to = 50}
price = {from = 0.5, to = 2, step = 0.25}
sum = {value = "a + b - 2 * b * minus"}
cost = {value = "a * price / 3", digits = 2}
it = "tool"
tools = {some = "tool", count = [1, 2], with = "it"}
lines = {each = "tools", rule = "line", join = "; "}

[record]
text = "{ask}"
who = "{@who}"
facts = {a = "{@a}", b = "{@b}", minus = "{@minus}", sum = "{@sum}", price = "{@price}", cost = "{@cost}"}
tools = "{@tools}"
wanted = "{it.name}"
names = "{tools.name|join}"
lines = "{lines}"
literal = "{{a}} {thing|upper} {thing} {=a * 2}"
)toml";

TextGrammar grammar_of(const TempFolder& folder, std::string_view text) {
  folder.write("grammar.toml", std::string(text));
  return TextGrammar::load(folder.path() / "grammar.toml");
}

TEST(TextGrammar, NamesAgreeAndNumbersAddUp) {
  const TempFolder folder;
  const TextGrammar grammar = grammar_of(folder, kSums);
  std::set<std::string> texts;
  for (uint64_t i = 0; i < 300; ++i) {
    const auto record = ordered_json::parse(grammar.record(7, i));
    EXPECT_EQ(record["id"], "grammar-" + std::to_string(i));
    const std::string name = record["who"]["name"], text = record["text"];
    texts.insert(text);
    EXPECT_TRUE(text.starts_with(name + " ")) << text;
    if (text.ends_with("?")) {
      EXPECT_NE(text.find(name == "Anna" ? "does she have" : "does he have"), text.npos) << text;
    }
    const ordered_json& facts = record["facts"];
    const int64_t a = facts["a"], b = facts["b"], minus = facts["minus"];
    EXPECT_TRUE(b >= 2 && b <= 20 && a > b && a <= 50) << facts;
    EXPECT_EQ(facts["sum"], minus == 1 ? a - b : a + b);
    EXPECT_TRUE(minus == 1 || text.ends_with("?")) << text;
    const double price = facts["price"];
    EXPECT_EQ(price * 4, std::floor(price * 4));
    EXPECT_TRUE(price >= 0.5 && price <= 2);
    EXPECT_NEAR(facts["cost"].get<double>(), double(a) * price / 3, 0.005 + 1e-9);
    // Several of a list: each once, the wanted one among them.
    std::set<std::string> names;
    std::string joined, lines;
    for (const auto& tool : record["tools"]) {
      EXPECT_TRUE(names.insert(tool["name"]).second);
      joined += (joined.empty() ? "" : ", ") + tool["name"].get<std::string>();
      lines += (lines.empty() ? "- " : "; - ") + tool["name"].get<std::string>();
      EXPECT_TRUE(tool["spec"]["params"].is_array());
    }
    EXPECT_TRUE(names.contains(record["wanted"]));
    EXPECT_TRUE(names.size() == 1 || names.size() == 2);
    EXPECT_EQ(record["names"], joined);
    EXPECT_EQ(record["lines"], lines);
    const std::string literal = record["literal"];
    EXPECT_TRUE(literal.starts_with("{a} ")) << literal;
    EXPECT_TRUE(literal.ends_with(" " + std::to_string(2 * a))) << literal;
  }
  EXPECT_GT(texts.size(), 100u);
}

TEST(TextGrammar, ARecordDependsOnSeedAndIndexAlone) {
  const TempFolder folder;
  const TextGrammar grammar = grammar_of(folder, kSums);
  const std::string ninth = grammar.record(1, 9);
  for (uint64_t i = 0; i < 9; ++i) EXPECT_NE(grammar.record(1, i), ninth);
  EXPECT_EQ(grammar.record(1, 9), ninth);
  EXPECT_NE(grammar.record(2, 9), ninth);
  // A name that is added leaves the others' draws as they are.
  std::string more(kSums);
  more.replace(more.find("[let]\n"), 6, "[let]\naaa = {from = 1, to = 9}\n");
  EXPECT_EQ(grammar_of(folder, more).record(1, 9), ninth);
}

TEST(TextGrammar, WeightsAreKept) {
  const TempFolder folder;
  const TextGrammar grammar =
      grammar_of(folder,
                 "[rule]\nr = [{text = 'a', weight = 3}, 'b', {text = 'c', weight = 0}]\n"
                 "[record]\ntext = '{r}'\n");
  std::map<std::string, int> counts;
  for (uint64_t i = 0; i < 4000; ++i) {
    ++counts[ordered_json::parse(grammar.record(0, i))["text"]];
  }
  // 3000 expected, deviation 27.
  EXPECT_NEAR(counts["a"], 3000, 140);
  EXPECT_EQ(counts["c"], 0);
}

TEST(TextGrammar, NumbersInWords) {
  EXPECT_EQ(number_words(0), "zero");
  EXPECT_EQ(number_words(21), "twenty-one");
  EXPECT_EQ(number_words(110), "one hundred and ten");
  EXPECT_EQ(number_words(2005), "two thousand and five");
  EXPECT_EQ(number_words(1'250'000), "one million two hundred and fifty thousand");
  EXPECT_EQ(number_text(0.1 + 0.2), "0.3");
  EXPECT_EQ(number_text(-4), "-4");
  EXPECT_EQ(apply_filter("commas", "-1234567.5"), "-1,234,567.5");
  EXPECT_EQ(apply_filter("commas", "123"), "123");
  EXPECT_EQ(apply_filter("a", "orange"), "an orange");
  EXPECT_EQ(apply_filter("json", "a \"b\"\n"), "a \\\"b\\\"\\n");
}

TEST(TextGrammar, WhatIsWrongIsNamed) {
  const TempFolder folder;
  const auto problem = [&](const std::string& text) -> std::string {
    try {
      grammar_of(folder, text).record(0, 0);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Kind::BadInput) << text;
      const std::string what = error.what();
      return what.substr(what.find("grammar.toml") + 14);
    }
    return "no error";
  };
  const std::string record = "[record]\ntext = ";
  EXPECT_TRUE(problem("[record\n").starts_with("line 1")) << problem("[record\n");
  EXPECT_EQ(problem("[list]\na = ['x']\n"), "has no [record]");
  EXPECT_EQ(problem(record + "'{colour}'\n[list]\ncolor = ['red']\n"),
            "record.text: nothing is called 'colour'");
  EXPECT_EQ(problem(record + "'{a|uper}'\n[list]\na = ['x']\n"),
            "record.text: {a|uper} has an unknown filter");
  EXPECT_EQ(problem(record + "'{a'\n"), "record.text: a lone { at byte 0");
  EXPECT_EQ(problem(record + "'a}'\n"), "record.text: a lone } at byte 1");
  EXPECT_EQ(problem(record + "'{a b}'\n"), "record.text: {a b} is no slot");
  EXPECT_EQ(problem(record + "'x {@a}'\n[list]\na = [1]\n"),
            "record.text: {@...} stands alone in its text");
  EXPECT_EQ(problem(record + "'x'\n[list]\na = []\n"), "list.a is no list of values");
  EXPECT_EQ(problem(record + "'x'\n[rule]\na = []\n"), "rule.a has no alternative to draw");
  EXPECT_EQ(problem(record + "'x'\n[rule]\na = [{txt = 'b'}]\n"), "rule.a[0] has no text");
  EXPECT_EQ(problem(record + "'x'\n[let]\na = {form = 1, to = 2}\n"),
            "let.a says nothing to draw from");
  EXPECT_EQ(problem(record + "'x'\n[let]\na = {from = 1, to = 2, stepp = 2}\n"),
            "let.a: unknown key 'stepp'");
  EXPECT_EQ(problem(record + "'x'\n[lists]\n"), "unknown key 'lists'");
  EXPECT_EQ(problem("distinct = 'y'\n" + record + "'x'\n"),
            "distinct names 'y', which no record has");
  EXPECT_EQ(problem(record + "'x'\n[list]\nl = ['a']\n[let]\ns = {some = 'l', count = 2}\n"),
            "let.s: wants up to 2 of 'l', which has 1");
  // What only shows when a record is made.
  EXPECT_EQ(problem(record + "'{a}'\n[let]\na = {value = 'b'}\nb = {value = 'a'}\n"),
            "record 0: let.a needs itself");
  EXPECT_EQ(problem(record + "'{r}'\n[rule]\nr = 'x{r}'\n"),
            "record 0: texts nest deeper than 100");
  EXPECT_EQ(problem(record + "'{=1/0}'\n"), "record 0: '1/0' has no value: 1/0");
  EXPECT_EQ(problem(record + "'{r}'\n[rule]\nr = [{text = 'x', when = '1 > 2'}]\n"),
            "record 0: no alternative of rule.r applies");
  EXPECT_EQ(problem(record + "'{p.nam}'\n[list]\np = [{name = 'A'}]\n"),
            "record 0: 'p' has no field 'nam'");
  EXPECT_EQ(problem(record + "'{n}'\n[let]\nn = {from = 5, to = 4}\n"),
            "record 0: let.n: nothing lies between 5 and 4");
}

TEST(TextGrammar, ListsAreMadeOfListsAlsoOfOtherFiles) {
  const TempFolder folder;
  folder.write("things.toml",
               "[list]\n"
               "thing = [{key = 'car', noun = 'old car'}, {key = 'egg', noun = 'egg', n = 3}]\n"
               "verb = [\n"
               "  {key = 'buy', about = 'Buy {o.noun|a}.', ask = ['{o.noun}: {price}', 'x'], "
               "args = {'{o.key}_id' = '{@price}', literal = '{{a}}'}},\n"
               "  {key = 'sell', about = 'Sell.', ask = ['y'], args = {}}]\n"
               "[let]\nprice = {from = 7, to = 7}\n");
  const TextGrammar grammar = grammar_of(
      folder,
      "include = 'things.toml'\n"
      "[list.pair]\nevery = {o = 'thing', v = 'verb'}\n"
      "as = {thing = '{o.key}', verb = '{v.key}', name = '{v.key}_{o.key|upper}', about = "
      "'{v.about}', ask = '{@v.ask}', args = '{@v.args}'}\n"
      "[list.more]\nany = ['pair', 'thing']\n"
      "[let]\nit = 'pair'\n"
      "near = {some = 'pair', count = 1, when = \"item.thing == it.thing and item.verb != "
      "it.verb\"}\n"
      "both = {some = 'pair', count = 2, with = 'it', when = \"item.thing == it.thing\"}\n"
      "all = {some = 'more', count = 6}\n"
      "[record]\nit = '{@it}'\nnear = '{@near.name}'\nboth = '{@both.name}'\nall = '{@all}'\n");
  std::set<std::string> names;
  for (uint64_t i = 0; i < 60; ++i) {
    const auto record = ordered_json::parse(grammar.record(3, i));
    const ordered_json& it = record["it"];
    const std::string name = it["name"];
    names.insert(name);
    if (name == "buy_CAR") {
      EXPECT_EQ(it["about"], "Buy an old car.");
      EXPECT_EQ(it["ask"], ordered_json({"old car: 7", "x"}));
      EXPECT_EQ(it["args"], ordered_json({{"car_id", 7}, {"literal", "{a}"}}));
      EXPECT_EQ(record["near"], ordered_json({"sell_CAR"}));
      EXPECT_EQ(std::set<std::string>({record["both"][0], record["both"][1]}),
                std::set<std::string>({"buy_CAR", "sell_CAR"}));
    }
    EXPECT_EQ(record["all"].size(), 6u);
  }
  EXPECT_EQ(names, std::set<std::string>({"buy_CAR", "sell_CAR", "buy_EGG", "sell_EGG"}));
  ASSERT_EQ(grammar.included().size(), 1u);

  const auto problem = [&](const std::string& text) -> std::string {
    try {
      grammar_of(folder, "include = 'things.toml'\n[record]\ntext = 'x'\n" + text).record(0, 0);
    } catch (const Error& error) {
      const std::string what = error.what();
      return what.substr(what.find("grammar.toml") + 14);
    }
    return "no error";
  };
  EXPECT_EQ(problem("[list.a]\nevery = {o = 'thingy'}\nas = 'x'\n"),
            "list.a: there is no list 'thingy' before it");
  EXPECT_EQ(problem("[list.a]\nevery = {o = 'thing'}\nas = '{o.name}'\n"),
            "list.a: 'o' has no field 'name'");
  EXPECT_EQ(problem("[list.a]\nevery = {o = 'thing'}\nas = 'a {o}'\n"),
            "list.a: a list or a table stands where a text should");
  EXPECT_EQ(problem("[list.a]\nevery = {o = 'thing'}\nas = '{=o.n * 2}'\n"),
            "list.a: {=o.n * 2} computes with 'o'");
  EXPECT_EQ(problem("[list.a]\nany = ['b']\n"), "list.a.any: there is no list 'b' before it");
  EXPECT_EQ(problem("[list.a]\nall = ['b']\n"), "list.a: unknown key 'all'");
  EXPECT_EQ(problem("[list.a]\nas = 'b'\n"), "list.a is made of nothing");
  EXPECT_EQ(problem("[list]\nthing = ['b']\n"),
            "list.thing is defined in a file that this one includes");
  EXPECT_EQ(problem("two = '{s.k|join}'\n[list.z]\nevery = {o = 'thing', v = 'verb'}\nas = {k = "
                    "'{o.key}'}\n[let]\ns = {some = 'z', count = 3, when = \"item.k == 'car'\"}\n"),
            "record 0: wants 3 of 'z', of which 2 fit");
  folder.write("things.toml", "include = 'grammar.toml'\n");
  EXPECT_THROW(grammar_of(folder, "include = 'things.toml'\n[record]\nt = 'x'\n"), Error);
}

TEST(GenerateStage, WritesTheSameRecordsForAnyNumberOfWorkers) {
  const TempFolder folder;
  folder.write("g.toml",
               "distinct = 'text'\n[let]\nn = {from = 1, to = 500}\n"
               "[record]\ntext = 'number {n}'\n");
  const auto shard = [&](int workers, int64_t count) {
    StageSettings settings({});
    const auto stage = make_generate_stage(settings, {folder.path() / "g.toml"}, count, 3);
    StageOptions options;
    options.inputs = {folder.path() / "g.toml"};
    options.out = folder.path() / ("out" + std::to_string(workers) + "-" + std::to_string(count));
    options.workers = workers;
    EXPECT_EQ(run_stage(*stage, options).out, count);
    return read_file(options.out / "shard-00000.jsonl.zst", 1 << 20);
  };
  EXPECT_EQ(shard(1, 400), shard(4, 400));
  // 600 distinct ones of 500 there are not: nothing is left under a final name.
  EXPECT_THROW(shard(2, 600), Error);
  EXPECT_FALSE(fs::exists(folder.path() / "out2-600" / "shard-00000.jsonl.zst"));
}

}  // namespace
}  // namespace quern::test
