#include "data/stages/filter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <memory>

#include "core/error.h"
#include "core/file.h"
#include "data/classify/linear_model.h"
#include "data/classify/ngram_model.h"
#include "data/stages/pii.h"
#include "data/stages/text_rules.h"
#include "data/stages/word_list.h"
#include "data/stages/words.h"

namespace quern {
namespace {

// A set that is one score of a classifier: a text stays where it is good, or not bad, enough.
struct ClassifierSet {
  std::string name;
  std::string file, sha256;
  std::shared_ptr<const LinearModel> model;
  double threshold = 0.5;
  bool keep_above = true;
};

// How several sets make one verdict.
enum class Vote : uint8_t { Any, All, Sum };

struct FilterSettings {
  std::vector<std::string> sets;
  Thresholds thresholds;
  std::string text, chinese;
  std::vector<ClassifierSet> classifiers;
  std::string word_file, word_sha256;
  std::shared_ptr<const WordList> words;
  double most_words = 0;
  std::string ngram_sha256;
  std::shared_ptr<const NGramModel> ngram;
  double most_perplexity = 0;
  Vote vote = Vote::Any;
  std::map<std::string, double> weights;  // of Sum: what a set adds that would drop the text
  double vote_threshold = 1;
};

class FilterWorker final : public StageWorker {
 public:
  explicit FilterWorker(const FilterSettings& settings)
      : settings_(settings), judge_(settings.thresholds) {
    for (const ClassifierSet& set : settings.classifiers) scorers_.emplace_back(*set.model);
  }

  Verdict process(Record& record, const Place&) override {
    double sum = 0;
    int64_t against = 0, voters = 0;
    for (const std::string& set : settings_.sets) {
      if (set == "pii") {
        mask(record);
        continue;
      }
      const Verdict verdict = judge(set, record);
      ++voters;
      if (verdict.keep) continue;
      if (settings_.vote == Vote::Any) return verdict;
      ++against;
      sum += settings_.vote == Vote::Sum ? settings_.weights.at(set) : 0;
    }
    if (settings_.vote == Vote::All && voters > 0 && against == voters) {
      return {false, "vote.all", static_cast<double>(against), static_cast<double>(voters)};
    }
    if (settings_.vote == Vote::Sum && sum >= settings_.vote_threshold) {
      return {false, "vote.sum", sum, settings_.vote_threshold};
    }
    return {};
  }

 private:
  // One set's verdict; c4 also changes the text.
  Verdict judge(const std::string& set, Record& record) {
    for (size_t i = 0; i < scorers_.size(); ++i) {
      const ClassifierSet& classifier = settings_.classifiers[i];
      if (classifier.name != set) continue;
      const double score = scorers_[i].score(record.text());
      record.set_score(set, score);
      const bool above = score >= classifier.threshold;
      if (above == classifier.keep_above) return {};
      return {false, set + ".classifier", score, classifier.threshold};
    }
    if (set == "ngram") {
      const double perplexity = settings_.ngram->score_text(record.text()).perplexity();
      // A text without a word has none: it stays out.
      if (std::isfinite(perplexity)) record.set_score(set, perplexity);
      if (perplexity <= settings_.most_perplexity) return {};
      return {false, "ngram.max_perplexity",
              std::isfinite(perplexity) ? perplexity : std::numeric_limits<double>::max(),
              settings_.most_perplexity};
    }
    if (set == "words") {
      const auto found = static_cast<double>(settings_.words->count(record.text()));
      if (found <= settings_.most_words) return {};
      return {false, "words.listed", found, settings_.most_words};
    }
    const bool chinese = settings_.chinese == "on" || (settings_.chinese == "auto" &&
                                                       record.string("lang").value_or("") == "zh");
    RuleOutcome outcome = judge_.judge(set, record.text(), chinese);
    if (outcome.verdict.keep && outcome.text && *outcome.text != record.text()) {
      record.set_text(std::move(*outcome.text));
    }
    return outcome.verdict;
  }

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
  std::deque<LinearScorer> scorers_;  // of settings_.classifiers
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
    for (const ClassifierSet& set : settings_.classifiers) {
      out[set.name + ".model"] = set.sha256;
      out[set.name + ".threshold"] = set.threshold;
    }
    if (settings_.words) {
      out["words.file"] = settings_.word_sha256;
      out["words.most"] = settings_.most_words;
    }
    if (settings_.ngram) {
      out["ngram.model"] = settings_.ngram_sha256;
      out["ngram.max_perplexity"] = settings_.most_perplexity;
    }
    if (settings_.vote != Vote::Any) {
      out["vote"] = settings_.vote == Vote::All ? "all" : "sum";
      for (const auto& [set, weight] : settings_.weights) out["weight." + set] = weight;
      if (settings_.vote == Vote::Sum) out["vote.threshold"] = settings_.vote_threshold;
    }
    return out;
  }
  std::string text_field() const override { return settings_.text; }
  std::unique_ptr<StageWorker> worker() const override {
    return std::make_unique<FilterWorker>(settings_);
  }

 private:
  FilterSettings settings_;
};

// The file that a set reads, named by `key`.
std::string file_of(StageSettings& settings, const std::string& set, const std::string& key) {
  std::string file = settings.text(key, "");
  if (!file.empty()) return file;
  throw Error(Kind::Misused, fmt::format("the set {} needs --set {}=FILE", set, key));
}

ClassifierSet read_classifier(StageSettings& settings, const std::string& name) {
  ClassifierSet set;
  set.name = name;
  set.keep_above = name == "quality";
  set.file = file_of(settings, name, name + ".model");
  const std::string bytes = read_file(set.file, uint64_t{1} << 30);
  set.sha256 = sha256(bytes);
  auto model = std::make_shared<LinearModel>(LinearModel::parse(bytes, set.file));
  if (model->labels.size() != 2) {
    throw_bad_input(set.file + ": tells more than two labels apart",
                    "quern data train-classifier makes what this set reads");
  }
  if (model->kind != name) {
    throw_bad_input(
        fmt::format("{}: was trained for {}, the set is {}", set.file, model->kind, name),
        fmt::format("train it with --kind {}", name));
  }
  set.threshold = settings.number(name + ".threshold", model->threshold, 0, 1);
  set.model = std::move(model);
  return set;
}

void read_vote(StageSettings& settings, FilterSettings& out) {
  const std::string vote = settings.text("vote", "any");
  if (vote == "any") return;
  if (vote != "all" && vote != "sum") {
    throw Error(Kind::Misused, "--set vote: is neither any, all nor sum");
  }
  out.vote = vote == "all" ? Vote::All : Vote::Sum;
  if (out.vote == Vote::All) return;
  for (const std::string& set : out.sets) {
    if (set != "pii") out.weights[set] = settings.number("weight." + set, 1, 0, 1e6);
  }
  out.vote_threshold = settings.number("vote.threshold", 1, 0, 1e9);
}

}  // namespace

std::unique_ptr<Stage> make_filter_stage(StageSettings& settings) {
  FilterSettings out;
  std::vector<std::string_view> known = text_rule_sets();
  for (const char* set : {"pii", "quality", "toxic", "words", "ngram"}) known.emplace_back(set);
  const std::string sets = settings.text("rules", "gopher,gopher_repetition,c4,fineweb,pii");
  for (size_t at = 0; at <= sets.size();) {
    const size_t end = std::min(sets.find_first_of(",|", at), sets.size());
    const std::string set = sets.substr(at, end - at);
    at = end + 1;
    if (std::ranges::find(known, set) == known.end()) {
      const std::string near = nearest(set, known);
      throw Error(
          Kind::Misused, fmt::format("--set rules: no set '{}'", printable(set, 80)),
          near.empty()
              ? "known are gopher, gopher_repetition, c4, fineweb, pii, quality, toxic, words "
                "and ngram"
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
  for (const std::string& set : out.sets) {
    if (set == "quality" || set == "toxic") {
      out.classifiers.push_back(read_classifier(settings, set));
    } else if (set == "ngram") {
      const std::string file = file_of(settings, set, "ngram.model");
      const std::string bytes = read_file(file, uint64_t{8} << 30);
      out.ngram_sha256 = sha256(bytes);
      out.ngram = std::make_shared<NGramModel>(NGramModel::parse_arpa(bytes, file));
      out.most_perplexity = settings.number("ngram.max_perplexity", 1000, 1, 1e12);
    } else if (set == "words") {
      out.word_file = file_of(settings, set, "words.file");
      const std::string bytes = read_file(out.word_file, uint64_t{64} << 20);
      out.word_sha256 = sha256(bytes);
      out.words = std::make_shared<WordList>(bytes, out.word_file);
      out.most_words = settings.number("words.most", 0, 0, 1e9);
    }
  }
  read_vote(settings, out);
  settings.finish();
  return std::make_unique<FilterStage>(std::move(out));
}

}  // namespace quern
