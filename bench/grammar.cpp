// What keeping answers to a grammar costs: the same streams with and without, over a checkpoint.
//   bench_grammar [MODEL]
#include "grammar/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "generate/model.h"
#include "generate/scheduler.h"

namespace {

using namespace quern;

// Seconds for a token of each stream. Both kinds draw the same number of tokens; an answer that
// comes to its end early counts with what it has.
double seconds_per_token(Model& model, int64_t streams, int64_t tokens,
                         const std::shared_ptr<Automaton>& automaton) {
  Scheduler scheduler(model.network(), &model.tokenizer(), model.engine_options(), streams * 512,
                      streams);
  for (int64_t i = 0; i < streams; ++i) {
    Request request;
    request.ids = model.raw_prompt("Once upon a time");
    request.sampling = model.default_sampling();
    request.sampling.seed = static_cast<uint64_t>(i);
    request.max_new_tokens = tokens;
    if (automaton) {
      const TokenId end = model.config().output_vocab - 1;
      request.constraint = std::make_shared<GrammarConstraint>(automaton, model.tokenizer(),
                                                               std::vector<TokenId>{end});
      request.stop.ids = {end};
    }
    scheduler.add(std::move(request), {});
  }
  const auto begin = std::chrono::steady_clock::now();
  while (scheduler.step()) {
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return seconds / static_cast<double>(scheduler.load().new_tokens);
}

}  // namespace

int main(int count, char** arguments) {
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  Model model(count > 1 ? fs::path(arguments[1]) : here / "../../../models/quern-mini");
  const auto trie = std::make_shared<TokenTrie>(model.tokenizer(), model.config().output_vocab);
  const auto schema = nlohmann::ordered_json::parse(
      R"({"type":"array","minItems":40,"items":{"type":"object","properties":{"name":{"type":"string"},
          "age":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}}},
          "required":["name","age","tags"],"additionalProperties":false}})");
  const std::pair<const char*, Grammar (*)(const nlohmann::ordered_json&)> kKinds[] = {
      {"json_schema", [](const auto& s) { return grammar_from_schema(s); }},
      {"json_object", [](const auto&) { return grammar_of_json_object(); }},
      {"regex", [](const auto&) { return grammar_from_regex("([A-Za-z]+[ ,.])*"); }}};
  constexpr int64_t kTokens = 128;
  fmt::print("{:>12} {:>8} {:>14} {:>14} {:>14} {:>8}\n", "format", "streams", "free us/token",
             "kept us/token", "first time", "cost");
  for (const auto& [name, make] : kKinds) {
    for (const int64_t streams : {int64_t{1}, int64_t{8}}) {
      const auto automaton = std::make_shared<Automaton>(make(schema), trie);
      const double first = seconds_per_token(model, streams, kTokens, automaton);
      std::vector<double> free, kept;
      for (int round = 0; round < 5; ++round) {  // alternating, so that both meet the same machine
        free.push_back(seconds_per_token(model, streams, kTokens, nullptr));
        kept.push_back(seconds_per_token(model, streams, kTokens, automaton));
      }
      std::sort(free.begin(), free.end());
      std::sort(kept.begin(), kept.end());
      fmt::print("{:>12} {:>8} {:>14.1f} {:>14.1f} {:>14.1f} {:>7.1f}%\n", name, streams,
                 1e6 * free[2], 1e6 * kept[2], 1e6 * first, 100 * (kept[2] / free[2] - 1));
    }
  }
}
