// The steps that cut a normalized text into the pieces that the model sees one by one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/block_splitter.h"
#include "text/piece_encoder.h"
#include "text/pipeline/regex.h"

namespace quern {

class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& source);

  // Cuts `text`, valid UTF-8 that holds no added tokens. `first`: it begins the whole text. `buffer`
  // takes the text as the steps leave it, and kReadAhead bytes more; `cuts` lie in it. Where a byte
  // level step comes last the pieces are left as bytes.
  static constexpr size_t kReadAhead = 64;
  void run(std::string_view text, bool first, std::string& buffer, std::vector<Cut>& cuts) const;

  // Whether the pieces are bytes, which a byte-level vocabulary's tokens stand for; else they may be
  // in its alphabet.
  bool ends_in_bytes() const noexcept { return ends_in_bytes_; }
  // The rule by which a fast splitter makes the same pieces, if there is one.
  std::optional<SplitRule> rule() const noexcept { return rule_; }
  bool empty() const noexcept { return steps_.empty(); }

 private:
  struct Step {
    PreTokenizerStep what;
    std::optional<Regex> regex;
    std::optional<SplitRule> rule;
  };
  using Matches = std::vector<std::pair<Cut, bool>>;

  static void split(const Step& step, const std::string& buffer, Cut piece, std::vector<Cut>& out,
                    Matches& matches);
  static void rewrite(const Step& step, bool first, std::string& buffer, std::vector<Cut>& cuts);
  void find_rule();

  std::vector<Step> steps_;
  bool ends_in_bytes_ = false;
  std::optional<SplitRule> rule_;
};

}  // namespace quern
