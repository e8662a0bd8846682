#include "support/support.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/rng.h"

namespace quern::test {

fs::path shared(std::string_view relative) {
  // The whole collection if it is there (QUERN_SHARED in the environment names another place); else
  // what may be given on, in the repository, and what scripts/get-model fetches.
  const char* folder = std::getenv("QUERN_SHARED");
  const fs::path whole = fs::path(folder != nullptr ? folder : QUERN_SHARED_DIR) / relative;
  if (fs::exists(whole)) return whole;
  if (relative == "fixtures/tokenizer/qwen.tiktoken") {
    return source("models/qwen-vocabulary/qwen.tiktoken");
  }
  const fs::path own = source("tests") / relative;
  return relative.starts_with("fixtures/") && fs::exists(own) ? own : whole;
}

fs::path published_model() {
  constexpr const char* kFile = "SmolLM2-135M-Instruct.Q4_1.gguf";
  std::vector<fs::path> places;
  if (const char* named = std::getenv("QUERN_PUBLISHED")) places.emplace_back(named);
  if (const char* cache = std::getenv("XDG_CACHE_HOME")) {
    places.push_back(fs::path(cache) / "quern/models");
  }
  if (const char* home = std::getenv("HOME")) {
    places.push_back(fs::path(home) / ".cache/quern/models");
  }
  for (const fs::path& place : places) {
    for (const fs::path& file : {place / kFile, place / "SmolLM2-135M-Instruct" / kFile}) {
      if (fs::exists(file)) return file;
    }
  }
  return {};
}

fs::path source(std::string_view relative) { return fs::path(QUERN_SOURCE_DIR) / relative; }

const char* program_path() { return QUERN_PROGRAM; }

fs::path case_folder(std::string_view name) {
  return shared("fixtures/models/" + std::string(name));
}

TempFolder::TempFolder() {
  static std::atomic<int> next{0};
  path_ = fs::temp_directory_path() /
          ("quern-test-" + std::to_string(::getpid()) + "-" + std::to_string(next++));
  fs::create_directories(path_);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path TempFolder::write(std::string_view name, std::string_view content) const {
  const fs::path file = path_ / name;
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << content;
  return file;
}

void check_close(std::span<const float> got, std::span<const float> want, Tolerance tolerance,
                 std::string_view what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 0;
  size_t worst_at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double allowed =
        tolerance.absolute + tolerance.relative * std::abs(static_cast<double>(want[i]));
    const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
    const double excess = std::isfinite(difference) ? difference - allowed : INFINITY;
    if (excess > worst) {
      worst = excess;
      worst_at = i;
    }
  }
  EXPECT_EQ(worst, 0) << what << ": element " << worst_at << " is " << got[worst_at]
                      << ", expected " << want[worst_at];
}

std::vector<float> random_floats(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(count);
  for (float& value : out) value = static_cast<float>(2 * rng.uniform() - 1);
  return out;
}

void expect_error(const std::function<void()>& action, Kind kind,
                  const std::vector<std::string>& parts) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.line();
    for (const std::string& part : parts) {
      EXPECT_NE(error.line().find(part), std::string::npos)
          << "'" << part << "' is not in: " << error.line();
    }
    return;
  }
  ADD_FAILURE() << "no error was thrown";
}

}  // namespace quern::test
