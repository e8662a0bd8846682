// Options: where their values come from, what is said when they are wrong.
#include "cli/program.h"

namespace quern::test {
namespace {

// The line of --show-config about an option: its name, value and source.
std::string shown(const Outcome& outcome, const std::string& option) {
  size_t at = outcome.out.find("\n" + option + " ");
  if (at == std::string::npos) return "nothing about " + option + " in:\n" + outcome.out;
  std::string line = outcome.out.substr(at + 1, outcome.out.find('\n', at + 1) - at - 1);
  for (size_t i; (i = line.find("  ")) != line.npos;) line.erase(i, 1);
  return line;
}

TEST(Options, CommandLineGoesBeforeEnvironmentBeforeFileBeforeDefault) {
  const TempFolder folder;
  folder.write("quern.toml", "[generate]\ntop-k = 1\ntop-p = 0.1\nmin-p = 0.1\n");
  const Surroundings around = {
      .input = {},
      .variables = {{"QUERN_GENERATE_TOP_K", "2"}, {"QUERN_GENERATE_TOP_P", "0.2"}},
      .folder = folder.path()};
  const Outcome outcome = quern({"generate", "m", "--top-k", "3", "--show-config"}, around);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(shown(outcome, "top-k"), "top-k 3 command line");
  EXPECT_EQ(shown(outcome, "top-p"), "top-p 0.2 environment, QUERN_GENERATE_TOP_P");
  EXPECT_EQ(shown(outcome, "min-p"), "min-p 0.1 configuration file");
  EXPECT_EQ(shown(outcome, "samples"), "samples 1 default");
  EXPECT_EQ(shown(outcome, "greedy"), "greedy off default");
}

TEST(Options, AFileSetsGlobalOptionsListsAndCommandsOfTwoWords) {
  const TempFolder folder;
  folder.write("other.toml",
               "threads = 3\n[generate]\nstop = [\"a\", \"b\"]\ngreedy = true\n"
               "[bench.model]\nprompt = 7\n");
  const std::string file = (folder.path() / "other.toml").string();
  const Outcome generate = quern({"generate", "m", "--config", file, "--show-config"});
  EXPECT_EQ(shown(generate, "threads"), "threads 3 configuration file");
  EXPECT_EQ(shown(generate, "stop"), "stop a, b configuration file");
  EXPECT_EQ(shown(generate, "greedy"), "greedy on configuration file");
  const Outcome bench = quern({"bench", "model", "m", "--config", file, "--show-config"});
  EXPECT_EQ(shown(bench, "prompt"), "prompt 7 configuration file");
}

TEST(Options, TheUsersOwnFileIsReadWhereTheFolderHasNone) {
  const TempFolder home, work;
  home.write("quern/config.toml", "threads = 5\n");
  const Surroundings around = {
      .input = {}, .variables = {{"XDG_CONFIG_HOME", home.path().string()}}, .folder = work.path()};
  EXPECT_EQ(shown(quern({"doctor", "--show-config"}, around), "threads"),
            "threads 5 configuration file");
  work.write("quern.toml", "threads = 6\n");
  EXPECT_EQ(shown(quern({"doctor", "--show-config"}, around), "threads"),
            "threads 6 configuration file");
}

TEST(Options, AnUnknownKeyOfAFileIsAnErrorThatNamesTheNearest) {
  const TempFolder folder;
  const auto error_of = [&](const std::string& toml) {
    folder.write("quern.toml", toml);
    const Outcome outcome =
        quern({"doctor"}, {.input = {}, .variables = {}, .folder = folder.path()});
    EXPECT_EQ(outcome.code, 3) << toml;
    return outcome.err;
  };
  EXPECT_EQ(error_of("[generate]\ntop_p = 0.5\n"),
            "quern: quern.toml: generate.top_p is no option (did you mean 'top-p'?)\n");
  EXPECT_EQ(error_of("[genrate]\n"),
            "quern: quern.toml: genrate is a table for no command (did you mean 'generate'?)\n");
  EXPECT_EQ(error_of("[bench.modle]\n"),
            "quern: quern.toml: bench.modle is a table for no command (did you mean 'model'?)\n");
  EXPECT_NE(error_of("= 3\n").find("quern.toml"), std::string::npos);
}

TEST(Options, ANamedFileThatIsMissingIsABadInputFile) {
  const Outcome outcome = quern({"doctor", "--config", "missing.toml"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("missing.toml"), std::string::npos) << outcome.err;
}

TEST(Options, AnOptionThatMayBeRepeatedTakesOneValueEachTime) {
  const Outcome outcome =
      quern({"generate", "--stop", "a", "m", "prompt", "--stop", "b", "--show-config"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(shown(outcome, "stop"), "stop a, b command line");
}

TEST(Options, WordsAfterTheCommandAreArgumentsEvenIfTheyNameCommands) {
  const Outcome outcome = quern({"generate", "/nonexistent", "chat"});
  EXPECT_EQ(outcome.code, 3);  // a folder that is missing, not two commands
}

struct Misuse {
  std::vector<std::string> arguments;
  std::string message;
};

void PrintTo(const Misuse& misuse, std::ostream* out) {
  *out << "quern";
  for (const std::string& argument : misuse.arguments) *out << " " << argument;
}

class Misused : public ::testing::TestWithParam<Misuse> {};

TEST_P(Misused, IsOneLineWithTheWayOutAndExitCode2) {
  const Outcome outcome = quern(GetParam().arguments);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "quern: " + GetParam().message + "\n");
  EXPECT_EQ(outcome.out, "");
}

INSTANTIATE_TEST_SUITE_P(
    Options, Misused,
    ::testing::Values(
        Misuse{{"genrate"}, "there is no command 'genrate' (did you mean generate?)"},
        Misuse{{"generate", "m", "--gredy"}, "there is no option --gredy (did you mean --greedy?)"},
        Misuse{{"generate", "m", "--gredy=3"},
               "there is no option --gredy (did you mean --greedy?)"},
        Misuse{{"generate", "m", "--thread", "3"},
               "there is no option --thread (did you mean --threads?)"},
        Misuse{{"bench"}, "name a command: model, serve (quern bench --help says more)"},
        Misuse{{"bench", "modle"}, "there is no command 'modle' (did you mean model?)"},
        Misuse{{"generate"}, "model is required (see quern generate --help)"},
        Misuse{{"doctor", "a"}, "there is one argument too many: a (see quern doctor --help)"},
        Misuse{{"--progress", "loud", "doctor"},
               "--progress: loud not in {auto,tty,plain,json,none} (see quern doctor --help)"},
        Misuse{{"generate", "m", "-n", "-3"},
               "--max-new-tokens: Value -3 not in range 0 to 2147483648 (see quern generate "
               "--help)"},
        Misuse{{"man", "genrate"}, "there is no command 'genrate' (did you mean generate?)"}));

TEST(Program, WithoutACommandNamesThem) {
  const Outcome outcome = quern({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err.find("quern: name a command: chat, "), 0u) << outcome.err;
}

TEST(Program, PrintsItsVersion) {
  const Outcome outcome = quern({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, std::string("quern ") + QUERN_VERSION + "\n");
}

TEST(Program, HelpShowsDefaultVariableAndExamples) {
  const Outcome outcome = quern({"bench", "model", "--help"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* part : {"--prompt N", "[default: 512]", "[env: QUERN_BENCH_MODEL_PROMPT]",
                           "Examples:\n  quern bench model"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << "\n" << outcome.out;
  }
}

TEST(Program, AFullDiskUnderStandardOutputIsExitCode4) {
  const Outcome outcome =
      run({"sh", "-c", std::string("'") + test::program_path() + "' man --markdown > /dev/full"});
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_NE(outcome.err.find("standard output"), std::string::npos) << outcome.err;
}

TEST(Program, AReaderThatLeavesEndsItWithoutAWord) {
  const Outcome outcome =
      run({"bash", "-c", std::string("'") + test::program_path() + "' man --markdown | head -n 1"});
  EXPECT_EQ(outcome.out, "# Commands\n");
  EXPECT_EQ(outcome.err, "");
}

}  // namespace
}  // namespace quern::test
