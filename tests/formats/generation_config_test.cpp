#include "formats/generation_config.h"

#include "support/support.h"

namespace quern {
namespace {

std::string said_of(const std::string& config) {
  const test::TempFolder folder;
  folder.write("generation_config.json", config);
  testing::internal::CaptureStderr();
  read_generation_config(folder.path());
  return testing::internal::GetCapturedStderr();
}

TEST(GenerationConfig, WarnsOfWhatChangesAnswersAndIsNotDone) {
  const std::string said = said_of(
      R"({"num_beams": 4, "suppress_tokens": [7], "min_length": 3, "top_k": 5, "frob": "x"})");
  EXPECT_NE(said.find("without effect: frob, min_length, num_beams, suppress_tokens"),
            std::string::npos)
      << said;
}

TEST(GenerationConfig, SaysNothingOfDefaults) {
  EXPECT_EQ(said_of(R"({"num_beams": 1, "suppress_tokens": [], "bad_words_ids": null,
                        "guidance_scale": 1.0, "min_length": 0, "max_length": 4096,
                        "_from_model_config": true, "transformers_version": "4.40.0",
                        "use_cache": true, "do_sample": true, "temperature": 0.6})"),
            "");
}

}  // namespace
}  // namespace quern
