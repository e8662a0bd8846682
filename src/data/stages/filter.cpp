#include "data/stages/filter.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "data/stages/pii.h"
#include "data/stages/text_rules.h"
#include "data/stages/words.h"

namespace quern {
namespace {

struct FilterSettings {
  std::vector<std::string> sets;
  Thresholds thresholds;
  std::string text, chinese;
};

class FilterWorker final : public StageWorker {
 public:
  explicit FilterWorker(const FilterSettings& settings)
      : settings_(settings), judge_(settings.thresholds) {}

  Verdict process(Record& record, const Place&) override {
    const bool chinese = settings_.chinese == "on" || (settings_.chinese == "auto" &&
                                                       record.string("lang").value_or("") == "zh");
    for (const std::string& set : settings_.sets) {
      if (set == "pii") {
        mask(record);
        continue;
      }
      RuleOutcome outcome = judge_.judge(set, record.text(), chinese);
      if (!outcome.verdict.keep) return outcome.verdict;
      if (outcome.text && *outcome.text != record.text()) record.set_text(std::move(*outcome.text));
    }
    return {};
  }

 private:
  // Masks personal data; `spans` says where it stood, in code points of the text as it was.
  static void mask(Record& record) {
    const std::string_view text = record.text();
    const auto spans = find_pii(text);
    if (spans.empty()) return;
    std::string masked, list = "[";
    size_t done = 0;
    int64_t characters = 0;
    for (const PiiSpan& span : spans) {
      masked += text.substr(done, span.begin - done);
      masked += span.mask;
      characters += count_characters(text.substr(done, span.begin - done));
      const int64_t length = count_characters(text.substr(span.begin, span.end - span.begin));
      if (list.size() > 1) list += ", ";
      list += fmt::format("{{\"start\": {}, \"end\": {}, \"kind\": \"{}\"}}", characters,
                          characters + length, span.kind);
      characters += length;
      done = span.end;
    }
    masked += text.substr(done);
    record.set_raw("spans", list + "]");
    record.set_text(std::move(masked));
  }

  const FilterSettings& settings_;
  RuleJudge judge_;
};

class FilterStage final : public Stage {
 public:
  explicit FilterStage(FilterSettings settings) : settings_(std::move(settings)) {}

  std::string_view name() const override { return "filter"; }
  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json out;
    out["rules"] = settings_.sets;
    out["text"] = settings_.text;
    out["chinese"] = settings_.chinese;
    for (const auto& [rule, threshold] : settings_.thresholds) out[rule] = threshold;
    return out;
  }
  std::string text_field() const override { return settings_.text; }
  std::unique_ptr<StageWorker> worker() const override {
    return std::make_unique<FilterWorker>(settings_);
  }

 private:
  FilterSettings settings_;
};

}  // namespace

std::unique_ptr<Stage> make_filter_stage(StageSettings& settings) {
  FilterSettings out;
  std::vector<std::string_view> known = text_rule_sets();
  known.emplace_back("pii");
  const std::string sets = settings.text("rules", "gopher,gopher_repetition,c4,fineweb,pii");
  for (size_t at = 0; at <= sets.size();) {
    const size_t end = std::min(sets.find_first_of(",|", at), sets.size());
    const std::string set = sets.substr(at, end - at);
    at = end + 1;
    if (std::ranges::find(known, set) == known.end()) {
      const std::string near = nearest(set, known);
      throw Error(Kind::Misused, fmt::format("--set rules: no set '{}'", printable(set, 80)),
                  near.empty() ? "known are gopher, gopher_repetition, c4, fineweb and pii"
                               : "did you mean " + near + "?");
    }
    out.sets.push_back(set);
  }
  out.text = settings.text("text", "text");
  out.chinese = settings.text("chinese", "auto");
  if (out.chinese != "auto" && out.chinese != "on" && out.chinese != "off") {
    throw Error(Kind::Misused, "--set chinese: is neither auto, on nor off");
  }
  constexpr double kUnset = std::numeric_limits<double>::infinity();
  constexpr double kMost = std::numeric_limits<double>::max();
  for (const TextRule& rule : text_rules()) {
    const double value = settings.number(rule.name, kUnset, 0, kMost);
    if (value == kUnset) continue;
    const std::string_view set = rule.name.substr(0, rule.name.find('.'));
    if (std::ranges::find(out.sets, set) == out.sets.end()) {
      throw Error(Kind::Misused, fmt::format("--set {}: the set {} does not run", rule.name, set),
                  fmt::format("add {} to --set rules", set));
    }
    out.thresholds.emplace_back(rule.name, value);
  }
  settings.finish();
  return std::make_unique<FilterStage>(std::move(out));
}

}  // namespace quern
