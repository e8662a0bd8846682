// What an answer may look like: a context-free grammar over bytes, from GBNF, a regular expression
// or a JSON Schema, and the masks that keep a sequence inside it.
//
// A grammar that cannot be kept to exactly is refused when it is compiled: left recursion, rules
// that can never end, keywords that are not known. Nothing here recurses deeper than kMaxNesting.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/constraint.h"
#include "text/tokenizer.h"

namespace quern {

using ByteSet = std::bitset<256>;
using CodePoints = std::vector<std::pair<uint32_t, uint32_t>>;  // ranges, both ends included

constexpr size_t kMaxGrammarBytes = 64 << 10;
constexpr size_t kMaxGrammarSymbols = 100'000;
constexpr int kMaxNesting = 64;

class Grammar {
 public:
  struct Symbol {
    enum class Kind : uint8_t { Bytes, Rule, End } kind;
    uint32_t index;  // of a byte set, or of a rule
  };
  using Sequence = std::vector<Symbol>;

  // ---- Building. Each throws BadInput past kMaxGrammarSymbols. ----
  uint32_t new_rule();
  void add(uint32_t rule, const Sequence& alternative);
  static Symbol of_rule(uint32_t rule) { return {Symbol::Kind::Rule, rule}; }
  Symbol bytes(const ByteSet& set);
  Sequence literal(std::string_view text);
  Symbol characters(const CodePoints& ranges);  // one of them, as UTF-8
  static CodePoints complement(CodePoints ranges);
  Symbol repeat(const Sequence& what, int64_t least, int64_t most);  // most -1: any number
  // Checks what was built and lays it out. Throws BadInput for left recursion and for a root that
  // no finite text fits.
  void finish(uint32_t root);

  // ---- Of a finished grammar. ----
  const std::vector<Symbol>& symbols() const { return symbols_; }
  const std::vector<uint32_t>& starts(uint32_t rule) const { return starts_[rule]; }
  const ByteSet& set(uint32_t index) const { return sets_[index]; }
  uint32_t root() const { return root_; }

 private:
  std::vector<bool> solve(bool bytes_count) const;
  void refuse_left_recursion() const;

  std::vector<std::vector<Sequence>> rules_;
  std::vector<ByteSet> sets_;
  std::unordered_map<ByteSet, uint32_t> set_ids_;
  size_t size_ = 0;
  std::vector<Symbol> symbols_;  // alternatives one after another, each with an End
  std::vector<std::vector<uint32_t>> starts_;
  uint32_t root_ = 0;
};

// Throw BadInput saying what and where.
Grammar grammar_from_gbnf(std::string_view text);
Grammar grammar_from_regex(std::string_view pattern);  // the whole answer fits it
Grammar grammar_from_schema(const nlohmann::ordered_json& schema);
Grammar grammar_of_json_object();
// The same as a part of a grammar.
Grammar::Symbol add_schema(Grammar& grammar, const nlohmann::ordered_json& schema);
Grammar::Symbol add_json_object(Grammar& grammar);
// Whether a value is valid by a schema. Throws BadInput for a schema with keywords that are not known.
bool fits_schema(const nlohmann::ordered_json& schema, const nlohmann::ordered_json& value);

// The bytes of all tokens, in the order of a walk over their common beginnings.
class TokenTrie {
 public:
  // Special tokens and those past `vocab` are not in it.
  TokenTrie(const Tokenizer& tokenizer, int64_t vocab);

  struct Node {
    uint8_t byte;
    uint32_t depth;  // of the first byte: 0
    uint32_t next;   // the node after this one's whole subtree
    uint32_t tokens_begin, tokens_end;
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  std::span<const TokenId> tokens(const Node& node) const {
    return std::span(tokens_).subspan(node.tokens_begin, node.tokens_end - node.tokens_begin);
  }
  int64_t vocab() const { return vocab_; }

 private:
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;
  int64_t vocab_;
};

// A grammar at work: states are sets of positions with what is left to do after them, made as they
// are met and remembered with their transitions and masks. One thread at a time.
class Automaton {
 public:
  using State = uint32_t;
  static constexpr State kDead = 0;
  Automaton(Grammar grammar, std::shared_ptr<const TokenTrie> trie);

  State start() const { return start_; }
  // Throws BadInput when the grammar needs more states than there is room for.
  State next(State state, uint8_t byte);
  bool accepts(State state) const { return states_[state].accepts; }
  // A bit for each token that may come next: [vocab / 64, rounded up].
  const std::vector<uint64_t>& mask(State state);
  size_t masks_made() const { return masks_made_; }

 private:
  struct Stack {  // at `position`, and then where `parent` says; 0 is the end
    uint32_t position, parent;
  };
  struct StateData {
    std::vector<uint32_t> stacks;  // each before a byte set; sorted
    bool accepts = false;
  };
  uint32_t stack(uint32_t position, uint32_t parent);
  State close(std::vector<uint32_t> work);

  Grammar grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::vector<Stack> stacks_;
  std::unordered_map<uint64_t, uint32_t> stack_ids_;
  std::vector<StateData> states_;
  std::unordered_map<std::string, State> state_ids_;
  std::unordered_map<uint64_t, State> transitions_;
  std::unordered_map<State, std::vector<uint64_t>> masks_;
  size_t masks_made_ = 0;
  State start_ = kDead;
};

// One sequence inside a grammar. `ends` are the tokens that end it where the grammar allows.
class GrammarConstraint : public Constraint {
 public:
  GrammarConstraint(std::shared_ptr<Automaton> automaton, const Tokenizer& tokenizer,
                    std::vector<TokenId> ends);
  void mask(std::span<float> logits) override;
  void accept(TokenId id) override;

 private:
  std::shared_ptr<Automaton> automaton_;  // shared by the choices of one request
  const Tokenizer& tokenizer_;
  std::vector<TokenId> ends_;
  Automaton::State state_;
};

}  // namespace quern
