// Options: where their values come from, what is said when they are wrong.
#include <algorithm>
#include <fstream>
#include <sstream>

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
  EXPECT_EQ(shown(outcome, "min-p"), "min-p 0.1 configuration file, quern.toml: line 4");
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
  EXPECT_EQ(shown(generate, "threads"), "threads 3 configuration file, " + file + ": line 1");
  EXPECT_EQ(shown(generate, "stop"), "stop a, b configuration file, " + file + ": line 3");
  EXPECT_EQ(shown(generate, "greedy"), "greedy on configuration file, " + file + ": line 4");
  const Outcome bench = quern({"bench", "model", "m", "--config", file, "--show-config"});
  EXPECT_EQ(shown(bench, "prompt"), "prompt 7 configuration file, " + file + ": line 6");
}

TEST(Options, TheUsersOwnFileIsReadWhereTheFolderHasNone) {
  const TempFolder home, work;
  home.write("quern/config.toml", "threads = 5\n");
  const Surroundings around = {
      .input = {}, .variables = {{"XDG_CONFIG_HOME", home.path().string()}}, .folder = work.path()};
  EXPECT_EQ(
      shown(quern({"doctor", "--show-config"}, around), "threads"),
      "threads 5 configuration file, " + (home.path() / "quern/config.toml").string() + ": line 1");
  work.write("quern.toml", "threads = 6\n");
  EXPECT_EQ(shown(quern({"doctor", "--show-config"}, around), "threads"),
            "threads 6 configuration file, quern.toml: line 1");
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
            "quern: quern.toml: line 2: generate.top_p is an unknown option (did you mean "
            "'top-p'?)\n");
  EXPECT_EQ(
      error_of("[genrate]\n"),
      "quern: quern.toml: line 1: genrate is an unknown section (did you mean 'generate'?)\n");
  EXPECT_EQ(error_of("[bench.modle]\n"),
            "quern: quern.toml: line 1: bench.modle is an unknown section (did you mean "
            "'model'?)\n");
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
        Misuse{{"generate"},
               "MODEL is missing (quern generate MODEL [PROMPT] [options]; --help says more)"},
        Misuse{{"logits", "m", "--ids-file", "x"},
               "--out FILE is missing (see quern logits --help)"},
        Misuse{{"doctor", "a"}, "there is one argument too many: a (see quern doctor --help)"},
        Misuse{{"generate", "m", "two", "words"},
               "there is one argument too many: words (quern generate MODEL [PROMPT] [options]; a "
               "text of several words goes in quotes)"},
        Misuse{{"--progress", "loud", "doctor"},
               "--progress is 'loud', expected auto, tty, plain, json or none"},
        Misuse{{"doctor", "--progress=plian"},
               "--progress is 'plian', expected auto, tty, plain, json or none (did you mean "
               "plain?)"},
        Misuse{{"generate", "m", "-n", "-3"}, "-n is '-3', expected 0 to 2147483648"},
        Misuse{{"generate", "m", "-n", "1e3"}, "-n is '1e3', expected a whole number"},
        Misuse{{"serve", "--port", "80x"}, "--port is '80x', expected a whole number"},
        Misuse{{"serve", "--port", "99999999999999999999"},
               "--port is '99999999999999999999', expected a smaller number"},
        Misuse{{"generate", "m", "--temperature", "hot"},
               "--temperature is 'hot', expected a number"},
        Misuse{{"generate", "m", "--seed", "-1"},
               "--seed is '-1', expected a whole number that is not negative"},
        Misuse{{"generate", "m", "--greedy=perhaps"}, "--greedy is 'perhaps', expected on or off"},
        Misuse{{"generate", "m", "--top-k"},
               "--top-k needs a value, N (see quern generate --help)"},
        Misuse{{"serve", "--memory", "12 apples"},
               "--memory is '12 apples', expected a number of bytes, as 2048, 500MB or 12GB"},
        Misuse{{"generate", "M", "hi", "--temprature", "0.5"},
               "there is no option --temprature (did you mean --temperature?)"},
        Misuse{{"generate", "--hepl"}, "there is no option --hepl (did you mean --help?)"},
        Misuse{{"--json", "doctor"}, "put --json after the command (quern doctor --json)"},
        Misuse{{"bench", "--depth", "3", "model"},
               "put --depth after the command (quern bench model --depth)"},
        Misuse{{"pretrain", "F", "--steps", "10"},
               "there is no option --steps (use --set train.steps=10)"},
        Misuse{{"pretrain", "F", "--learning-rate", "1e-3"},
               "there is no option --learning-rate (use --set optimizer.learning_rate=1e-3)"},
        Misuse{{"serve", "--api-key", "s"},
               "there is no option --api-key (use --api-key-file FILE: arguments can be read by "
               "other users)"},
        Misuse{{"serve", "--quiet", "--host", "256.1.1.1"},
               "--host 256.1.1.1 is not an address (expected an IP address as 127.0.0.1, 0.0.0.0 "
               "or ::1, or localhost)"},
        Misuse{{"run", "model"},
               "there is no command 'run' (quern chat MODEL talks with a model, quern generate "
               "MODEL PROMPT continues a text)"},
        Misuse{
            {"train"},
            "there is no command 'train' (quern pretrain RUN.toml trains a model, quern finetune "
            "RUN.toml tunes one, quern tokenizer train FILES makes a vocabulary)"},
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

TEST(Options, ABadValueNamesTheVariableOrTheLineItStandsIn) {
  const Outcome variable =
      quern({"generate", "m"}, {.variables = {{"QUERN_GENERATE_TEMPERATURE", "hot"}}});
  EXPECT_EQ(variable.code, 2);
  EXPECT_EQ(variable.err, "quern: QUERN_GENERATE_TEMPERATURE is 'hot', expected a number\n");
  const TempFolder folder;
  folder.write("quern.toml", "[generate]\n\ntemperature = \"hot\"\n");
  const Outcome file = quern({"generate", "m"}, {.folder = folder.path()});
  EXPECT_EQ(file.code, 3);
  EXPECT_EQ(file.err,
            "quern: quern.toml: line 3: generate.temperature is 'hot', expected a number\n");
  // What another command would stumble over is none of this one's business.
  EXPECT_EQ(quern({"man"}, {.folder = folder.path()}).code, 0);
}

TEST(Options, AVariableThatNothingReadsIsAWarningWithTheNearest) {
  const Outcome outcome = quern({"man"}, {.variables = {{"QUERN_GENERATE_TOPP", "0.5"}}});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.err.find("nothing reads the variable QUERN_GENERATE_TOPP (did you mean "
                             "QUERN_GENERATE_TOP_P?)"),
            std::string::npos)
      << outcome.err;
  EXPECT_EQ(quern({"man", "--quiet"}, {.variables = {{"QUERN_GENERATE_TOPP", "0.5"}}}).err, "");
}

TEST(Options, ArgumentsHaveAVariableAndAKey) {
  const Outcome variable =
      quern({"serve", "--show-config"}, {.variables = {{"QUERN_SERVE_MODEL", "/srv/quern/model"}}});
  EXPECT_EQ(shown(variable, "MODEL"), "MODEL /srv/quern/model environment, QUERN_SERVE_MODEL");
  const TempFolder folder;
  folder.write("quern.toml", "[serve]\nmodel = \"a\"\nmodels = [\"b\", \"c\"]\n");
  const Outcome file = quern({"serve", "--show-config"}, {.folder = folder.path()});
  EXPECT_EQ(shown(file, "MODEL"), "MODEL a configuration file, quern.toml: line 2");
  EXPECT_EQ(shown(file, "MODELS..."), "MODELS... b, c configuration file, quern.toml: line 3");
  // A folder that is missing, not an argument that is.
  EXPECT_EQ(quern({"generate"}, {.variables = {{"QUERN_GENERATE_MODEL", "/nonexistent"}}}).code, 3);
}

TEST(Options, TheSettingsOfTheShippedServiceAreThoseOfServe) {
  std::ifstream file(source("packaging/serve.env"));
  Surroundings around;
  for (std::string line; std::getline(file, line);) {
    const size_t equals = line.find('=');
    if (line.starts_with("#") || equals == line.npos) continue;
    around.variables.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
  const Outcome outcome = quern({"serve", "--show-config"}, around);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(shown(outcome, "MODEL"),
            "MODEL /srv/quern/Qwen-7B-Chat environment, QUERN_SERVE_MODEL");
}

TEST(Program, ShortHelpIsShortAndLongHelpWhole) {
  const auto lines_of = [](const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  for (const char* command : {"generate", "chat", "serve", "quantize", "pretrain"}) {
    const Outcome brief = quern({command, "-h"}), whole = quern({command, "--help"});
    EXPECT_EQ(brief.code, 0);
    EXPECT_NE(brief.out.find("Usage: quern " + std::string(command)), std::string::npos);
    EXPECT_NE(brief.out.find("Examples:"), std::string::npos) << command;
    EXPECT_LT(lines_of(brief.out), 45) << brief.out;
    EXPECT_GE(lines_of(whole.out), lines_of(brief.out)) << command;
  }
  EXPECT_EQ(quern({"help", "generate"}).out, quern({"generate", "--help"}).out);
  EXPECT_EQ(quern({"help"}).out, quern({"--help"}).out);
  EXPECT_EQ(quern({"version"}).out, quern({"--version"}).out);
  EXPECT_EQ(quern({"serve", "m", "-h"}).out, quern({"serve", "-h"}).out);
}

TEST(Program, HelpFitsTheWidth) {
  for (const char* columns : {"40", "80", "200"}) {
    for (const char* command : {"generate", "serve", "quantize"}) {
      const Outcome outcome = quern({command, "--help"}, {.variables = {{"COLUMNS", columns}}});
      std::istringstream text(outcome.out);
      bool examples = false;  // which stand as they are typed
      for (std::string line; std::getline(text, line);) {
        examples = examples || line == "Examples:";
        const bool one_word = line.find(' ', line.find_first_not_of(' ')) == line.npos;
        if (examples || one_word || line.starts_with("Usage")) continue;
        EXPECT_LE(line.size(), static_cast<size_t>(std::stoi(columns))) << line;
      }
    }
  }
}

TEST(Program, NoDefaultOrValueIsWithoutAName) {
  // Files, folders and words are shown for what they are.
  const std::string help = quern({"quantize", "--help"}).out;
  for (const char* part : {"--calibration FILE", "--to int4|int8", "--samples N", "--report  "}) {
    EXPECT_NE(help.find(part), std::string::npos) << part << " is not in:\n" << help;
  }
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

// What another option makes meaningless is refused by name, before anything is read or asked.
TEST(Options, WhatAnotherOptionMakesMeaninglessIsRefused) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"agent", "hi", "--server", "http://127.0.0.1:1", "--adapter", "a"},
       "--adapter and --server exclude each other"},
      {{"agent", "hi", "--api-key-file", "k"}, "--api-key-file goes with --server"},
      {{"agent", "hi", "--trusted-certificates", "c"}, "--trusted-certificates goes with --server"},
      {{"eval", "mmlu", "--data", ".", "--seed", "3"},
       "--seed goes with --limit or --samples-per-task"},
      {{"eval", "mmlu", "--data", ".", "--temperature", "0.4"},
       "--temperature goes with --samples-per-task"},
      {{"eval", "mmlu", "--data", ".", "--top-p", "0.4"}, "--top-p goes with --samples-per-task"},
      {{"eval", "mmlu", "--data", ".", "--endpoint", "http://127.0.0.1:1/v1", "--adapter", "a"},
       "--adapter and --endpoint exclude each other"},
      {{"eval", "mmlu", "--data", ".", "--tokenizer", "t"}, "--tokenizer goes with --endpoint"},
  };
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = quern(arguments);
    EXPECT_EQ(outcome.code, 2) << message;
    EXPECT_EQ(outcome.err, "quern: " + message + "\n");
  }
}

}  // namespace
}  // namespace quern::test
