// Curves of runs as a user draws them.
#include <gtest/gtest.h>

#include "cli/program.h"
#include "core/file.h"

namespace quern::test {
namespace {

const std::string kHeader = "step,tokens,seconds,loss,lr,grad_norm,tokens_per_s,share_of_peak\n";
const std::string kRows = "1,64,0.1,6.2,1e-4,1.5,640,0.5\n2,128,0.2,6.1,2e-4,1.4,640,0.5\n";

class Plot : public testing::Test {
 protected:
  TempFolder temp_;

  Outcome plot(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "plot");
    return quern(std::move(arguments), {.folder = temp_.path()});
  }
  void expect_refused(const std::string& csv, const std::string& part) {
    temp_.write("bad/metrics.csv", csv);
    const Outcome outcome = plot({"bad"});
    EXPECT_EQ(outcome.code, 3) << outcome.err;
    EXPECT_NE(outcome.err.find("metrics.csv"), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    EXPECT_FALSE(fs::exists(temp_.path() / "bad/curves.svg"));
  }
};

TEST_F(Plot, OfARunLiesInItsFolder) {
  temp_.write("run/metrics.csv", kHeader + kRows);
  temp_.write("run/validation.csv",
              "step,tokens,source,loss,bits_per_byte\n2,128,books,5.5,2\n2,128,tales,5.1,2\n");
  const Outcome outcome = plot({"run"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "run/curves.svg\n");
  const std::string svg = read_file(temp_.path() / "run/curves.svg");
  for (const char* word : {"Training loss", ">books<", ">tales<", "Learning rate"}) {
    EXPECT_NE(svg.find(word), svg.npos) << word;
  }
}

TEST_F(Plot, SeveralRunsAreNamed) {
  temp_.write("a/metrics.csv", kHeader + kRows);
  temp_.write("b/metrics.csv", kHeader + kRows);
  ASSERT_EQ(plot({"a", "b/", "--out", "both.svg", "--over", "step"}).code, 0);
  const std::string svg = read_file(temp_.path() / "both.svg");
  for (const char* word : {">a<", ">b<", ">step<"}) EXPECT_NE(svg.find(word), svg.npos) << word;
}

TEST_F(Plot, ALineThatIsStillBeingWrittenWaits) {
  temp_.write("run/metrics.csv", kHeader + kRows);
  ASSERT_EQ(plot({"run"}).code, 0);
  const std::string whole = read_file(temp_.path() / "run/curves.svg");
  temp_.write("run/metrics.csv", kHeader + kRows + "3,19");
  ASSERT_EQ(plot({"run"}).code, 0);
  EXPECT_EQ(read_file(temp_.path() / "run/curves.svg"), whole);
}

TEST_F(Plot, OverwritesNothingButItsOwnPicture) {
  temp_.write("run/metrics.csv", kHeader + kRows);
  temp_.write("mine.svg", "mine");
  const Outcome refused = plot({"run", "--out", "mine.svg"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(refused.err,
            "quern: mine.svg: exists already (name another one, or --force to replace it)\n");
  EXPECT_EQ(read_file(temp_.path() / "mine.svg"), "mine");
  EXPECT_EQ(plot({"run", "--out", "mine.svg", "--force"}).code, 0);
  EXPECT_NE(read_file(temp_.path() / "mine.svg"), "mine");
  EXPECT_EQ(plot({"run"}).code, 0);
  EXPECT_EQ(plot({"run"}).code, 0);
}

TEST_F(Plot, AFolderThatIsMissingIsNamedAndNotATemporaryFile) {
  temp_.write("run/metrics.csv", kHeader + kRows);
  for (const char* ending : {"svg", "png"}) {
    const Outcome outcome = plot({"run", "--out", std::string("nowhere/x.") + ending});
    EXPECT_EQ(outcome.code, 3) << outcome.err;
    EXPECT_EQ(outcome.err.find("tmp"), std::string::npos) << outcome.err;
  }
}

TEST_F(Plot, WhatIsNoRunIsRefused) {
  fs::create_directory(temp_.path() / "empty");
  const Outcome outcome = plot({"empty"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("empty: holds no metrics.csv"), std::string::npos) << outcome.err;
  expect_refused(kHeader + "1,2,3\n", "line 2 has 3 columns");
  expect_refused(kHeader + "1,64,0.1,six,1e-4,1.5,640,0.5\n", "no number under loss");
  expect_refused("step,tokens\n1,2\n", "has no column loss");
}

}  // namespace
}  // namespace quern::test
