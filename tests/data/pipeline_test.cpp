// The frame of the data pipeline: records, shards, manifests, resumption.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <thread>

#include "core/json.h"
#include "core/launcher.h"
#include "data/pipeline/stage.h"
#include "records.h"
#include "support/support.h"

namespace quern {
namespace {

// Drops every record whose number n is odd; adds a field to the others.
class OddStage final : public Stage {
 public:
  std::string_view name() const override { return "odd"; }
  nlohmann::ordered_json settings() const override { return {{"threshold", threshold}}; }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      Verdict process(Record& record, const Place&) override {
        const double n = record.number("n").value();
        if (static_cast<int64_t>(n) % 2 == 1) return {false, "odd.number", n, 0};
        record.set_score("half", n / 2);
        return {};
      }
    };
    return std::make_unique<Worker>();
  }
  int threshold = 1;
};

std::string lines_of(int begin, int end) {
  std::string out;
  for (int n = begin; n < end; ++n) {
    out += "{\"id\": " + std::to_string(n) + ", \"text\": \"" + std::string(200, 'x') +
           "\", \"n\": " + std::to_string(n) + ", \"kept\": {\"z\": [1, 2.50], \"a\": null}}\n";
  }
  return out;
}

std::vector<std::string> shard_lines(const fs::path& file) {
  LineReader lines(ByteSource::open(file), file.string(), 1 << 20);
  std::vector<std::string> out;
  for (std::string line; lines.next(line);) out.push_back(line);
  return out;
}

class Pipeline : public testing::Test {
 protected:
  void SetUp() override {
    options_.inputs = {folder_.write("a.jsonl", lines_of(0, 20'000)),
                       folder_.write("b.jsonl", lines_of(20'000, 20'101))};
    options_.out = folder_.path() / "out";
    options_.workers = 2;
  }
  // All that a run wrote, by name.
  static std::map<std::string, std::string> contents(const fs::path& folder) {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file() && entry.path().filename() != ".lock") {
        out[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
      }
    }
    return out;
  }
  test::TempFolder folder_;
  StageOptions options_;
};

TEST_F(Pipeline, KeepsDropsCountsAndSaysSo) {
  const StageReport report = run_stage(OddStage(), options_);
  EXPECT_EQ(report.in, 20'101);
  EXPECT_EQ(report.out, 10'051);
  EXPECT_EQ(report.dropped.at("odd.number"), 10'050);

  const auto kept = shard_lines(options_.out / "shard-00001.jsonl.zst");
  ASSERT_EQ(kept.size(), 51u);
  EXPECT_EQ(kept[0], "{\"id\": 20000, \"text\": \"" + std::string(200, 'x') +
                         "\", \"n\": 20000, \"kept\": {\"z\": [1, 2.50], \"a\": null}, "
                         "\"scores\": {\"half\": 10000}}");
  const auto dropped = shard_lines(options_.out / "dropped/odd.number/shard-00001.jsonl.zst");
  ASSERT_EQ(dropped.size(), 50u);
  EXPECT_TRUE(
      dropped[0].ends_with("\"dropped_by\": {\"stage\": \"odd\", \"rule\": "
                           "\"odd.number\", \"value\": 20001, \"threshold\": 0}}"));
  const Json manifest = Json::parse_file((options_.out / "manifest.json").string());
  EXPECT_EQ(manifest.at("stage").string(), "odd");
  EXPECT_EQ(manifest.at("inputs")[1].at("documents").integer(), 101);
  EXPECT_EQ(manifest.at("shards")[0].at("documents").integer(), 10'000);
  EXPECT_EQ(manifest.at("shards")[0].at("sha256").string(),
            sha256_file(options_.out / "shard-00000.jsonl.zst"));
  EXPECT_EQ(manifest.at("shards")[1].at("text_bytes").integer(), 51 * 200);
  EXPECT_EQ(manifest.at("counts").at("dropped").at("odd.number").integer(), 10'050);
}

TEST_F(Pipeline, BytesAreTheSameForAnyNumberOfWorkersAndAfterAKill) {
  run_stage(OddStage(), options_);
  const auto want = contents(options_.out);
  for (const int workers : {1, 5}) {
    options_.workers = workers;
    options_.out = folder_.path() / ("workers" + std::to_string(workers));
    run_stage(OddStage(), options_);
    EXPECT_EQ(contents(options_.out), want);
  }
  // Cancelled while the second file is read: the first shard is whole and is not made again.
  options_.out = folder_.path() / "killed";
  std::atomic<bool> cancel{false};
  options_.cancel = &cancel;
  options_.on_progress = [&](uint64_t) {
    if (fs::exists(options_.out / "shard-00000.jsonl.zst")) cancel = true;
  };
  test::expect_error([&] { run_stage(OddStage(), options_); }, Kind::Partial, {"goes on"});
  EXPECT_FALSE(fs::exists(options_.out / "manifest.json"));
  const auto before = fs::last_write_time(options_.out / "shard-00000.jsonl.zst");
  options_.cancel = nullptr;
  options_.on_progress = nullptr;
  run_stage(OddStage(), options_);
  EXPECT_EQ(contents(options_.out), want);
  EXPECT_EQ(fs::last_write_time(options_.out / "shard-00000.jsonl.zst"), before);
  EXPECT_TRUE(run_stage(OddStage(), options_).already_done);
}

// Processes that share a folder: flock() keeps threads with descriptors of their own apart as well.
TEST_F(Pipeline, SeveralProcessesShareTheInputsAndWriteTheSameBytes) {
  for (int i = 0; i < 12; ++i) {
    options_.inputs.push_back(
        folder_.write("more" + std::to_string(i) + ".jsonl", lines_of(i * 700, (i + 1) * 700)));
  }
  options_.workers = 1;
  run_stage(OddStage(), options_);
  const auto alone = contents(options_.out);
  for (const int count : {1, 2, 4}) {
    StageOptions shared = options_;
    shared.shared = true;
    shared.out = folder_.path() / ("shared" + std::to_string(count));
    std::vector<StageReport> reports(static_cast<size_t>(count));
    std::vector<std::thread> ranks;
    for (StageReport& report : reports) {
      ranks.emplace_back([&] { report = run_stage(OddStage(), shared); });
    }
    for (std::thread& rank : ranks) rank.join();
    EXPECT_EQ(contents(shared.out), alone) << count;
    // One writes the manifest; who comes late finds it.
    int whole = 0;
    for (const StageReport& report : reports) {
      whole += !report.left_to_others && !report.already_done;
      if (!report.left_to_others) {
        EXPECT_EQ(report.in, 20'101 + 12 * 700);
      }
    }
    EXPECT_EQ(whole, 1);
    for (const auto& entry : fs::directory_iterator(shared.out)) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".shard-")) << entry.path();
    }
  }
  // What a killed process left is taken up by the others, and its half shard goes.
  StageOptions shared = options_;
  shared.shared = true;
  shared.out = folder_.path() / "left";
  std::atomic<bool> cancel = false;
  shared.cancel = &cancel;
  shared.on_progress = [&](uint64_t) { cancel = true; };
  EXPECT_THROW(run_stage(OddStage(), shared), Error);
  std::ofstream(shared.out / "shard-00003.jsonl.zst.tmp-1") << "half";
  cancel = false;
  shared.on_progress = {};
  EXPECT_FALSE(run_stage(OddStage(), shared).left_to_others);
  EXPECT_EQ(contents(shared.out), alone);
}

TEST(Launchers, AreReadFromTheEnvironment) {
  const auto of = [](const std::vector<std::pair<const char*, const char*>>& names) {
    for (const auto& [name, value] : names) ::setenv(name, value, 1);
    const Launcher found = launcher();
    for (const auto& [name, value] : names) ::unsetenv(name);
    return std::tuple(found.rank, found.size, std::string(found.name));
  };
  EXPECT_EQ(of({}), std::tuple(0, 1, ""));
  EXPECT_EQ(of({{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"}}),
            std::tuple(2, 4, "Open MPI"));
  EXPECT_EQ(of({{"PMI_RANK", "0"}, {"PMI_SIZE", "3"}}), std::tuple(0, 3, "MPI"));
  EXPECT_EQ(of({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}}), std::tuple(1, 2, "Slurm"));
  EXPECT_EQ(of({{"SLURM_ARRAY_TASK_ID", "7"},
                {"SLURM_ARRAY_TASK_MIN", "5"},
                {"SLURM_ARRAY_TASK_COUNT", "4"}}),
            std::tuple(2, 4, "a Slurm array"));
  EXPECT_EQ(of({{"PMI_RANK", "x"}, {"PMI_SIZE", "3"}}), std::tuple(0, 1, ""));
  EXPECT_EQ(of({{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "2"}}), std::tuple(0, 1, ""));
}

TEST_F(Pipeline, RefusesAnotherRunsFolder) {
  run_stage(OddStage(), options_);
  OddStage other;
  other.threshold = 2;
  test::expect_error([&] { run_stage(other, options_); }, Kind::Misused, {"out", "settings"});
  folder_.write("b.jsonl", lines_of(0, 3));
  test::expect_error([&] { run_stage(OddStage(), options_); }, Kind::Misused,
                     {"b.jsonl", "has changed"});
  options_.out = folder_.path() / "foreign";
  folder_.write("foreign/notes.txt", "mine");
  test::expect_error([&] { run_stage(OddStage(), options_); }, Kind::Misused, {"not empty"});
}

TEST_F(Pipeline, BadRecordsAreCountedAndNamed) {
  const std::string bad =
      "{\"text\": \"good\", \"n\": 2}\n\nnot json\n[1]\n{\"n\": 2}\n{\"text\": 5}\n"
      "{\"text\": \"a\", \"text\": \"b\"}\n{\"text\": \"\xff\"}\n{\"text\": \"cut\n" +
      std::string(100, '[') + "\n{\"text\": \"last\", \"n\": 4}";
  options_.inputs = {folder_.write("bad.jsonl", bad)};
  options_.out = folder_.path() / "bad";
  const StageReport report = run_stage(OddStage(), options_);
  EXPECT_EQ(report.in, 10);
  EXPECT_EQ(report.out, 2);
  EXPECT_EQ(report.bad, 8);
  EXPECT_NE(report.first_bad.find("line 3"), std::string::npos) << report.first_bad;
  EXPECT_EQ(shard_lines(options_.out / "bad/shard-00000.jsonl.zst").size(), 8u);
  options_.strict = true;
  options_.out = folder_.path() / "strict";
  test::expect_error([&] { run_stage(OddStage(), options_); }, Kind::BadInput,
                     {"bad.jsonl", "line 3"});
}

TEST(Record, EditsKeepWhatTheyDoNotTouch) {
  RecordParser parser;
  const std::string line =
      R"( {"text" : "a\u0041\n", "big": 1234567890123456789, "x": {"a": "}"} } )";
  Record record(parser, line);
  EXPECT_EQ(record.text(), "aA\n");
  EXPECT_EQ(record.json(), line);
  record.set_text("new \"text\"");
  record.set("lang", "en");
  record.remove("x");
  EXPECT_EQ(record.json(), R"({"text": "new \"text\"", "big": 1234567890123456789, "lang": "en"})");
  EXPECT_EQ(record.string("lang"), "en");
  EXPECT_EQ(record.string("big"), std::nullopt);
  test::expect_error([&] { Record(parser, R"({"text": "", "n": 12345678901234567890123})"); },
                     Kind::BadInput, {"64 bits"});
  Record scored(parser, R"({"text": ""})");
  scored.set_score("a", 0.5);
  scored.set_score("b", 2);
  scored.set_score("a", 1);
  EXPECT_EQ(scored.raw("scores"), R"({"b": 2, "a": 1})");
}

TEST(Inputs, OfAFolderRecordFilesAreTaken) {
  const test::TempFolder folder;
  for (const char* name : {"b.JSONL.gz", "a.ndjson", "manifest.json", "readme.md", ".c.jsonl"}) {
    folder.write(name, "");
  }
  const auto inputs = expand_inputs({folder.path().string()});
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].filename(), "a.ndjson");
  EXPECT_EQ(inputs[1].filename(), "b.JSONL.gz");
}

TEST(StageSettings, UnknownAndBadValuesAreNamed) {
  StageSettings settings({"rows=4", "rwos=3"});
  EXPECT_EQ(settings.integer("rows", 8, 1, 10), 4);
  test::expect_error([&] { settings.finish(); }, Kind::Misused, {"rwos", "rows"});
  StageSettings bad({"rows=4x", "on=maybe"});
  test::expect_error([&] { bad.integer("rows", 8, 1, 10); }, Kind::Misused, {"whole number"});
  test::expect_error([&] { bad.flag("on", true); }, Kind::Misused, {"on nor off"});
  test::expect_error([] { StageSettings({"rows"}); }, Kind::Misused, {"key=value"});
}

}  // namespace
}  // namespace quern
