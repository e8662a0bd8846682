// A LoRA adapter under a name of its own, over the socket, against the reference's logits.
#include <cmath>

#include "formats/safetensors.h"
#include "serve/test_server.h"

namespace quern::test {
namespace {

// Log-probability of each id but the first, by the definition, from logits [tokens, vocab].
std::vector<double> expected_logprobs(std::span<const float> logits, const std::vector<int>& ids) {
  const size_t vocab = logits.size() / ids.size();
  std::vector<double> out;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = logits.subspan(i * vocab, vocab);
    double sum = 0;
    for (const float x : row) sum += std::exp(double{x});
    out.push_back(row[static_cast<size_t>(ids[i + 1])] - std::log(sum));
  }
  return out;
}

TEST(Adapters, EachNameGivesTheReferencesLogits) {
  const fs::path own = source("tests/fixtures/models/qwen1-lora");
  const fs::path folder = fs::exists(own) ? own : shared("fixtures/models/qwen1-lora");
  QUERN_NEED(folder);
  const TempFolder temporary;
  const fs::path model = temporary.path() / "model";
  fs::copy(folder, model, fs::copy_options::recursive);
  temporary.write("model/tokenizer.json", byte_tokenizer_json());

  serve::ServeOptions options = tiny_options();
  options.models[0].name = "base";
  options.models[0].folder = model;
  serve::ModelSource adapted = options.models[0];
  adapted.name = "adapted";
  adapted.options.adapters = {model / "adapter"};
  options.models.push_back(adapted);
  TestServer server(std::move(options));
  EXPECT_EQ(server.get("/v1/models").parsed()["data"].size(), 2u);

  const SafetensorsFile golden(folder / "golden.safetensors");
  const auto ids = to_integers(golden.at("input_ids"), "input_ids");
  const size_t length = ids.size() / 2;
  for (const auto& [name, tensor] :
       {std::pair{"base", "base.logits"}, std::pair{"adapted", "adapter.logits"}}) {
    const std::vector<float> logits = to_floats(golden.at(tensor), tensor);
    for (size_t row = 0; row < 2; ++row) {
      const auto first = ids.begin() + static_cast<int64_t>(row * length);
      const std::vector<int> prompt(first, first + static_cast<int64_t>(length));
      const Answer answer = server.post("/v1/completions", {{"model", name},
                                                            {"prompt", prompt},
                                                            {"max_tokens", 0},
                                                            {"echo", true},
                                                            {"logprobs", 0}});
      ASSERT_EQ(answer.status, 200) << answer.body;
      const json got = answer.parsed()["choices"][0]["logprobs"]["token_logprobs"];
      const auto expected = expected_logprobs(
          std::span(logits).subspan(row * logits.size() / 2, logits.size() / 2), prompt);
      ASSERT_EQ(got.size(), length);
      for (size_t i = 1; i < length; ++i) {
        EXPECT_NEAR(got[i].get<double>(), expected[i - 1], 4e-3) << name << " " << row << " " << i;
      }
    }
  }
  // Nobody takes over what the other computed: the keys are not the same.
  const json body = {{"prompt", json(std::vector<int>(150, 7))}, {"max_tokens", 1}};
  for (const char* name : {"base", "adapted"}) {
    json named = body;
    named["model"] = name;
    const json usage = server.post("/v1/completions", named).parsed()["usage"];
    EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 0) << name;
  }
}

}  // namespace
}  // namespace quern::test
