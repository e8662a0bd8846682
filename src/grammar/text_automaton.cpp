// TextAutomaton: Thompson's construction of each expression, then the subsets of all of them
// together with the count of characters (Aho, Lam, Sethi, Ullman, sections 3.7.1 and 3.7.4).
#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/utf8.h"
#include "grammar/notation.h"
#include "grammar/regex.h"

namespace quern {
namespace {

using NodeKind = RegexNode::Kind;
constexpr size_t kMaxNfaStates = 50'000;

struct Nfa {
  struct State {
    std::vector<uint32_t> empty;  // where one may go on without a character
    CodePoints set;
    uint32_t to = 0;  // behind a character of `set`
  };
  std::vector<State> states;
  uint32_t start = 0, end = 0;

  explicit Nfa(const Regex& regex) {
    start = add();
    end = append(regex, start);
  }

 private:
  uint32_t add() {
    if (states.size() >= kMaxNfaStates) throw_bad_input("the regular expression is too large");
    states.emplace_back();
    return static_cast<uint32_t>(states.size() - 1);
  }
  // The state behind `regex` from the state `at` on.
  uint32_t append(const Regex& regex, uint32_t at) {
    switch (regex->kind) {
      case NodeKind::Characters: {
        const uint32_t from = add(), to = add();
        states[at].empty.push_back(from);
        states[from].set = regex->set;
        states[from].to = to;
        return to;
      }
      case NodeKind::Sequence:
        for (const Regex& part : regex->parts) at = append(part, at);
        return at;
      case NodeKind::Choice: {
        const uint32_t out = add();
        for (const Regex& part : regex->parts) states[append(part, at)].empty.push_back(out);
        return out;
      }
      case NodeKind::Repeat: {
        const Regex& part = regex->parts[0];
        for (int64_t i = 0; i < regex->least; ++i) at = append(part, at);
        const uint32_t out = add();
        if (regex->most < 0) {
          const uint32_t loop = add();
          states[at].empty.push_back(loop);
          states[append(part, loop)].empty.push_back(loop);
          states[loop].empty.push_back(out);
          return out;
        }
        for (int64_t i = regex->least; i < regex->most; ++i) {
          states[at].empty.push_back(out);
          at = append(part, at);
        }
        states[at].empty.push_back(out);
        return out;
      }
    }
    return at;
  }
};

using Set = std::vector<uint32_t>;

Set close(const Nfa& nfa, Set work) {
  std::vector<bool> seen(nfa.states.size());
  Set out;
  while (!work.empty()) {
    const uint32_t at = work.back();
    work.pop_back();
    if (seen[at]) continue;
    seen[at] = true;
    // Only those matter that a character leads on from, and the end.
    if (!nfa.states[at].set.empty() || at == nfa.end) out.push_back(at);
    for (const uint32_t next : nfa.states[at].empty) work.push_back(next);
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool contains(const CodePoints& set, uint32_t point) {
  return std::ranges::any_of(
      set, [&](const auto& range) { return range.first <= point && point <= range.second; });
}

}  // namespace

TextAutomaton::TextAutomaton(std::span<const Regex> all, int64_t least, int64_t most,
                             size_t max_states) {
  std::vector<Nfa> machines;
  for (const Regex& regex : all) machines.emplace_back(regex);
  // Characters that no set tells apart are one class, known by its first.
  std::vector<uint32_t> firsts = {0};
  for (const Nfa& nfa : machines) {
    for (const Nfa::State& state : nfa.states) {
      for (const auto& [first, last] : state.set) {
        firsts.push_back(first);
        if (last < kLastPoint) firsts.push_back(last + 1);
      }
    }
  }
  std::sort(firsts.begin(), firsts.end());
  firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());

  // Beyond the last count that matters all are one.
  const int64_t last_count = most >= 0 ? most : least;
  using Key = std::pair<int64_t, std::vector<Set>>;
  std::map<Key, uint32_t> known;
  std::vector<const Key*> keys;
  const auto state_of = [&](Key key) {
    const auto [at, added] = known.try_emplace(std::move(key), static_cast<uint32_t>(keys.size()));
    if (added) {
      if (keys.size() >= max_states) throw_bad_input("it needs too many states");
      keys.push_back(&at->first);
      states_.emplace_back();
    }
    return at->second;
  };
  Key begin = {0, {}};
  for (const Nfa& nfa : machines) begin.second.push_back(close(nfa, {nfa.start}));
  state_of(std::move(begin));
  for (uint32_t at = 0; at < keys.size(); ++at) {
    const Key key = *keys[at];
    states_[at].accepts = key.first >= least;
    for (size_t m = 0; m < machines.size(); ++m) {
      states_[at].accepts =
          states_[at].accepts && std::ranges::binary_search(key.second[m], machines[m].end);
    }
    if (most >= 0 && key.first == most) continue;
    for (size_t c = 0; c < firsts.size(); ++c) {
      const uint32_t first = firsts[c];
      const uint32_t last = c + 1 < firsts.size() ? firsts[c + 1] - 1 : kLastPoint;
      Key next = {std::min(key.first + 1, last_count), {}};
      bool dead = false;
      for (size_t m = 0; m < machines.size() && !dead; ++m) {
        Set moved;
        for (const uint32_t from : key.second[m]) {
          const Nfa::State& state = machines[m].states[from];
          if (contains(state.set, first)) moved.push_back(state.to);
        }
        dead = moved.empty();
        next.second.push_back(close(machines[m], std::move(moved)));
      }
      if (dead) continue;
      const uint32_t to = state_of(std::move(next));
      auto& edges = states_[at].edges;
      const auto same = std::ranges::find(edges, to, &Edge::to);
      if (same == edges.end()) {
        edges.push_back({{{first, last}}, to});
      } else if (same->set.back().second + 1 == first) {
        same->set.back().second = last;
      } else {
        same->set.emplace_back(first, last);
      }
    }
  }
}

bool TextAutomaton::fits(std::string_view text) const {
  uint32_t at = 0;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    text.remove_prefix(point.length);
    const auto& edges = states_[at].edges;
    const auto edge =
        std::ranges::find_if(edges, [&](const Edge& e) { return contains(e.set, point.value); });
    if (edge == edges.end()) return false;
    at = edge->to;
  }
  return states_[at].accepts;
}

bool TextAutomaton::is_empty() const {
  // Every state is reached from the start.
  return std::ranges::none_of(states_, &State::accepts);
}

Grammar::Symbol TextAutomaton::add_to(Grammar& grammar, const Writer& write) const {
  std::vector<uint32_t> rules;
  for (size_t i = 0; i < states_.size(); ++i) rules.push_back(grammar.new_rule());
  std::map<CodePoints, Grammar::Symbol> written;
  for (size_t i = 0; i < states_.size(); ++i) {
    if (states_[i].accepts) grammar.add(rules[i], {});
    for (const Edge& edge : states_[i].edges) {
      auto found = written.find(edge.set);
      if (found == written.end()) found = written.emplace(edge.set, write(grammar, edge.set)).first;
      grammar.add(rules[i], {found->second, Grammar::of_rule(rules[edge.to])});
    }
  }
  return Grammar::of_rule(rules[0]);
}

}  // namespace quern
