// What packaging/ holds for several machines: a balancer that works, files that are well formed.
#include "cli/program.h"
#include "core/file.h"
#include "tools/yaml.h"

namespace quern::test {
namespace {

TEST(Packaging, HaproxyKeepsPrefixesTogetherAndLosesNothing) {
  if (run({"bash", "-c", "command -v haproxy curl >/dev/null"}, {}).code != 0) {
    GTEST_SKIP() << "no haproxy here";
  }
  const TempFolder folder;
  const Outcome outcome =
      run({"bash", source("tests/cli/haproxy.sh").string(), program_path(),
           source("models/quern-mini").string(), source("packaging/haproxy.cfg").string()},
          {.folder = folder.path()});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("before 30 of 30"), std::string::npos) << outcome.out;
  // One request at a time is under way, so the kill may cost one.
  const size_t at = outcome.out.find("after ");
  ASSERT_NE(at, std::string::npos) << outcome.out;
  EXPECT_GE(std::stoi(outcome.out.substr(at + 6)), 23) << outcome.out;
  // Five questions to each prefix: four of five find it, but for their own few tokens.
  const int hits = std::stoi(outcome.out.substr(outcome.out.find("hits ") + 5));
  EXPECT_GE(hits, 64) << outcome.out;
  // Both servers had work.
  EXPECT_EQ(outcome.out.find("one 0 "), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("two 0\n"), std::string::npos) << outcome.out;
}

TEST(Packaging, KubernetesManifestsAndSlurmScriptsAreWellFormed) {
  for (const char* name : {"serve", "pretrain"}) {
    const fs::path file = source("packaging/kubernetes") / (std::string(name) + ".yaml");
    const std::string text = read_file(file);
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find("\n---\n", at), text.size());
      const OrderedJson object = parse_yaml(text.substr(at, end - at), file.string());
      for (const char* field : {"apiVersion", "kind", "metadata", "spec"}) {
        EXPECT_NE(object.find(field), nullptr) << file << " " << field;
      }
      at = end + 5;
    }
  }
  for (const char* name : {"pretrain.sbatch", "filter.sbatch"}) {
    const fs::path file = source("packaging/slurm") / name;
    EXPECT_EQ(run({"bash", "-n", file.string()}, {}).code, 0) << file;
    EXPECT_EQ(run({"bash", file.string()}, {}).code, 1) << file;  // says how it is used
  }
}

}  // namespace
}  // namespace quern::test
