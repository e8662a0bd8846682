// A published model, SmolLM2-135M-Instruct as Q4_1, against the reference implementation with the
// same weights. The weights are in nobody's tree: they are looked for where `QUERN_PUBLISHED` says,
// or in the user's cache.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cli/program.h"
#include "core/json.h"
#include "formats/safetensors.h"
#include "support/support.h"

namespace quern::test {
namespace {

class Published : public ::testing::Test {
 protected:
  void SetUp() override {
    model = test::published_model();
    QUERN_NEED_PUBLISHED(model);
    goldens = shared("fixtures/published/smollm2-135m-instruct");
    QUERN_NEED(goldens);
  }

  // [ids, vocab]
  std::vector<float> logits(const std::vector<int64_t>& ids, const std::string& dtype) {
    const fs::path list = folder.write("ids.json", dump(nlohmann::json(ids)));
    const fs::path out = folder.path() / "logits.safetensors";
    const Outcome got = quern({"logits", model.string(), "--ids-file", list.string(), "--out",
                               out.string(), "--force", "--dtype", dtype});
    EXPECT_EQ(got.code, 0) << got.err;
    return to_floats(SafetensorsFile(out).tensors()[0].view, "logits");
  }

  fs::path model, goldens;
  TempFolder folder;
};

std::vector<double> log_probabilities(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float value : logits) sum += std::exp(value - most);
  std::vector<double> out;
  for (const float value : logits) out.push_back(value - most - std::log(sum));
  return out;
}

size_t best(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST_F(Published, Float32MeetsTheReferencesLogits) {
  const SafetensorsFile golden(goldens / "logits.safetensors");
  for (int prompt = 0; prompt < 6; ++prompt) {
    const std::string name = "prompt" + std::to_string(prompt);
    const auto ids = to_integers(golden.at(name + ".ids"), name);
    const std::vector<float> got = logits(ids, "float32");
    const size_t vocab = got.size() / ids.size();
    const ConstTensorView last = golden.at(name + ".last_logits");
    const std::vector<float> want = to_floats(last, name);
    check_close(std::span(got).last(want.size()), want, {5e-3, 0}, name);
    const auto sums = to_floats(golden.at(name + ".logsumexp"), name);
    for (size_t row = 0; row < ids.size(); ++row) {
      const auto line = std::span(got).subspan(row * vocab, vocab);
      EXPECT_NEAR(line[0] - log_probabilities(line)[0], sums[row], 5e-3) << name << " " << row;
    }
    if (!golden.find(name + ".top64_ids")) continue;
    const auto tops = to_integers(golden.at(name + ".top64_ids"), name);
    const auto values = to_floats(golden.at(name + ".top64_logits"), name);
    for (size_t i = 0; i < tops.size(); ++i) {
      EXPECT_NEAR(got[i / 64 * vocab + static_cast<size_t>(tops[i])], values[i], 5e-3) << name;
    }
  }
}

// Log-probabilities of whole passages: within the bounds of float32, and as shipped within those
// of activations of eight bits.
TEST_F(Published, PassagesAreAsLikelyAsTheReferenceSays) {
  const SafetensorsFile golden(goldens / "passages.safetensors");
  for (const std::string dtype : {"float32", "auto"}) {
    const bool exact = dtype == "float32";
    int64_t positions = 0, same = 0;
    for (const NamedTensor& tensor : golden.tensors()) {
      // The longest would take its minutes.
      if (!tensor.name.ends_with(".ids") || tensor.view.shape[0] > 1000) continue;
      const std::string name = tensor.name.substr(0, tensor.name.size() - 4);
      const auto ids = to_integers(tensor.view, name);
      const auto want = to_floats(golden.at(name + ".logprobs"), name);
      const auto argmax = to_integers(golden.at(name + ".argmax"), name);
      const auto margin = to_floats(golden.at(name + ".margin"), name);
      const std::vector<float> got = logits(ids, dtype);
      const size_t vocab = got.size() / ids.size();
      double total = 0, nll = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        const auto line = std::span(got).subspan(i * vocab, vocab);
        const double p = log_probabilities(line)[static_cast<size_t>(ids[i + 1])];
        const double off = std::abs(p - static_cast<double>(want[i]));
        EXPECT_LE(off, exact ? 5e-3 : 2.5) << name << " " << i;
        total += off;
        nll += p - static_cast<double>(want[i]);
        ++positions;
        same += best(line) == static_cast<size_t>(argmax[i]);
        if (margin[i] > (exact ? 5e-3f : 0.8f)) {
          EXPECT_EQ(best(line), static_cast<size_t>(argmax[i])) << name << " " << i;
        }
      }
      const auto count = static_cast<double>(want.size());
      EXPECT_LE(total / count, exact ? 2e-4 : 0.054) << name;
      EXPECT_LE(std::abs(nll / count), exact ? 2e-4 : 0.02) << name;
    }
    EXPECT_GE(static_cast<double>(same), (exact ? 0.998 : 0.969) * static_cast<double>(positions));
  }
}

TEST_F(Published, Float32TakesTheReferencesGreedyPaths) {
  const Json golden = Json::parse_file((goldens / "greedy.json").string());
  std::vector<Json> cases;
  const Json list = golden.is_array() ? golden : golden.at("cases");
  for (const Json& item : list.items()) cases.push_back(item);
  ASSERT_FALSE(cases.empty());
  for (const Json& item : cases) {
    const fs::path prompt = folder.write("ids.json", dump(item.at("prompt_ids").raw()));
    const Outcome got = quern({"generate", model.string(), "--ids-file", prompt.string(), "-n",
                               "64", "--greedy", "--ignore-eos", "--json", "--dtype", "float32"});
    ASSERT_EQ(got.code, 0) << got.err;
    const auto ids = Json::parse(got.out, "out").at("ids").items();
    const auto want = item.at("greedy_ids").items();
    const auto margins = item.at("margins").items();
    for (size_t i = 0; i < want.size(); ++i) {
      if (margins[i].number() < 5e-3) break;
      ASSERT_EQ(ids[i].integer(), want[i].integer()) << i;
    }
  }
}

TEST_F(Published, OtherCommandsTakeIt) {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"inspect", model.string()}, {"verify", model.string()}}) {
    const Outcome got = quern(command);
    EXPECT_EQ(got.code, 0) << command[0] << got.err;
  }
}

// By ReAct under a grammar: its template knows no tools.
TEST_F(Published, CallsTheCalculator) {
  const Outcome outcome =
      quern({"agent", "--model", model.string(), "--json", "What is 17.5% of 2340 plus 12?"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("\"name\": \"calculator\", \"text\": \"421.5\""), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("\"type\": \"final\", \"step\": 2, \"text\": \"421.5\""),
            std::string::npos)
      << outcome.out;
}

}  // namespace
}  // namespace quern::test
