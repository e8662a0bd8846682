#include "grammar/grammar.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/utf8.h"

namespace quern {
namespace {

using Symbol = Grammar::Symbol;
constexpr size_t kMaxStates = 200'000;       // and as many stacks; transitions ten times that
constexpr size_t kMaxStacksOfState = 4'096;  // a state that is in more places is refused
constexpr size_t kMaskBytes = size_t{32} << 20;

constexpr uint32_t kLastOf[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};  // code points of 1 to 4 bytes

ByteSet byte_range(uint32_t first, uint32_t last) {
  ByteSet set;
  for (uint32_t b = first; b <= last; ++b) set.set(b);
  return set;
}

// The byte sequences of the code points from `first` to `last`, which have the same length.
void utf8_sequences(uint32_t first, uint32_t last, std::vector<std::vector<ByteSet>>& out) {
  // Split until every byte but the leading common ones takes a whole range of its own.
  for (int i = 1; i < 4; ++i) {
    const uint32_t low = (1u << (6 * i)) - 1;
    if (first > kLastOf[0] && (first & ~low) != (last & ~low)) {
      if ((first & low) != 0) {
        utf8_sequences(first, first | low, out);
        utf8_sequences((first | low) + 1, last, out);
        return;
      }
      if ((last & low) != low) {
        utf8_sequences(first, (last & ~low) - 1, out);
        utf8_sequences(last & ~low, last, out);
        return;
      }
    }
  }
  std::string a, b;
  utf8::append(a, first);
  utf8::append(b, last);
  std::vector<ByteSet> sequence;
  for (size_t i = 0; i < a.size(); ++i) {
    sequence.push_back(byte_range(static_cast<uint8_t>(a[i]), static_cast<uint8_t>(b[i])));
  }
  out.push_back(std::move(sequence));
}

}  // namespace

uint32_t Grammar::new_rule() {
  if (++size_ > kMaxGrammarSymbols) throw_bad_input("the grammar is too large");
  rules_.emplace_back();
  return static_cast<uint32_t>(rules_.size() - 1);
}

void Grammar::add(uint32_t rule, const Sequence& alternative) {
  size_ += alternative.size() + 1;
  if (size_ > kMaxGrammarSymbols) throw_bad_input("the grammar is too large");
  rules_[rule].push_back(alternative);
}

Symbol Grammar::bytes(const ByteSet& set) {
  const auto [found, added] = set_ids_.try_emplace(set, static_cast<uint32_t>(sets_.size()));
  if (added) sets_.push_back(set);
  return {Symbol::Kind::Bytes, found->second};
}

Grammar::Sequence Grammar::literal(std::string_view text) {
  Sequence out;
  for (const char c : text) {
    ByteSet one;
    one.set(static_cast<uint8_t>(c));
    out.push_back(bytes(one));
  }
  return out;
}

CodePoints Grammar::complement(CodePoints ranges) {
  std::sort(ranges.begin(), ranges.end());
  CodePoints out;
  uint32_t next = 0;
  for (const auto& [first, last] : ranges) {
    if (first > next) out.emplace_back(next, first - 1);
    next = std::max(next, last + 1);
  }
  if (next <= 0x10FFFF) out.emplace_back(next, 0x10FFFF);
  return out;
}

Symbol Grammar::characters(const CodePoints& ranges) {
  std::vector<std::vector<ByteSet>> sequences;
  ByteSet single;
  for (auto [first, last] : ranges) {
    // What is no character cannot be written: surrogates fall out.
    const std::pair<uint32_t, uint32_t> parts[] = {{first, std::min(last, 0xD7FFu)},
                                                   {std::max(first, 0xE000u), last}};
    for (const auto& [begin, end] : parts) {
      uint32_t low = 0;
      for (const uint32_t high : kLastOf) {
        const uint32_t a = std::max(begin, low), b = std::min(end, high);
        if (a <= b) {
          if (high == kLastOf[0]) {
            single |= byte_range(a, b);
          } else {
            utf8_sequences(a, b, sequences);
          }
        }
        low = high + 1;
      }
    }
  }
  if (sequences.empty()) return bytes(single);
  const uint32_t rule = new_rule();
  if (single.any()) add(rule, {bytes(single)});
  for (const auto& sequence : sequences) {
    Sequence alternative;
    for (const ByteSet& set : sequence) alternative.push_back(bytes(set));
    add(rule, alternative);
  }
  return of_rule(rule);
}

Symbol Grammar::repeat(const Sequence& what, int64_t least, int64_t most) {
  const auto limit = static_cast<int64_t>(kMaxGrammarSymbols);
  if (least > limit || most > limit) throw_bad_input("the grammar repeats something too often");
  const uint32_t item = new_rule();
  add(item, what);
  // Optional ones nest, so that there is one way only to leave the last ones out.
  uint32_t rest = new_rule();
  add(rest, {});
  if (most < 0) {
    add(rest, {of_rule(item), of_rule(rest)});
  } else {
    for (int64_t i = least; i < most; ++i) {
      const uint32_t more = new_rule();
      add(more, {});
      add(more, {of_rule(item), of_rule(rest)});
      rest = more;
    }
  }
  const uint32_t all = new_rule();
  Sequence sequence(static_cast<size_t>(least), of_rule(item));
  sequence.push_back(of_rule(rest));
  add(all, sequence);
  return of_rule(all);
}

// Which rules have an alternative that consists of such rules only, and of bytes if they count:
// with them those that can end, without them those that can be empty.
std::vector<bool> Grammar::solve(bool bytes_count) const {
  struct Alternative {
    uint32_t rule;
    size_t missing;
  };
  std::vector<Alternative> alternatives;
  std::vector<std::vector<uint32_t>> users(rules_.size());
  std::vector<bool> good(rules_.size());
  std::vector<uint32_t> work;
  const auto settle = [&](uint32_t rule) {
    if (good[rule]) return;
    good[rule] = true;
    work.push_back(rule);
  };
  for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
    for (const Sequence& sequence : rules_[rule]) {
      Alternative alternative = {rule, 0};
      for (const Symbol& symbol : sequence) {
        if (symbol.kind == Symbol::Kind::Rule) {
          users[symbol.index].push_back(static_cast<uint32_t>(alternatives.size()));
          ++alternative.missing;
        } else if (!bytes_count || sets_[symbol.index].none()) {
          alternative.missing += 1 + kMaxGrammarSymbols;
        }
      }
      if (alternative.missing == 0) settle(rule);
      alternatives.push_back(alternative);
    }
  }
  while (!work.empty()) {
    const uint32_t rule = work.back();
    work.pop_back();
    for (const uint32_t user : users[rule]) {
      if (--alternatives[user].missing == 0) settle(alternatives[user].rule);
    }
  }
  return good;
}

void Grammar::refuse_left_recursion() const {
  const std::vector<bool> empty = solve(false);
  std::vector<std::vector<uint32_t>> begins(rules_.size());  // with what each may begin
  std::vector<size_t> incoming(rules_.size());
  for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
    for (const Sequence& sequence : rules_[rule]) {
      for (const Symbol& symbol : sequence) {
        if (symbol.kind != Symbol::Kind::Rule) break;
        begins[rule].push_back(symbol.index);
        ++incoming[symbol.index];
        if (!empty[symbol.index]) break;
      }
    }
  }
  std::vector<uint32_t> work;
  for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
    if (incoming[rule] == 0) work.push_back(rule);
  }
  size_t sorted = 0;
  for (; !work.empty(); ++sorted) {
    const uint32_t rule = work.back();
    work.pop_back();
    for (const uint32_t other : begins[rule]) {
      if (--incoming[other] == 0) work.push_back(other);
    }
  }
  if (sorted < rules_.size()) {
    throw_bad_input("the grammar has a rule that begins with itself (left recursion)");
  }
}

void Grammar::finish(uint32_t root) {
  root_ = root;
  // Ways that never end are taken out, so that whoever goes on can always come to an end.
  const std::vector<bool> ends = solve(true);
  if (!ends[root]) throw_bad_input("the grammar has no text that fits and ends");
  for (auto& rule : rules_) {
    std::erase_if(rule, [&](const Sequence& sequence) {
      return std::ranges::any_of(sequence, [&](const Symbol& symbol) {
        return symbol.kind == Symbol::Kind::Rule ? !ends[symbol.index] : sets_[symbol.index].none();
      });
    });
  }
  refuse_left_recursion();
  starts_.resize(rules_.size());
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    for (const Sequence& sequence : rules_[rule]) {
      starts_[rule].push_back(static_cast<uint32_t>(symbols_.size()));
      symbols_.insert(symbols_.end(), sequence.begin(), sequence.end());
      symbols_.push_back({Symbol::Kind::End, 0});
    }
  }
  rules_.clear();
}

TokenTrie::TokenTrie(const Tokenizer& tokenizer, int64_t vocab) : vocab_(vocab) {
  std::vector<std::pair<std::string_view, TokenId>> sorted;
  for (TokenId id = 0; id < std::min(tokenizer.size(), vocab); ++id) {
    if (tokenizer.is_special(id)) continue;
    std::string_view bytes;
    try {
      bytes = tokenizer.token_bytes(id);
    } catch (const Error&) {
      continue;  // a hole of the vocabulary
    }
    if (!bytes.empty()) sorted.emplace_back(bytes, id);
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<uint32_t> open;  // the nodes from the root to the last one
  const auto leave = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      nodes_[open.back()].next = static_cast<uint32_t>(nodes_.size());
    }
  };
  std::string_view last;
  for (const auto& [bytes, id] : sorted) {
    const auto common = static_cast<size_t>(
        std::mismatch(bytes.begin(), bytes.end(), last.begin(), last.end()).first - bytes.begin());
    leave(common);
    for (size_t i = common; i < bytes.size(); ++i) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      const auto at = static_cast<uint32_t>(tokens_.size());
      nodes_.push_back({static_cast<uint8_t>(bytes[i]), static_cast<uint32_t>(i), 0, at, at});
    }
    tokens_.push_back(id);
    nodes_[open.back()].tokens_end = static_cast<uint32_t>(tokens_.size());
    last = bytes;
  }
  leave(0);
}

Automaton::Automaton(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)), trie_(std::move(trie)) {
  stacks_.push_back({0, 0});  // the end
  states_.emplace_back();     // kDead
  std::vector<uint32_t> first;
  for (const uint32_t start : grammar_.starts(grammar_.root())) first.push_back(stack(start, 0));
  start_ = close(std::move(first));
}

uint32_t Automaton::stack(uint32_t position, uint32_t parent) {
  const uint64_t key = (uint64_t{position} << 32) | parent;
  const auto [found, added] = stack_ids_.try_emplace(key, static_cast<uint32_t>(stacks_.size()));
  if (added) {
    if (stacks_.size() >= kMaxStates) {
      throw_bad_input("the grammar needs too many states");
    }
    stacks_.push_back({position, parent});
  }
  return found->second;
}

// Follows rules and ends until every stack stands before bytes.
Automaton::State Automaton::close(std::vector<uint32_t> work) {
  StateData state;
  std::vector<uint32_t> seen = work;
  std::sort(seen.begin(), seen.end());
  const auto visit = [&](uint32_t id) {
    const auto at = std::lower_bound(seen.begin(), seen.end(), id);
    if (at != seen.end() && *at == id) return;
    if (seen.size() >= kMaxStacksOfState) {
      throw_bad_input("the grammar is in too many places at once");
    }
    seen.insert(at, id);
    work.push_back(id);
  };
  const auto& symbols = grammar_.symbols();
  while (!work.empty()) {
    const uint32_t id = work.back();
    work.pop_back();
    if (id == 0) {
      state.accepts = true;
      continue;
    }
    const Stack top = stacks_[id];
    const Symbol symbol = symbols[top.position];
    if (symbol.kind == Symbol::Kind::Bytes) {
      state.stacks.push_back(id);
    } else if (symbol.kind == Symbol::Kind::End) {
      visit(top.parent);
    } else {
      // What follows a rule's last symbol is what follows the rule: lists don't pile up.
      const bool last = symbols[top.position + 1].kind == Symbol::Kind::End;
      const uint32_t back = last ? top.parent : stack(top.position + 1, top.parent);
      for (const uint32_t start : grammar_.starts(symbol.index)) visit(stack(start, back));
    }
  }
  if (state.stacks.empty() && !state.accepts) return kDead;
  std::sort(state.stacks.begin(), state.stacks.end());
  std::string key(1, state.accepts ? '1' : '0');
  key.append(reinterpret_cast<const char*>(state.stacks.data()),
             state.stacks.size() * sizeof(uint32_t));
  const auto [found, added] =
      state_ids_.try_emplace(std::move(key), static_cast<State>(states_.size()));
  if (added) {
    if (states_.size() >= kMaxStates) {
      throw_bad_input("the grammar needs too many states");
    }
    states_.push_back(std::move(state));
  }
  return found->second;
}

Automaton::State Automaton::next(State state, uint8_t byte) {
  if (state == kDead) return kDead;
  const uint64_t key = (uint64_t{state} << 8) | byte;
  if (const auto known = transitions_.find(key); known != transitions_.end()) return known->second;
  std::vector<uint32_t> work;
  for (const uint32_t id : states_[state].stacks) {
    const Stack at = stacks_[id];
    if (!grammar_.set(grammar_.symbols()[at.position].index).test(byte)) continue;
    work.push_back(stack(at.position + 1, at.parent));
  }
  const State after = work.empty() ? kDead : close(std::move(work));
  if (transitions_.size() >= 10 * kMaxStates) transitions_.clear();
  transitions_[key] = after;
  return after;
}

const std::vector<uint64_t>& Automaton::mask(State state) {
  if (const auto known = masks_.find(state); known != masks_.end()) return known->second;
  const auto words = static_cast<size_t>((trie_->vocab() + 63) / 64);
  if (masks_.size() * words * 8 >= kMaskBytes) masks_.clear();
  std::vector<uint64_t> bits(words);
  const auto& nodes = trie_->nodes();
  std::vector<State> path = {state};  // the state before each depth
  for (uint32_t at = 0; at < nodes.size();) {
    const TokenTrie::Node& node = nodes[at];
    path.resize(node.depth + 1);
    const State after = next(path.back(), node.byte);
    if (after == kDead) {
      at = node.next;
      continue;
    }
    for (const TokenId id : trie_->tokens(node)) {
      bits[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    }
    path.push_back(after);
    ++at;
  }
  ++masks_made_;
  return masks_[state] = std::move(bits);
}

GrammarConstraint::GrammarConstraint(std::shared_ptr<Automaton> automaton,
                                     const Tokenizer& tokenizer, std::vector<TokenId> ends)
    : automaton_(std::move(automaton)),
      tokenizer_(tokenizer),
      ends_(std::move(ends)),
      state_(automaton_->start()) {}

void GrammarConstraint::mask(std::span<float> logits) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const bool may_end = automaton_->accepts(state_);
  std::vector<std::pair<TokenId, float>> ends;
  for (const TokenId id : ends_) {
    ends.emplace_back(id, may_end ? logits[static_cast<size_t>(id)] : kNone);
  }
  const std::vector<uint64_t>& bits = automaton_->mask(state_);
  bool any = may_end && !ends.empty();
  for (size_t word = 0; word * 64 < logits.size(); ++word) {
    const uint64_t allowed = word < bits.size() ? bits[word] : 0;
    any |= allowed != 0;
    if (allowed == ~uint64_t{0}) continue;
    const size_t end = std::min(logits.size(), 64 * word + 64);
    for (size_t id = 64 * word; id < end; ++id) {
      if ((allowed >> (id % 64) & 1) == 0) logits[id] = kNone;
    }
  }
  for (const auto& [id, logit] : ends) logits[static_cast<size_t>(id)] = logit;
  if (!any)
    throw Error(Kind::Failed, "the vocabulary has no token that the grammar can go on with");
}

void GrammarConstraint::accept(TokenId id) {
  if (std::ranges::find(ends_, id) != ends_.end()) return;
  for (const char byte : tokenizer_.token_bytes(id)) {
    state_ = automaton_->next(state_, static_cast<uint8_t>(byte));
  }
}

}  // namespace quern
