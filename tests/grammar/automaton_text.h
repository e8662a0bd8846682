// Texts through a grammar's automaton: whether one fits, and one at random that does.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "grammar/grammar.h"

namespace quern::test {

inline bool fits(Automaton& automaton, std::string_view text) {
  Automaton::State state = automaton.start();
  for (const char byte : text) state = automaton.next(state, static_cast<uint8_t>(byte));
  return automaton.accepts(state);
}

// A random walk through the automaton; nothing where it did not end in time.
inline std::optional<std::string> walk(Automaton& automaton, Rng& rng, int max_steps) {
  std::string text;
  Automaton::State state = automaton.start();
  for (int step = 0; step < max_steps; ++step) {
    std::vector<uint8_t> ways, closing;
    for (int byte = 0; byte < 256; ++byte) {
      if (automaton.next(state, static_cast<uint8_t>(byte)) == Automaton::kDead) continue;
      ways.push_back(static_cast<uint8_t>(byte));
      if (std::string_view("\"]}").find(static_cast<char>(byte)) != std::string_view::npos) {
        closing.push_back(static_cast<uint8_t>(byte));
      }
    }
    if (automaton.accepts(state) && (ways.empty() || rng.below(4) == 0)) return text;
    if (ways.empty()) {
      ADD_FAILURE() << "a dead end behind " << text;
      return {};
    }
    const auto& from = !closing.empty() && rng.below(2) == 0 ? closing : ways;
    text += static_cast<char>(from[rng.below(from.size())]);
    state = automaton.next(state, static_cast<uint8_t>(text.back()));
  }
  return {};
}

}  // namespace quern::test
