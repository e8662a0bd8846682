// What a sandboxed program can and cannot do, judged from outside.
#include "sandbox/sandbox.h"

#include <csignal>
#include <fstream>

#include "core/json.h"
#include "sandbox/python.h"
#include "support/support.h"

namespace quern {
namespace {

SandboxOutcome python(const std::string& program, SandboxLimits limits = {}) {
  return run_sandboxed({"python3", "-I", "-c", program}, limits);
}

// Machines without user namespaces skip; where they are, nothing does.
bool available() {
  try {
    run_sandboxed({"true"}, {});
    return true;
  } catch (const Error& error) {
    return error.kind() != Kind::Unsupported;
  }
}

#define QUERN_NEED_SANDBOX() \
  if (!available()) GTEST_SKIP() << "skipped: needs unprivileged user namespaces, not here"

TEST(Sandbox, TellsHowAProgramEnded) {
  QUERN_NEED_SANDBOX();
  const SandboxOutcome three = run_sandboxed({"sh", "-c", "echo out; echo err >&2; exit 3"}, {});
  EXPECT_EQ(three.exit, 3);
  EXPECT_EQ(three.signal, 0);
  EXPECT_EQ(three.out, "out\n");
  EXPECT_EQ(three.err, "err\n");
  const SandboxOutcome killed = run_sandboxed({"sh", "-c", "kill -TERM $$"}, {});
  EXPECT_EQ(killed.exit, -1);
  EXPECT_EQ(killed.signal, SIGTERM);
  EXPECT_EQ(run_sandboxed({"sh", "-c", "exit 137"}, {}).exit,
            137);  // no signal, though it looks so
  EXPECT_EQ(run_sandboxed({"no-such-program"}, {}).exit, 127);
}

TEST(Sandbox, ClocksEndAProgram) {
  QUERN_NEED_SANDBOX();
  SandboxLimits limits;
  limits.wall_seconds = 0.5;
  EXPECT_TRUE(run_sandboxed({"sleep", "30"}, limits).timed_out);
  limits.wall_seconds = 20;
  limits.cpu_seconds = 0.5;
  const SandboxOutcome busy = python("while True: pass", limits);
  EXPECT_TRUE(busy.timed_out);
  // Children that share the work share the limit.
  EXPECT_TRUE(
      python("import os\nfor i in range(3): os.fork()\nwhile True: pass", limits).timed_out);
}

TEST(Sandbox, SizesAreBounded) {
  QUERN_NEED_SANDBOX();
  SandboxLimits limits;
  limits.output_bytes = 1000;
  const SandboxOutcome loud = python("print('x' * 5000)", limits);
  EXPECT_EQ(loud.out.size(), 1000u);
  EXPECT_TRUE(loud.truncated);
  limits.memory_bytes = 128 << 20;
  EXPECT_NE(python("x = bytearray(1 << 30)", limits).exit, 0);
  EXPECT_NE(python("open('f', 'wb').write(b'x' * (1 << 25))").exit, 0);
  // Files together, too.
  EXPECT_NE(python("for i in range(9): open(str(i), 'wb').write(b'x' * (1 << 23))").exit, 0);
}

TEST(Sandbox, SeesNothingOfTheCaller) {
  QUERN_NEED_SANDBOX();
  ::setenv("QUERN_TEST_SECRET", "sesame", 1);
  const test::TempFolder folder;
  const fs::path canary = folder.write("canary", "sesame");
  const SandboxOutcome outcome = python(
      "import os, glob\n"
      "print(os.environ.get('QUERN_TEST_SECRET'))\n"
      "print(os.path.exists('" +
      canary.string() +
      "'), os.path.exists('/root'), os.path.exists('/home'))\n"
      "print(len(glob.glob('/proc/[0-9]*')) <= 2)\n");
  EXPECT_EQ(outcome.out, "None\nFalse False False\nTrue\n") << outcome.err;
  ::unsetenv("QUERN_TEST_SECRET");
}

// The attacks of the fixtures that need no listener outside and no time limit to run out.
TEST(Sandbox, EscapeAttemptsFail) {
  QUERN_NEED_SANDBOX();
  std::ifstream file(test::source("tests/fixtures/evaluation/escapes.jsonl"));
  int tried = 0;
  for (std::string line; std::getline(file, line);) {
    const Json attack = Json::parse(line, "escapes.jsonl");
    if (attack.at("via").string() != "sandbox" || attack.at("dangerous").boolean()) continue;
    const Json check = attack.at("check");
    std::string program = attack.at("program").string();
    if (check.has("timed_out") || check.has("within") || program.find('@') != program.npos)
      continue;
    SandboxLimits limits;
    limits.wall_seconds = 5;
    const SandboxOutcome outcome = python(program, limits);
    ++tried;
    const std::string name = attack.at("name").string();
    if (const auto lacks = check.find("stdout_lacks")) {
      for (const Json& word : lacks->items()) {
        EXPECT_EQ(outcome.out.find(word.string()), std::string::npos) << name << outcome.out;
      }
    }
    if (const auto exit = check.find("exit")) {
      EXPECT_EQ(outcome.exit, exit->integer()) << name;
    }
  }
  EXPECT_GE(tried, 8);
}

TEST(Sandbox, WithoutNamespacesHomeIsTheFolderOfTheRun) {
  const SandboxOutcome outcome = run_sandboxed(
      {"sh", "-c", "[ \"$HOME\" -ef . ] && [ \"$HOME\" != /tmp ]"}, {}, {.unsafe = true});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
}

TEST(SandboxPython, OnlyTheEndOfTheProgramCounts) {
  QUERN_NEED_SANDBOX();
  if (!fs::exists("/usr/bin/python3")) GTEST_SKIP() << "skipped: needs python3";
  const auto passes = [](const std::string& program) {
    return run_python(program, {}).reached_end;
  };
  EXPECT_TRUE(passes("assert 6 * 7 == 42"));
  EXPECT_FALSE(passes("assert 6 * 7 == 41"));
  EXPECT_FALSE(passes("import os; os._exit(0)"));
  EXPECT_FALSE(passes("raise SystemExit(0)"));
  EXPECT_FALSE(passes("import atexit, os; atexit.register(os._exit, 0); assert False"));
  EXPECT_FALSE(passes("import os; os.write(3, b'passed'); os._exit(0)"));
  // What is written beside the number does not help, nor does an end with another status.
  EXPECT_FALSE(passes("import os; os.write(3, b'passed')"));
  EXPECT_FALSE(passes("import atexit, os; atexit.register(os._exit, 1)"));
  EXPECT_FALSE(passes("def f(:"));
}

TEST(SandboxPython, SaysWhatIsMissing) {
  test::expect_error([] { run_python("1", {}, {.python = "/no/python"}); }, Kind::BadInput,
                     {"/no/python", "--python"});
}

}  // namespace
}  // namespace quern
