// Perplexity over windows of a text.
#include "evaluate/perplexity.h"

#include "formats/safetensors.h"
#include "generate/model.h"
#include "support/support.h"

namespace quern {
namespace {

// Perplexity from log-probabilities that the engine gives for the same continuation.
TEST(Perplexity, AgreesWithLogprobs) {
  const fs::path folder = test::case_folder("qwen1-longctx-both");
  QUERN_NEED(folder);
  Model model(folder);
  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto wide = to_integers(golden.at("input_ids"), "input_ids");
  const std::vector<TokenId> ids(wide.begin(), wide.end());
  const auto text = std::span<const TokenId>(ids).first(50);
  KvCache cache(model.backend(), model.config(), DType::F32, 64);
  Runner runner(model.network(), 64, 64);
  const auto logprobs = token_logprobs(model, runner, cache, text);
  double nll = 0;
  for (const float logprob : logprobs) nll -= logprob;
  const PerplexityResult result = perplexity(model, text, 64, 64);
  EXPECT_EQ(result.tokens, 49);
  EXPECT_NEAR(result.nll, nll, 1e-4);
  // Windows of half the length predict one token fewer for each further window.
  EXPECT_EQ(perplexity(model, text, 25, 25).tokens, 48);
  EXPECT_EQ(perplexity(model, text, 25, 5).tokens, 49);
}

}  // namespace
}  // namespace quern
