#include "data/stages/generate.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/file.h"
#include "data/synthetic/text_grammar.h"

namespace quern {
namespace {

constexpr uint64_t kAttempts = 200;  // at a record that must differ from those before

class GrammarSource final : public RecordSource {
 public:
  GrammarSource(const fs::path& path, int64_t count, uint64_t seed)
      : path_(path), grammar_(TextGrammar::load(path)), count_(count), seed_(seed) {}

  bool next(std::string& line) override {
    if (made_ >= count_) return false;
    for (uint64_t attempt = 0; attempt < kAttempts; ++attempt) {
      line = grammar_.record(seed_, static_cast<uint64_t>(made_), attempt);
      if (is_new(line)) {
        ++made_;
        return true;
      }
    }
    throw_bad_input(fmt::format("{}: {} tries gave no record whose {} is not there among {}",
                                path_.string(), kAttempts, grammar_.distinct(), made_),
                    "ask for fewer with --count, or give the grammar more to draw from");
  }

  uint64_t consumed_bytes() const override {
    return static_cast<uint64_t>(made_) * fs::file_size(path_) /
           static_cast<uint64_t>(std::max<int64_t>(count_, 1));
  }

 private:
  bool is_new(const std::string& line) {
    if (grammar_.distinct().empty()) return true;
    const auto record = nlohmann::ordered_json::parse(line);
    return seen_.insert(record.at(grammar_.distinct()).dump()).second;
  }

  fs::path path_;
  TextGrammar grammar_;
  int64_t count_, made_ = 0;
  uint64_t seed_;
  std::unordered_set<std::string> seen_;
};

class KeepAll final : public StageWorker {
 public:
  Verdict process(Record&, const Place&) override { return {}; }
};

class GenerateStage final : public Stage {
 public:
  GenerateStage(const std::vector<fs::path>& grammars, int64_t count, uint64_t seed)
      : count_(count), seed_(seed) {
    for (const fs::path& path : grammars) {
      const TextGrammar grammar = TextGrammar::load(path);
      for (const fs::path& file : grammar.included()) {
        included_[file.lexically_relative(path.parent_path()).string()] = sha256_file(file);
      }
    }
  }
  std::string_view name() const override { return "generate"; }
  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json out = {{"count", count_}, {"seed", seed_}};
    if (!included_.empty()) out["included"] = included_;
    return out;
  }
  std::string text_field() const override { return ""; }
  std::unique_ptr<StageWorker> worker() const override { return std::make_unique<KeepAll>(); }
  std::unique_ptr<RecordSource> open(const fs::path& path) const override {
    return std::make_unique<GrammarSource>(path, count_, seed_);
  }

 private:
  int64_t count_;
  uint64_t seed_;
  std::map<std::string, std::string> included_;  // SHA-256 of files that grammars include
};

}  // namespace

std::unique_ptr<Stage> make_generate_stage(StageSettings& settings,
                                           const std::vector<fs::path>& grammars, int64_t count,
                                           uint64_t seed) {
  settings.finish();
  return std::make_unique<GenerateStage>(grammars, count, seed);
}

}  // namespace quern
