// Reads every #include of the source and fails on one that points up: docs/layout.md, "Who may
// include whom".
#include <fstream>
#include <map>
#include <set>

#include "support/support.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::vector<std::string>> kUses = {
    {"core", {}},
    {"plot", {"core"}},
    {"net", {"core"}},
    {"formats", {"core"}},
    {"compute", {"core"}},
    {"text", {"formats"}},
    {"model", {"compute", "formats"}},
    {"data", {"agent"}},
    {"quantize", {"model"}},
    {"grammar", {"text"}},
    {"generate", {"model", "text", "grammar"}},
    {"agent", {"text", "grammar"}},
    {"evaluate", {"answer", "agent", "sandbox", "plot"}},
    {"sandbox", {"core"}},
    {"answer", {"generate", "agent", "net"}},
    {"tools", {"agent", "sandbox", "net"}},
    {"loop", {"answer", "tools"}},
    {"train", {"model", "data"}},
    {"serve", {"generate", "agent"}},
    {"cli", {"evaluate", "loop", "serve", "train", "quantize", "plot"}},
};

// The modules that `module` may include: itself, what it uses, and what those use.
void collect(const std::string& module, std::set<std::string>& allowed) {
  if (!allowed.insert(module).second) return;
  for (const std::string& used : kUses.at(module)) collect(used, allowed);
}

TEST(Layering, IncludesPointDownOnly) {
  int includes = 0;
  const fs::path root = test::source("src");
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    const fs::path relative = entry.path().lexically_relative(root);
    const std::string module = relative.begin()->string();
    ASSERT_TRUE(kUses.contains(module)) << module << " is not in docs/layout.md";
    std::set<std::string> allowed;
    collect(module, allowed);
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("#include \"")) continue;
      const std::string path = line.substr(10, line.find('"', 10) - 10);
      const std::string target = path.substr(0, path.find('/'));
      if (!kUses.contains(target)) continue;
      ++includes;
      EXPECT_TRUE(allowed.contains(target)) << relative.string() << " includes " << path;
    }
  }
  EXPECT_GT(includes, 100);
}

}  // namespace
}  // namespace quern
