// The steps that put tokens together to a text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"
#include "text/pipeline/regex.h"

namespace quern {

class Decoder {
 public:
  Decoder() = default;
  Decoder(std::vector<DecoderStep> steps, const std::string& source);

  // `replace`: bytes that make no UTF-8 become U+FFFD; else they are left out.
  std::string run(std::vector<std::string> tokens, bool replace = true) const;

  // Whether the text of several tokens is that of each put together, but for the first.
  bool concatenates() const noexcept;
  // Whether the steps are byte-level BPE's alone: each token is bytes.
  bool is_byte_level() const noexcept;
  bool has_byte_fallback() const noexcept { return has(DecoderStep::Kind::ByteFallback); }
  // Whether a space at the begin of a text is not shown.
  bool drops_first_space() const noexcept;

 private:
  struct Step {
    DecoderStep what;
    std::optional<Regex> regex;
  };
  bool has(DecoderStep::Kind kind) const noexcept;
  static void apply(const Step& step, std::vector<std::string>& tokens, bool replace);

  std::vector<Step> steps_;
};

// A byte-level token's bytes; its text as it stands where it is not in the alphabet.
std::string byte_level_bytes(std::string_view token);

}  // namespace quern
