// What tests of every module share: where fixtures lie, temporary folders, tolerances.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace quern::test {

namespace fs = std::filesystem;

// A file or folder of the fixtures and data, e.g. shared("fixtures/models/qwen1-new"): in the folder
// that CMake's QUERN_SHARED names, else the repository's own or what scripts/get-model fetched.
fs::path shared(std::string_view relative);

// SmolLM2-135M-Instruct as Q4_1, whose weights are in nobody's tree: in the folder that
// QUERN_PUBLISHED names, or in the user's cache. Empty where it is in neither.
fs::path published_model();

// A file of the repository, e.g. source("tests/fixtures/...").
fs::path source(std::string_view relative);

// The built quern; empty where the program is not built.
const char* program_path();

// The folder of a golden case.
fs::path case_folder(std::string_view name);

// A folder that is removed at the end of the scope.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const fs::path& path() const { return path_; }
  fs::path write(std::string_view name, std::string_view content) const;

 private:
  fs::path path_;
};

struct Tolerance {
  double absolute = 0;
  double relative = 0;
};

// |got - want| <= absolute + relative * |want| for every element; reports the worst.
void check_close(std::span<const float> got, std::span<const float> want, Tolerance tolerance,
                 std::string_view what);

// Uniform in [-1, 1), the same for the same seed.
std::vector<float> random_floats(size_t count, uint64_t seed);

// Runs `action`, which must throw an Error of `kind` whose line contains every one of `parts`.
void expect_error(const std::function<void()>& action, Kind kind,
                  const std::vector<std::string>& parts);

}  // namespace quern::test

// Skips the test with a clear word when a fixture that the repository may not hold is absent.
#define QUERN_NEED(path)                                                    \
  do {                                                                      \
    if (!std::filesystem::exists(path)) {                                   \
      GTEST_SKIP() << "skipped: needs " << (path).string() << ", not here"; \
    }                                                                       \
  } while (false)

// Skips the test where the published model's file is absent; `path` is published_model().
#define QUERN_NEED_PUBLISHED(path)                                                             \
  do {                                                                                         \
    if ((path).empty()) {                                                                      \
      GTEST_SKIP() << "skipped: SmolLM2-135M-Instruct is not here (scripts/get-model has it)"; \
    }                                                                                          \
  } while (false)
