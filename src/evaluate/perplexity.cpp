#include "evaluate/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/divergence.h"

namespace quern {
namespace {

constexpr int64_t kChunk = 512;
constexpr int64_t kLogitRows = 32;

}  // namespace

double PerplexityResult::perplexity() const {
  return tokens == 0 ? 0 : std::exp(nll / static_cast<double>(tokens));
}

std::vector<float> token_logprobs(Model& model, Runner& runner, KvCache& cache,
                                  std::span<const TokenId> ids) {
  Sequence sequence(cache, model.config(), model.engine_options().rules,
                    static_cast<int64_t>(ids.size()));
  return token_logprobs(model, runner, cache, sequence, ids);
}

std::vector<float> token_logprobs(Model& model, Runner& runner, KvCache& cache, Sequence& sequence,
                                  std::span<const TokenId> ids) {
  const auto length = static_cast<int64_t>(ids.size());
  sequence.reserve(length);
  std::vector<float> out(ids.size() - 1);
  const int64_t chunk = std::min(runner.max_tokens(), length);
  for (int64_t begin = 0; begin < length; begin += chunk) {
    const int64_t count = std::min(chunk, length - begin);
    const BatchItem item = {&sequence, ids.subspan(size_t(begin), size_t(count))};
    const ConstRows hidden = runner.forward({&item, 1}, cache, Runner::Want::All);
    for (int64_t row = 0; row < count; row += runner.max_logits()) {
      const int64_t rows = std::min(runner.max_logits(), count - row);
      const MutRows logits = runner.logits(hidden.slice(row, row + rows));
      // Rows are independent: the threads share them.
      model.pool().parallel_for(rows, 1, [&](int64_t first, int64_t last, int) {
        for (int64_t r = first; r < last; ++r) {
          const int64_t position = begin + row + r;
          if (position + 1 >= length) continue;
          const std::span<const float> line(logits.row(r), static_cast<size_t>(logits.cols));
          const TokenId next = ids[static_cast<size_t>(position + 1)];
          out[static_cast<size_t>(position)] = static_cast<float>(
              static_cast<double>(line[static_cast<size_t>(next)]) - log_sum_exp(line));
        }
      });
    }
  }
  return out;
}

PerplexityResult perplexity(Model& model, std::span<const TokenId> ids, int64_t length,
                            int64_t stride, const std::function<void(int64_t)>& on_progress) {
  if (length < 2 || stride < 1 || stride > length) {
    throw Error(Kind::Misused,
                "a perplexity window needs at least 2 tokens and a stride of 1 up "
                "to its length");
  }
  check_ids(ids, model.config(), "the text");
  for (const TokenId id : ids) {
    if (id < model.config().output_vocab) continue;
    throw_bad_input(fmt::format("the text has the id {}, which the model never predicts", id));
  }
  if (ids.size() < 2) throw_bad_input("the text has fewer than 2 tokens");
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t window = std::min(length, total);
  const bool chunked = kv_policy(model.engine_options().kv_type).chunked;
  KvCache cache(model.backend(), model.config(), model.engine_options().kv_type, window, 1);
  Runner runner(model.network(), chunked ? std::min(kChunk, window) : window, kLogitRows);
  PerplexityResult result;
  int64_t predicted = 0;  // positions below this have been counted
  for (int64_t begin = 0; begin + 1 < total; begin += stride) {
    const int64_t end = std::min(begin + window, total);
    const auto logprobs =
        token_logprobs(model, runner, cache, ids.subspan(size_t(begin), size_t(end - begin)));
    for (int64_t position = std::max(begin + 1, predicted); position < end; ++position) {
      const float logprob = logprobs[static_cast<size_t>(position - begin - 1)];
      if (!std::isfinite(logprob)) model.explain_nonfinite();
      result.nll -= logprob;
      ++result.tokens;
    }
    predicted = end;
    if (on_progress) on_progress(end);
    if (end == total) break;
  }
  return result;
}

}  // namespace quern
