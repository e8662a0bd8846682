// Filters, personal data and deduplication against annotated data and definitions.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/json.h"
#include "core/rng.h"
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

// The definition, word by word: a word goes where a run of `length` words that holds it has stood
// before, unless it belongs to a run's first place.
std::vector<std::string> without_repeats(const std::vector<std::vector<std::string>>& documents,
                                         size_t length) {
  std::map<std::vector<std::string>, std::vector<std::pair<size_t, size_t>>> runs;
  for (size_t d = 0; d < documents.size(); ++d) {
    for (size_t i = 0; i + length <= documents[d].size(); ++i) {
      const auto begin = documents[d].begin() + static_cast<ptrdiff_t>(i);
      runs[{begin, begin + static_cast<ptrdiff_t>(length)}].emplace_back(d, i);
    }
  }
  std::map<std::pair<size_t, size_t>, bool> repeated, first;
  for (const auto& [run, places] : runs) {
    for (size_t i = 0; i < places.size() && places.size() > 1; ++i) {
      for (size_t k = 0; k < length; ++k) {
        (i == 0 ? first : repeated)[{places[i].first, places[i].second + k}] = true;
      }
    }
  }
  std::vector<std::string> out;
  for (size_t d = 0; d < documents.size(); ++d) {
    std::string text;
    for (size_t i = 0; i < documents[d].size(); ++i) {
      if (repeated.contains({d, i}) && !first.contains({d, i})) continue;
      text += (text.empty() ? "" : " ") + documents[d][i];
    }
    out.push_back(text);
  }
  return out;
}

TEST(Dedup, RepeatedPassagesAreCutWhereverTheyBegin) {
  const test::TempFolder folder;
  // Few words, so that runs repeat in every way: across documents, within one, overlapping.
  Rng rng(11);
  std::vector<std::vector<std::string>> documents(300);
  std::string files[2];
  for (size_t d = 0; d < documents.size(); ++d) {
    const size_t count = rng.below(60);
    for (size_t i = 0; i < count; ++i) {
      documents[d].push_back("w" + std::to_string(rng.below(rng.below(8) == 0 ? 4 : 2)));
    }
    std::string text;
    for (const std::string& word : documents[d]) text += (text.empty() ? "" : " ") + word;
    files[d / 170] += "{\"id\": " + std::to_string(d) + ", \"text\": \"" + text + "\"}\n";
    if (d % 50 == 7) files[d / 170] += "\n";  // a blank line has no number of its own
  }
  StageOptions stage;
  stage.inputs = {folder.write("a.jsonl", files[0]), folder.write("b.jsonl", files[1])};
  for (const size_t words : {size_t{6}, size_t{12}}) {
    const std::vector<std::string> wanted = without_repeats(documents, words);
    for (const int workers : {1, 3}) {
      stage.out = folder.path() / ("out" + std::to_string(words) + std::to_string(workers));
      stage.workers = workers;
      const DedupOptions options = {.method = DedupOptions::Method::Substring,
                                    .passage = static_cast<int64_t>(words)};
      run_dedup(options, stage, [](std::string_view) {});
      std::map<size_t, std::string> got;
      for (const char* shard : {"shard-00000.jsonl.zst", "shard-00001.jsonl.zst"}) {
        for (const auto& record : test::read_records(stage.out / shard)) {
          std::string text = at(record, "text").text;
          while (text.ends_with(' ')) text.pop_back();
          got[std::stoul(at(record, "id").text)] = text;
        }
      }
      size_t cut = 0;
      for (size_t d = 0; d < documents.size(); ++d) {
        if (wanted[d].empty() && !documents[d].empty()) {
          EXPECT_FALSE(got.contains(d)) << d;
          ++cut;
        } else {
          EXPECT_EQ(got[d], wanted[d]) << d;
        }
      }
      EXPECT_GT(cut, 2u);
      EXPECT_FALSE(fs::exists(stage.out / ".dedup"));
    }
  }
  // Punctuation behind a cut word goes with it, and --within keeps languages apart.
  const std::string passage = "one two three four five six.";
  stage.inputs = {
      folder.write("c.jsonl", "{\"lang\": \"en\", \"text\": \"A. " + passage + " B.\"}\n" +
                                  "{\"lang\": \"en\", \"text\": \"C! " + passage + " D?\"}\n" +
                                  "{\"lang\": \"de\", \"text\": \"E: " + passage + "\"}\n")};
  stage.out = folder.path() / "within";
  run_dedup({.method = DedupOptions::Method::Substring, .within = "lang", .passage = 6}, stage,
            [](std::string_view) {});
  const auto records = test::read_records(stage.out / "shard-00000.jsonl.zst");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(at(records[0], "text").text, "A. " + passage + " B.");
  EXPECT_EQ(at(records[1], "text").text, "C! D?");
  EXPECT_EQ(at(records[1], "cut_words").text, "6");
  EXPECT_EQ(at(records[2], "text").text, "E: " + passage);
}

}  // namespace
}  // namespace quern
