// Filters, personal data and deduplication against annotated data and definitions.
#include <gtest/gtest.h>

#include <set>

#include "core/json.h"
#include "data/stages/dedup.h"
#include "data/stages/filter.h"
#include "data/stages/pii.h"
#include "data/stages/text_rules.h"
#include "data/stages/words.h"
#include "records.h"

namespace quern {
namespace {

using test::at;

std::string text_of(const OrderedJson& record, const std::vector<OrderedJson>& c4) {
  if (const OrderedJson* text = record.find("text")) return text->text;
  return at(c4[std::stoul(at(record, "id").text.substr(3))], "text").text;
}

// datatrove's verdict in at least 97 % of the documents, set by set, with our own words.
TEST(TextRules, AgreeWithDatatrove) {
  const fs::path folder = test::shared("data/filter");
  QUERN_NEED(folder);
  const auto c4 = test::read_records(folder / "c4_sample.jsonl");
  const auto records = test::read_records(folder / "rules.jsonl.gz");
  RuleJudge judge;
  for (const std::string_view set : text_rule_sets()) {
    size_t different = 0;
    for (const OrderedJson& record : records) {
      const OrderedJson& want = at(at(record, "verdicts"), set);
      const Verdict got = judge.judge(set, text_of(record, c4), /*chinese=*/false).verdict;
      const OrderedJson* rule = want.find("rule");
      const bool same = got.keep == at(want, "keep").boolean &&
                        (got.keep || rule == nullptr || got.rule == rule->text);
      different += !same;
    }
    EXPECT_LE(different, records.size() * 5 / 1000) << set;
  }
}

// With datatrove's own words the values are its values.
TEST(TextRules, ValuesOverTheSameWordsAreTheSame) {
  const fs::path folder = test::shared("data/filter");
  QUERN_NEED(folder);
  std::map<std::string, std::vector<std::string>> words;
  for (const OrderedJson& record : test::read_records(folder / "rules_words.jsonl.gz")) {
    for (const OrderedJson& word : at(record, "words").items) {
      words[at(record, "id").text].push_back(word.text);
    }
  }
  const auto c4 = test::read_records(folder / "c4_sample.jsonl");
  RuleJudge judge;
  size_t checked = 0;
  for (const OrderedJson& record : test::read_records(folder / "rules.jsonl.gz")) {
    const auto given = words.find(at(record, "id").text);
    if (given == words.end()) continue;
    const std::vector<std::string_view> views(given->second.begin(), given->second.end());
    const std::string text = text_of(record, c4);
    for (const std::string_view set : {"gopher", "gopher_repetition", "fineweb"}) {
      judge.judge(set, text, views, false, /*all=*/true, [&](std::string_view rule, double value) {
        const OrderedJson* want = at(record, "values").find(rule);
        if (want == nullptr) return;
        const double expected =
            want->is(OrderedJson::Kind::Float) ? want->number : std::stod(want->text);
        EXPECT_NEAR(value, expected, 1e-6) << given->first << ": " << rule;
        ++checked;
      });
    }
  }
  EXPECT_GT(checked, 4000u);
}

TEST(TextRules, ChineseHasItsOwnColumn) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "他在公园里看见了一只很大的鸟，他觉得这是一个好日子。\n";
  RuleJudge judge;
  EXPECT_TRUE(judge.judge("gopher", text, /*chinese=*/true).verdict.keep);
  EXPECT_FALSE(judge.judge("gopher", text, /*chinese=*/false).verdict.keep);
  EXPECT_TRUE(judge.judge("c4", text, true).verdict.keep);
  EXPECT_EQ(judge.judge("c4", text, false).verdict.rule, "c4.min_sentences");
}

TEST(TextRules, EmptyTextsFailAndHostileOnesTakeLinearTime) {
  RuleJudge judge;
  EXPECT_EQ(judge.judge("gopher", "", false).verdict.rule, "gopher.min_words");
  EXPECT_EQ(judge.judge("gopher_repetition", "", false).verdict.rule,
            "gopher_repetition.not_empty");
  EXPECT_EQ(judge.judge("c4", "", false).verdict.rule, "c4.min_sentences");
  EXPECT_EQ(judge.judge("fineweb", "\n \n", false).verdict.rule, "fineweb.not_empty");
  std::string breaks;
  for (int i = 0; i < 100'000; ++i) breaks += "[1\n";
  for (const std::string& text : {std::string(400'000, '.'), std::string(400'000, 'a'), breaks}) {
    EXPECT_FALSE(judge.judge("gopher", text, false).verdict.keep);
    EXPECT_FALSE(judge.judge("c4", text, false).verdict.keep);
  }
  test::expect_error(
      [] {
        RuleJudge({{"gopher.min_word", 3}});
      },
      Kind::Misused, {"gopher.min_words"});
}

TEST(Pii, PlantedSpansAreFoundAndLookAlikesStay) {
  const fs::path file = test::shared("data/filter/pii.jsonl");
  QUERN_NEED(file);
  size_t found = 0, wanted = 0, wrong = 0;
  for (const OrderedJson& record : test::read_records(file)) {
    const std::string& text = at(record, "text").text;
    std::set<std::tuple<int64_t, int64_t, std::string>> spans;
    for (const OrderedJson& span : at(record, "spans").items) {
      spans.emplace(std::stoll(at(span, "start").text), std::stoll(at(span, "end").text),
                    at(span, "kind").text);
    }
    wanted += spans.size();
    for (const PiiSpan& span : find_pii(text)) {
      const int64_t begin = count_characters(std::string_view(text).substr(0, span.begin));
      const int64_t end = count_characters(std::string_view(text).substr(0, span.end));
      if (spans.contains({begin, end, std::string(span.kind)})) {
        ++found;
      } else {
        ++wrong;
      }
    }
  }
  EXPECT_GE(found, wanted * 95 / 100);
  EXPECT_LE(wrong, wanted / 100);
}

TEST(Pii, WhatIsMaskedAndWhatIsKept) {
  const auto masked = [](std::string_view text) {
    std::string out;
    size_t done = 0;
    for (const PiiSpan& span : find_pii(text)) {
      out.append(text.substr(done, span.begin - done)).append(span.mask);
      done = span.end;
    }
    return out.append(text.substr(done));
  };
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"Write to a.b+c@example.co.uk.", "Write to <EMAIL>."},
      {"mailto:x@y.org; user@ @handle a @ b", "mailto:<EMAIL>; user@ @handle a @ b"},
      {"10.1.2.3:80, 127.0.0.1, 256.1.1.1, 1.2.3.4.5", "<IP>:80, 127.0.0.1, 256.1.1.1, 1.2.3.4.5"},
      {"[2001:db8::1]:80 ::1 std::vector abc::def 12:30:45",
       "[<IP>]:80 ::1 std::vector abc::def 12:30:45"},
      {"电话13800138000，订单138001380001", "电话<PHONE>，订单138001380001"},
      {"+86 138 0013 8000 or (305) 555-0134", "<PHONE> or <PHONE>"},
      {"+44 (0)20 7946 0871; 978-0-96-558290-2", "<PHONE>; 978-0-96-558290-2"},
      {"4111 1111 1111 1111 and 4111 1111 1111 1112", "<CARD> and 4111 1111 1111 1112"},
      {"11010519491231002X 110105194912310021 11010519491331002X",
       "<ID> 110105194912310021 11010519491331002X"},
      {"6a6177c5-9eb4-5e01-4955-260ebd0b97f5 2006-05-16 14:17:29",
       "6a6177c5-9eb4-5e01-4955-260ebd0b97f5 2006-05-16 14:17:29"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(masked(text), want);
}

// Whether two records ended in one cluster, from the file that --clusters writes.
class Clusters {
 public:
  explicit Clusters(const fs::path& file) {
    for (const OrderedJson& line : test::read_records(file)) {
      const std::string keep = python_dumps(at(line, "keep"));
      root_[keep] = keep;
      for (const OrderedJson& id : at(line, "drop").items) root_[python_dumps(id)] = keep;
    }
  }
  bool together(const std::string& a, const std::string& b) const {
    const auto x = root_.find(a), y = root_.find(b);
    return x != root_.end() && y != root_.end() && x->second == y->second;
  }
  const std::map<std::string, std::string>& roots() const { return root_; }

 private:
  std::map<std::string, std::string> root_;
};

TEST(Dedup, FindsChangedCopiesAndNothingElse) {
  const fs::path file = test::shared("data/filter/near_duplicates.jsonl.gz");
  QUERN_NEED(file);
  const test::TempFolder folder;
  DedupOptions options;
  options.clusters = (folder.path() / "clusters.jsonl").string();
  StageOptions stage;
  stage.inputs = {file};
  stage.out = folder.path() / "out";
  run_dedup(options, stage, [](std::string_view) {});
  const Clusters clusters(options.clusters);

  std::map<std::string, std::string> original, cluster_of;
  const auto records = test::read_records(file);
  for (const OrderedJson& record : records) {
    const std::string id = python_dumps(at(record, "id")),
                      group = python_dumps(at(record, "cluster"));
    cluster_of[id] = group;
    if (at(record, "kind").text == "original") original[group] = id;
  }
  std::map<std::string, std::pair<int, int>> found;  // by kind
  for (const OrderedJson& record : records) {
    const std::string id = python_dumps(at(record, "id"));
    auto& [hits, all] = found[at(record, "kind").text];
    ++all;
    hits += clusters.together(id, original.at(cluster_of.at(id)));
  }
  for (const char* kind : {"exact", "whitespace", "boilerplate", "header_footer", "truncate_90"}) {
    EXPECT_GE(found[kind].first, found[kind].second * 99 / 100) << kind;
  }
  for (const auto& [id, keeper] : clusters.roots()) {
    EXPECT_EQ(cluster_of.at(id), cluster_of.at(keeper)) << id << " was dropped for " << keeper;
  }
}

// Pairs of a known similarity are found as often as the theory says.
TEST(Dedup, TheFoundCurveIsThatOfTheBands) {
  const fs::path file = test::shared("data/filter/dedup_planted.jsonl.gz");
  QUERN_NEED(file);
  const test::TempFolder folder;
  DedupOptions options;
  options.verify.reset();
  options.clusters = (folder.path() / "clusters.jsonl").string();
  StageOptions stage;
  stage.inputs = {file};
  stage.out = folder.path() / "out";
  stage.workers = 2;
  run_dedup(options, stage, [](std::string_view) {});
  const Clusters clusters(options.clusters);
  std::map<std::string, std::vector<const OrderedJson*>> pairs;
  const auto records = test::read_records(file);
  for (const OrderedJson& record : records) {
    if (!at(record, "pair").is_null()) pairs[python_dumps(at(record, "pair"))].push_back(&record);
  }
  double found = 0, expected = 0, count = 0;
  for (const auto& [pair, members] : pairs) {
    if (members.size() != 2) continue;
    expected += minhash_probability(at(*members[0], "jaccard").number, options.minhash);
    found +=
        clusters.together(python_dumps(at(*members[0], "id")), python_dumps(at(*members[1], "id")));
    ++count;
  }
  EXPECT_GT(count, 9000);
  EXPECT_NEAR(found / count, expected / count, 0.02);
}

TEST(Dedup, TheBestThenTheLongestThenTheFirstIdStays) {
  const test::TempFolder folder;
  std::string body;
  for (int i = 0; i < 60; ++i) body += "word" + std::to_string(i) + " ";
  const auto line = [&](const std::string& id, const std::string& end, double score) {
    return "{\"id\": \"" + id + "\", \"text\": \"" + body + end +
           "\", \"scores\": {\"q\": " + std::to_string(score) + "}}\n";
  };
  const fs::path input = folder.write(
      "in.jsonl", line("c", "", 1) + line("b", "", 1) + line("long", "more words", 1) +
                      line("best", "", 2) + "{\"id\": \"other\", \"text\": \"alone\"}\n");
  const auto kept = [&](DedupOptions options, const std::string& name) {
    StageOptions stage;
    stage.inputs = {input};
    stage.out = folder.path() / name;
    run_dedup(options, stage, [](std::string_view) {});
    std::string ids;
    for (const OrderedJson& record : test::read_records(stage.out / "shard-00000.jsonl.zst")) {
      ids += at(record, "id").text + " ";
    }
    return ids;
  };
  EXPECT_EQ(kept({}, "length"), "long other ");
  EXPECT_EQ(kept({.score = "q"}, "score"), "best other ");
  EXPECT_EQ(kept({.method = DedupOptions::Method::Exact}, "exact"), "b long other ");
  EXPECT_EQ(kept({.within = "id"}, "within"), "c b long best other ");
}

TEST(Filter, ThresholdsOfSetsThatDoNotRunAreRefused) {
  const auto make = [](const std::vector<std::string>& words) {
    StageSettings settings(words);
    return make_filter_stage(settings)->settings();
  };
  EXPECT_EQ(make({"rules=c4", "c4.min_sentences=3"})["c4.min_sentences"].get<double>(), 3);
  test::expect_error(
      [&] {
        make({"rules=gopher", "c4.min_sentences=3"});
      },
      Kind::Misused, {"c4.min_sentences", "--set rules"});
  test::expect_error(
      [&] {
        make({"rules=gopher", "gopher.min_words=inf"});
      },
      Kind::Misused, {"gopher.min_words", "number"});
}

TEST(Dedup, ParagraphsTakeNoClusters) {
  const test::TempFolder folder;
  StageOptions stage;
  stage.inputs = {folder.write("in.jsonl", "{\"id\": 1, \"text\": \"a\"}\n")};
  stage.out = folder.path() / "out";
  using Method = DedupOptions::Method;
  const auto run = [&](const DedupOptions& options) {
    run_dedup(options, stage, [](std::string_view) {});
  };
  test::expect_error([&] { run({.method = Method::Paragraph, .clusters = "c.jsonl"}); },
                     Kind::Misused, {"paragraph", "clusters"});
  test::expect_error([&] { run({.method = Method::Paragraph, .score = "quality"}); }, Kind::Misused,
                     {"paragraph", "score"});
  EXPECT_FALSE(fs::exists(stage.out));
}

TEST(Dedup, RepeatedParagraphsAreCut) {
  const test::TempFolder folder;
  const std::string one = "The first paragraph is long enough to count here.",
                    two = "Another paragraph that is just as long as that one.";
  const fs::path input =
      folder.write("in.jsonl", "{\"id\": 1, \"text\": \"" + one + "\\n\\n" + two + "\"}\n" +
                                   "{\"id\": 2, \"text\": \"" + two + "\\nshort\\n" + one +
                                   "\"}\n" + "{\"id\": 3, \"text\": \"" + one + "\"}\n");
  StageOptions stage;
  stage.inputs = {input};
  stage.out = folder.path() / "out";
  const StageReport report =
      run_dedup({.method = DedupOptions::Method::Paragraph}, stage, [](std::string_view) {});
  EXPECT_EQ(report.out, 2);
  EXPECT_EQ(report.dropped.at("dedup.paragraph"), 1);
  const auto records = test::read_records(stage.out / "shard-00000.jsonl.zst");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(at(records[1], "text").text, "short");
}

}  // namespace
}  // namespace quern
