#include "data/stages/language.h"

#include <cld2/public/compact_lang_det.h>
#include <cld2/public/encodings.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/python_text.h"
#include "data/classify/linear_model.h"
#include "data/classify/shipped_languages.h"

namespace quern {
namespace {

struct LanguageSettings {
  std::string text, sha256;
  LinearModel model;
  std::vector<std::string> keep;  // empty: all
  double min_score = 0;
  bool cld2 = true;
};

class LanguageWorker final : public StageWorker {
 public:
  explicit LanguageWorker(const LanguageSettings& settings)
      : settings_(settings), scorer_(settings.model) {}

  Verdict process(Record& record, const Place&) override {
    const std::string_view text = record.text();
    if (python::strip(text).empty()) {  // in no language
      record.set("lang", "und");
      record.set_number("lang_score", 0);
      if (settings_.keep.empty() && settings_.min_score == 0) return {};
      return {false, settings_.keep.empty() ? "language.min_score" : "language.keep", 0,
              settings_.min_score};
    }
    const auto p = scorer_.probabilities(text);
    const auto best = static_cast<size_t>(std::ranges::max_element(p) - p.begin());
    const std::string& lang = settings_.model.labels[best];
    if (settings_.cld2) compare(record, text);
    record.set("lang", lang);
    record.set_number("lang_score", p[best]);
    record.set_score("language", p[best]);
    if (p[best] < settings_.min_score) {
      return {false, "language.min_score", p[best], settings_.min_score};
    }
    if (!settings_.keep.empty() &&
        std::ranges::find(settings_.keep, lang) == settings_.keep.end()) {
      return {false, "language.keep", p[best], settings_.min_score};
    }
    return {};
  }

 private:
  // CLD2's languages are the data of Google's Compact Language Detector 2: a second opinion.
  static void compare(Record& record, std::string_view text) {
    CLD2::Language languages[3];
    int percent[3], bytes = 0;
    double normalized[3];
    bool reliable = false;
    const CLD2::CLDHints hints = {nullptr, "", CLD2::UNKNOWN_ENCODING, CLD2::UNKNOWN_LANGUAGE};
    const CLD2::Language found = CLD2::ExtDetectLanguageSummary(
        text.data(), static_cast<int>(std::min<size_t>(text.size(), 1 << 20)),
        /*is_plain_text=*/true, &hints, /*flags=*/0, languages, percent, normalized, nullptr,
        &bytes, &reliable);
    record.set("cld2", CLD2::LanguageCode(found));
    record.set_score("cld2", reliable ? percent[0] / 100.0 : 0);
  }

  const LanguageSettings& settings_;
  LinearScorer scorer_;
};

class LanguageStage final : public Stage {
 public:
  explicit LanguageStage(LanguageSettings settings) : settings_(std::move(settings)) {}

  std::string_view name() const override { return "language"; }
  nlohmann::ordered_json settings() const override {
    return {{"text", settings_.text},
            {"model", settings_.sha256},
            {"keep", settings_.keep},
            {"min_score", settings_.min_score},
            {"cld2", settings_.cld2}};
  }
  std::string text_field() const override { return settings_.text; }
  std::unique_ptr<StageWorker> worker() const override {
    return std::make_unique<LanguageWorker>(settings_);
  }

 private:
  LanguageSettings settings_;
};

}  // namespace

std::unique_ptr<Stage> make_language_stage(StageSettings& settings) {
  LanguageSettings out;
  out.text = settings.text("text", "text");
  const std::string file = settings.text("model", "");
  const std::string bytes =
      file.empty() ? std::string(shipped_language_model()) : read_file(file, uint64_t{1} << 30);
  const std::string source = file.empty() ? "the classifier of the program" : file;
  out.sha256 = sha256(bytes);
  out.model = LinearModel::parse(bytes, source);
  if (out.model.kind != "language") {
    throw_bad_input(
        fmt::format("{}: was trained for {}, not for languages", source, out.model.kind),
        "quern data train-language makes what this stage reads");
  }
  const std::string keep = settings.text("keep", "");
  if (!keep.empty()) {
    for (const std::string_view lang : python::split_at(keep, ",")) out.keep.emplace_back(lang);
    for (const std::string& lang : out.keep) {
      const auto& known = out.model.labels;
      if (std::ranges::find(known, lang) != known.end()) continue;
      throw Error(Kind::Misused,
                  fmt::format("--set keep: {} knows no language '{}'", source, printable(lang, 40)),
                  fmt::format("it knows {}", fmt::join(known, ", ")));
    }
  }
  out.min_score = settings.number("min_score", 0, 0, 1);
  out.cld2 = settings.flag("cld2", true);
  settings.finish();
  return std::make_unique<LanguageStage>(std::move(out));
}

}  // namespace quern
