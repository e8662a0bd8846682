// Golden cases, one JSON object a line.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "text/tokenizer.h"

namespace quern::test {

inline std::vector<Json> golden_lines(const fs::path& path) {
  std::vector<Json> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    out.push_back(
        Json::parse(line, path.filename().string() + ":" + std::to_string(out.size() + 1)));
  }
  EXPECT_FALSE(out.empty()) << path;
  return out;
}

inline std::vector<TokenId> ids_of(const Json& list) {
  std::vector<TokenId> ids;
  for (const Json& id : list.items()) ids.push_back(static_cast<TokenId>(id.integer()));
  return ids;
}

}  // namespace quern::test
