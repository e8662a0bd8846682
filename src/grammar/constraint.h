// Rules beyond text that a generated sequence keeps to, such as a grammar.
#pragma once

#include <span>

#include "text/tokenizer.h"

namespace quern {

// One object per sequence.
class Constraint {
 public:
  virtual ~Constraint() = default;
  // Sets the logits of tokens that must not come next to -infinity; at least one token is allowed.
  virtual void mask(std::span<float> logits) = 0;
  // `id` was chosen and is the next token.
  virtual void accept(TokenId id) = 0;
};

}  // namespace quern
