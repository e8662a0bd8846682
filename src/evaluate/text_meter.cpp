#include "evaluate/text_meter.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

constexpr int kVersion = 1;  // raised when a result changes
constexpr int64_t kChunk = 512;
constexpr int64_t kLogitRows = 32;

}  // namespace

ContextVariant TextMeter::own() const {
  const ContextRules& rules = model_.engine_options().rules;
  return {"as it is", rules.dynamic_ntk, rules.logn, model_.config().windows};
}

void TextMeter::skip(int64_t tokens) {
  done_ += tokens;
  if (options_.on_progress) options_.on_progress(done_, all_);
}

PerplexityResult TextMeter::measure(std::span<const TokenId> ids, int64_t length,
                                    const ContextVariant& variant) {
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t window = std::min(length, total);
  const std::string bytes(reinterpret_cast<const char*>(ids.data()), ids.size_bytes());
  const std::string key = sha256(dump(nlohmann::ordered_json{{"source", options_.identity},
                                                             {"ids", sha256(bytes)},
                                                             {"length", length},
                                                             {"ntk", variant.dynamic_ntk},
                                                             {"logn", variant.logn},
                                                             {"windows", variant.windows},
                                                             {"perplexity_version", kVersion}}));
  PerplexityResult result;
  if (options_.store != nullptr) {
    if (const auto kept = options_.store->find(key)) {
      result.nll = -kept->response.choice_logprobs.at(0);
      result.tokens = kept->new_tokens;
      seconds_ += kept->seconds;
      skip(total);
      return result;
    }
  }
  const auto begun = std::chrono::steady_clock::now();
  Config config = model_.config();
  config.dynamic_ntk = variant.dynamic_ntk;
  config.logn = variant.logn;
  config.windows = variant.windows;
  const DType kv_type = model_.engine_options().kv_type;
  const Network network{model_.backend(), config, model_.weights()};
  KvCache cache(model_.backend(), config, kv_type, window, 1);
  Runner runner(network, kv_policy(kv_type).chunked ? std::min(kChunk, window) : window,
                kLogitRows);
  for (int64_t begin = 0; begin + 1 < total; begin += window) {
    if (options_.cancel != nullptr && *options_.cancel) {
      throw Error(Kind::Partial, fmt::format("{} of {} tokens are measured", done_, all_),
                  options_.store != nullptr ? "the same command goes on from there"
                                            : "nothing was kept: --no-cache");
    }
    const int64_t end = std::min(begin + window, total);
    Sequence sequence(cache, config, {variant.dynamic_ntk, variant.logn}, end - begin);
    const auto logprobs = token_logprobs(model_, runner, cache, sequence,
                                         ids.subspan(size_t(begin), size_t(end - begin)));
    for (const float logprob : logprobs) {
      if (!std::isfinite(logprob)) model_.explain_nonfinite();
      result.nll -= static_cast<double>(logprob);
      ++result.tokens;
    }
    skip(end - begin);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  seconds_ += took.count();
  if (options_.store != nullptr) {
    ItemAnswer answer;
    answer.response.choice_logprobs = {-result.nll};
    answer.prompt_tokens = total;
    answer.new_tokens = result.tokens;
    answer.finish = "score";
    answer.seconds = took.count();
    options_.store->keep(key, answer);
  }
  return result;
}

}  // namespace quern
