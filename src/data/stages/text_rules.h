// The published rule sets that tell text worth training on by its form:
//   gopher, gopher_repetition  Rae et al. 2021, appendix A
//   c4                         Raffel et al. 2020, section 2.2
//   fineweb                    Penedo et al. 2024, section 3.6
// as datatrove 0.10 measures them: each rule's value agrees with its, and sets stop at the first
// rule that fails. Texts in Chinese have a column of their own, where characters stand for words.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/pipeline/stage.h"

namespace quern {

struct TextRule {
  std::string_view name;  // "gopher.min_words"
  std::string_view measures;
  bool at_least;  // keeps a text whose value is at least, else at most, the threshold
  double threshold;
  double chinese;  // its threshold for Chinese
};
std::span<const TextRule> text_rules();
std::vector<std::string_view> text_rule_sets();  // gopher, gopher_repetition, c4, fineweb

// Thresholds by rule, changed ones only.
using Thresholds = std::vector<std::pair<std::string, double>>;

struct RuleOutcome {
  Verdict verdict;
  std::optional<std::string> text;  // of c4: the kept lines
};

// Judges one text after another; keeps its buffers.
class RuleJudge {
 public:
  explicit RuleJudge(Thresholds thresholds = {});
  ~RuleJudge();

  // `see` is told each value that was measured, also of rules after the one that fails if `all`.
  using See = std::function<void(std::string_view rule, double value)>;
  RuleOutcome judge(std::string_view set, std::string_view text, bool chinese, bool all = false,
                    const See& see = {});
  // The same over words from elsewhere; c4 counts its own.
  RuleOutcome judge(std::string_view set, std::string_view text,
                    std::span<const std::string_view> words, bool chinese, bool all = false,
                    const See& see = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern
