// quern gradients --adapter against PEFT's gradients and its tensors after a step of AdamW.
#include "cli/program.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"

namespace quern::test {
namespace {

class AdapterGradients : public ::testing::TestWithParam<const char*> {};

// Writes some of a file's tensors to another.
void copy_tensors(const TensorStore& from, const std::vector<std::string>& names,
                  const fs::path& to) {
  std::vector<PlannedTensor> plan;
  for (const std::string& name : names) {
    plan.push_back({name, from.at(name).dtype, from.at(name).shape});
  }
  SafetensorsWriter writer(to, plan);
  for (const std::string& name : names) {
    writer.write({from.at(name).data, from.at(name).size_bytes()});
  }
  writer.finish();
}

TEST_P(AdapterGradients, AreThoseOfTheReference) {
  const fs::path folder = source("tests/fixtures/models") / GetParam();
  const TensorStore golden = TensorStore::open(folder / "golden.safetensors");
  const TempFolder temporary;
  const fs::path batch = temporary.path() / "batch.safetensors";
  const fs::path out = temporary.path() / "out.safetensors";
  copy_tensors(golden, {"input_ids", "labels"}, batch);
  const Outcome outcome = quern({"gradients", folder.string(), "--adapter",
                                 (folder / "adapter").string(), "--batch", batch.string(), "--out",
                                 out.string(), "--steps", "1", "--lr", "3e-3", "--decay", "all"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const TensorStore got = TensorStore::open(out);
  const auto compare = [&](const std::string& name, const std::string& ours, Tolerance tolerance) {
    SCOPED_TRACE(name);
    check_close(to_floats(got.at(ours), ours), to_floats(golden.at(name), name), tolerance, name);
  };
  compare("train.loss", "loss", {1e-4, 0});
  int gradients = 0, after = 0;
  for (const std::string& name : golden.names()) {
    // What is trained in full has PEFT's inner name in the golden, the file's name here.
    std::string plain = name;
    if (const size_t at = plain.find(".modules_to_save"); at != plain.npos) plain.erase(at, 16);
    if (plain.starts_with("train.grad.")) {
      compare(name, plain.substr(11), {1e-5, 1e-3});
      ++gradients;
    } else if (plain.starts_with("train.after1.")) {
      compare(name, "after." + plain.substr(13), {5e-5, 0});
      ++after;
    }
  }
  EXPECT_GE(gradients, 20);
  const bool steps = std::string_view(GetParam()) != "qwen1-qlora";  // that golden has none
  EXPECT_EQ(after, steps ? gradients : 0);
}

INSTANTIATE_TEST_SUITE_P(Cases, AdapterGradients,
                         ::testing::Values("qwen1-lora", "qwen1-lora-saved-modules",
                                           "qwen1-qlora"));

}  // namespace
}  // namespace quern::test
