// Mixtures of sources, and chains of stages with their reports.
#include "data/mix.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "data/flow/pipeline_file.h"
#include "data/flow/pipeline_report.h"
#include "data/stages/filter.h"
#include "records.h"

namespace quern::test {
namespace {

TEST(Shares, FollowTheWeightsUpToTheLimits) {
  using V = std::vector<double>;
  EXPECT_EQ(shares({1, 3}, {100, 100}, 40), (V{10, 30}));
  // 3 parts of 40 are more than 20: the rest goes to the others, by their weights.
  EXPECT_EQ(shares({1, 1, 2}, {100, 100, 10}, 40), (V{15, 15, 10}));
  EXPECT_EQ(shares({1, 3}, {5, 10}, 40), (V{5, 10}));  // there is no more
  EXPECT_EQ(shares({0, 1}, {5, 50}, 40), (V{0, 40}));
}

class Mixing : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string a, b;
    // 100 documents of 10 bytes, 50 of 20.
    for (int i = 0; i < 100; ++i)
      a += fmt::format("{{\"id\": \"a{}\", \"text\": \"a{:09}\"}}\n", i, i);
    for (int i = 0; i < 50; ++i)
      b += fmt::format("{{\"id\": \"b{}\", \"text\": \"b{:019}\"}}\n", i, i);
    folder_.write("a.jsonl", a);
    folder_.write("b.jsonl", b);
  }

  struct Made {
    MixReport report;
    std::map<std::string, int> times;  // by id
    std::string bytes;
    std::vector<std::string> order;
  };
  Made mix(const std::string& toml, int workers = 1) {
    folder_.write("mix.toml", toml);
    StageOptions options;
    options.out = folder_.path() / ("out" + std::to_string(number_++));
    options.workers = workers;
    Made made;
    made.report = run_mix(MixPlan::load(folder_.path() / "mix.toml"), options, "bytes",
                          [](std::string_view text) { return double(text.size()); });
    for (size_t i = 0; fs::exists(options.out / shard_name(i)); ++i) {
      made.bytes += read_file(options.out / shard_name(i), 1 << 20);
      for (const OrderedJson& record : read_records(options.out / shard_name(i))) {
        const std::string id = at(record, "id").text;
        EXPECT_EQ(at(record, "source").text, id.substr(0, 1));
        ++made.times[id];
        made.order.push_back(id);
      }
    }
    return made;
  }

  TempFolder folder_;
  int number_ = 0;
};

constexpr const char* kTwo =
    "seed = 5\n[[source]]\nname = 'a'\nfiles = ['a.jsonl']\nweight = 1\n{}"
    "[[source]]\nname = 'b'\nfiles = ['b.jsonl']\nweight = 3\n{}";

TEST_F(Mixing, AsMuchAsTheWeightsAllow) {
  // 1000 bytes each: 3 parts of b are all of it, 1 part of a a third.
  const Made made = mix(fmt::format(fmt::runtime(kTwo), "", ""));
  ASSERT_EQ(made.report.sources.size(), 2u);
  EXPECT_EQ(made.report.sources[1].documents, 50);
  EXPECT_NEAR(made.report.sources[0].size, 1000.0 / 3, 10);
  EXPECT_NEAR(made.report.sources[0].epochs, 1.0 / 3, 0.01);
  for (const auto& [id, times] : made.times) EXPECT_EQ(times, 1) << id;
  // Shuffled together: among the first half of the documents are both, in no order.
  EXPECT_FALSE(std::ranges::is_sorted(made.order));
  const auto half = made.order.begin() + std::ptrdiff_t(made.order.size() / 2);
  EXPECT_NEAR(
      double(std::count_if(made.order.begin(), half, [](auto& id) { return id[0] == 'b'; })), 25,
      12);
}

TEST_F(Mixing, EpochsRepeatEveryDocumentAsOftenAsTheOthers) {
  const Made made = mix(fmt::format(fmt::runtime(kTwo), "", "epochs = 2.5\n"));
  // b 2,500 bytes of its 1,000: each document two or three times; a 833.
  for (const auto& [id, times] : made.times) {
    EXPECT_TRUE(id[0] == 'b' ? times == 2 || times == 3 : times == 1) << id << ": " << times;
  }
  EXPECT_NEAR(made.report.sources[1].epochs, 2.5, 0.02);
  EXPECT_NEAR(made.report.sources[0].size, 2500.0 / 3, 10);
}

TEST_F(Mixing, TotalAndCapAreKept) {
  const Made made = mix("total = 400\n" + fmt::format(fmt::runtime(kTwo), "", "cap = 100\n"));
  EXPECT_NEAR(made.report.sources[1].size, 100, 10);
  EXPECT_NEAR(made.report.sources[0].size, 300, 5);
}

TEST_F(Mixing, TheSameBytesForASeedOtherOrderForAnother) {
  const std::string toml = "shard_mb = 0.001\n" + fmt::format(fmt::runtime(kTwo), "", "");
  const Made one = mix(toml), again = mix(toml, 3);
  EXPECT_EQ(one.bytes, again.bytes);
  std::string other = toml;
  other.replace(other.find("seed = 5"), 8, "seed = 6");
  EXPECT_NE(mix(other).order, one.order);
}

TEST_F(Mixing, WhatIsWrongIsNamed) {
  const auto problem = [&](const std::string& toml) -> std::string {
    folder_.write("mix.toml", toml);
    try {
      MixPlan::load(folder_.path() / "mix.toml");
    } catch (const Error& error) {
      const std::string what = error.what();
      return what.substr(what.find("mix.toml") + 10);
    }
    return "";
  };
  EXPECT_NE(problem("seed = 1\n").find("source"), std::string::npos);
  EXPECT_NE(problem("[[source]]\nname = 'a'\nfiles = ['x']\nweigth = 1\n").find("weigth"),
            std::string::npos);
  EXPECT_NE(problem("[[source]]\nname = 'a'\nfiles = ['x']\nweight = -1\n").find("weight"),
            std::string::npos);
  EXPECT_NE(
      problem("[[source]]\nname = 'a'\nfiles = ['x']\n[[source]]\nname = 'a'\nfiles = ['x']\n")
          .find("twice"),
      std::string::npos);
  EXPECT_THROW(mix("[[source]]\nname = 'a'\nfiles = ['missing.jsonl']\n"), Error);
}

TEST(PipelineFile, PutsStagesBehindWhatTheyNeed) {
  const TempFolder folder;
  folder.write(
      "p.toml",
      "[[stage]]\nname = 'b'\nuse = 'dedup'\nin = 'a'\n"
      "[[stage]]\nname = 'a'\nuse = 'filter'\nin = ['raw.jsonl', '{data}/x.jsonl']\n"
      "settings = {rules = 'pii', 'gopher.min_words' = 20, strict = true, file = ['{b}/y', 'z']}\n"
      "[[stage]]\nname = 'c'\nuse = 'mix'\n"
      "[[stage.source]]\nname = 's'\nfiles = ['b']\nweight = 2\n");
  // a needs b by a setting, b needs a: a circle.
  EXPECT_THROW(PipelineFile::load(folder.path() / "p.toml", "/d", "/o"), Error);
  std::string text = read_file(folder.path() / "p.toml");
  text.replace(text.find("['{b}/y'"), 8, "['{here}/y'");
  folder.write("p.toml", text);
  const PipelineFile file = PipelineFile::load(folder.path() / "p.toml", "/d", "/o");
  ASSERT_EQ(file.stages.size(), 3u);
  const PipelineStage& a = file.stages[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.inputs, (std::vector<std::string>{"/d/raw.jsonl", "/d/x.jsonl"}));
  using Settings = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(a.settings, (Settings{{"file", folder.path().string() + "/y"},
                                  {"file", "z"},
                                  {"gopher.min_words", "20"},
                                  {"rules", "pii"},
                                  {"strict", "on"}}));
  EXPECT_EQ(file.stages[1].inputs, std::vector<std::string>{"/o/a"});
  EXPECT_NE(file.stages[2].sources.find("files = [\"/o/b\", ]"), std::string::npos)
      << file.stages[2].sources;
}

TEST(PipelineReport, ShowsCountsThresholdsAndSamplesEscaped) {
  const TempFolder folder;
  folder.write(
      "in.jsonl",
      "{\"id\": \"1\", \"lang\": \"en\", \"text\": \"too <b>short</b>\"}\n"
      "{\"id\": \"2\", \"lang\": \"en\", \"scores\": {\"q\": 0.7}, \"text\": \"" +
          [] {
            std::string words;
            for (int i = 0; i < 60; ++i) words += "the mill of my being ";
            return words;
          }() +
          "\"}\n");
  StageSettings settings({"rules=gopher"});
  const auto stage = make_filter_stage(settings);
  StageOptions options;
  options.inputs = {folder.path() / "in.jsonl"};
  options.out = folder.path() / "clean";
  EXPECT_EQ(run_stage(*stage, options).out, 1);
  const std::vector<StageFolder> stages = {{"clean", options.out}, {"later", folder.path() / "no"}};
  const std::string page = pipeline_report(stages, 0);
  EXPECT_NE(page.find("too &lt;b&gt;short"), page.npos);
  EXPECT_EQ(page.find("<b>short"), page.npos);
  EXPECT_NE(page.find("gopher.min_words: 1 dropped"), page.npos);
  EXPECT_NE(page.find("the threshold is 50"), page.npos);
  EXPECT_NE(page.find("Score: q"), page.npos);
  EXPECT_EQ(page.find("http"), page.npos);  // nothing from elsewhere
  EXPECT_EQ(page, pipeline_report(stages, 0));

  const std::string way = explain_document(stages, "1");
  EXPECT_TRUE(way.starts_with("clean (filter): dropped by gopher.min_words, value ")) << way;
  EXPECT_NE(way.find("gopher.max_words"), way.npos);
  EXPECT_THROW(explain_document(stages, "3"), Error);
}

}  // namespace
}  // namespace quern::test
