// The steps that change a text before it is cut.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/pipeline/charsmap.h"
#include "text/pipeline/regex.h"

namespace quern {

class Normalizer {
 public:
  Normalizer() = default;
  Normalizer(std::vector<NormalizerStep> steps, const std::string& source);

  // `text` is valid UTF-8. Returns it, or `storage` with what it became.
  std::string_view run(std::string_view text, std::string& storage) const;

  bool empty() const noexcept { return steps_.empty(); }

 private:
  struct Step {
    NormalizerStep what;
    std::optional<Regex> regex;
    Charsmap charsmap;
  };
  static void apply(const Step& step, std::string_view text, std::string& out);

  std::vector<Step> steps_;
};

// Every match of a pattern replaced. `regex` is the compiled one where the pattern is a regex.
void replace_matches(const TextPattern& pattern, const Regex* regex, std::string_view content,
                     std::string_view text, std::string& out);

}  // namespace quern
