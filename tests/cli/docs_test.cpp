// The documentation keeps its word: what it shows runs, and prints what it says.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <regex>
#include <span>
#include <sstream>

#include "cli/checkpoint.h"
#include "cli/program.h"
#include "core/file.h"
#include "formats/safetensors.h"
#include "support/compress.h"

namespace quern::test {
namespace {

std::vector<fs::path> pages() {
  std::vector<fs::path> all = {source("README.md"), source("CONTRIBUTING.md")};
  for (const auto& entry : fs::directory_iterator(source("docs"))) {
    if (entry.path().extension() == ".md") all.push_back(entry.path());
  }
  return all;
}

// A folder in which what the documentation shows can run: it has models, texts and lists by the
// names that examples use, the model that ships, and `quern` on the PATH.
class Sandbox {
 public:
  Sandbox() {
    const fs::path model = tiny_checkpoint(outer_);
    folder_ = outer_.path() / "repository";
    for (const char* name : {"Qwen-7B", "Qwen-7B-Chat", "MODEL"}) {
      fs::create_directories(folder_);
      fs::create_directory_symlink(model, folder_ / name);
    }
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::copy_file(model / name, folder_ / name);
    }
    std::string prose;
    while (prose.size() < 20'000) prose += "All happy families are alike. ";
    for (const char* name : {"book.txt", "story.txt", "wiki.txt", "paper.tex"}) {
      put(name, name == std::string("story.txt") ? "Once upon a time" : prose);
    }
    put("qwen.tiktoken", byte_vocabulary());
    put("words.txt", "hello\t3\nworld\t2\n");
    put("extra.tiktoken", "aGVsbG8= 464\n");
    put("texts/en.txt", "All happy families are alike.\nEach unhappy one is not.\n");
    put("texts/code.txt", "int main() { return 0; }\n");
    for (const char* name : {"hypotheses.txt", "references.txt"}) {
      put(name, "The cat sat on the mat.\nA dog, too.\n");
    }
    put_benchmark();
    put("counts.jsonl", "{\"n\": 20, \"c\": 3}\n");
    put("requests.jsonl", "{\"text\": \"a\"}\n");
    put("ids.json", "[1, 2, 3]");
    put("prompts.json", "[[1, 2], [3]]");
    put("old-checkpoint/pytorch_model.bin", read_file(source("tests/fixtures/torch/plain.bin")));
    put("tiny.gguf", read_file(source("tests/fixtures/gguf/llama.gguf")));
    put_batch();
    put_training();
    fs::create_directory_symlink(source("models"), folder_ / "models");
    fs::create_directories(folder_ / ".local/share/bash-completion/completions");
    outer_.write("bin/quern",
                 std::string("#!/bin/sh\nexec '") + test::program_path() + "' \"$@\"\n");
    // Building and testing are what goes on already.
    put("run",
        "#!/bin/sh\ncase $1 in build|install|path|test|bench) exit 0 ;; esac\nexec quern \"$@\"\n");
    for (const fs::path& script : {outer_.path() / "bin/quern", folder_ / "run"}) {
      fs::permissions(script, fs::perms::owner_all);
    }
  }

  Outcome run(const std::string& commands) const {
    const std::string path = (outer_.path() / "bin").string() + ":" + std::getenv("PATH");
    return test::run({"bash", "-e", "-c", commands},
                     {.input = {},
                      .variables = {{"PATH", path},
                                    {"HOME", folder_.string()},
                                    {"QUERN_PERPLEXITY_CONTEXT", "16384"},
                                    {"QUERN_PERPLEXITY_LIMIT", "2500"}},
                      .folder = folder_});
  }

 private:
  void put(const std::string& name, const std::string& content) const {
    outer_.write("repository/" + name, content);
  }

  // Documents, and runs of two steps over them.
  void put_training() const {
    std::string records;
    for (int i = 0; i < 200; ++i) {
      records += "{\"lang\": \"en\", \"text\": \"Day " + std::to_string(i) + " was fine.\"}\n";
    }
    put("books.jsonl.gz", gzip(records));
    put("all.jsonl.zst", zstd(records));
    const std::string page =
        "<p>The mill by the river has stood empty since the flood of 1820.</p>";
    put("pages.jsonl.gz", gzip("{\"html\": \"" + page + "\"}\n"));
    put("saved-pages/mill.html", page);
    put("crawl.warc.gz",
        gzip("WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: http://mill.test/\r\n"
             "Content-Type: text/html\r\nContent-Length: " +
             std::to_string(page.size()) + "\r\n\r\n" + page + "\r\n\r\n"));
    put("chats.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}, "
        "{\"role\": \"assistant\", \"content\": \"Good day.\"}]}\n");
    put("notes.txt", "A note.");
    put("tools.json", R"([{"name_for_model": "weather", "name_for_human": "Weather",
        "description_for_model": "Weather of a city.", "parameters": []}])");
    std::string labelled;
    for (int i = 0; i < 20; ++i) {
      labelled += "{\"label\": 1, \"text\": \"the mill by the river " + std::to_string(i) +
                  "\"}\n{\"label\": 0, \"text\": \"cheap pills now " + std::to_string(i) + "\"}\n";
    }
    put("labelled.jsonl", labelled);
    put("good.txt", "the mill turns\nthe mill of the river turns the stone\n");
    put("de.txt", "Guten Tag, wie geht es?\nDas Wetter ist heute schlecht.\n");
    put("en.txt", "Good day, how are you?\nThe weather is bad today.\n");
    put("src/main.c", "int main(void) { return 0; }\n");
    put("prompts.jsonl", "{\"id\": 1, \"prompt\": \"Hi\"}\n");
    put("mix.toml", "[[source]]\nname = \"all\"\nfiles = [\"all.jsonl.zst\"]\n");
    put("pipeline.toml", "[[stage]]\nname = \"clean\"\nuse = \"language\"\nin = \"pages.jsonl\"\n");
    put("yesterday/clean/manifest.json",
        R"({"stage": "language", "settings": {}, "shards": [],
            "counts": {"in": 1, "out": 1, "bad": 0, "dropped": {}}})");
    put("yesterday/clean/shard-00000.jsonl.zst", zstd("{\"id\": \"page-17\", \"text\": \"x\"}\n"));
    put("pages.jsonl", "{\"id\": \"page-17\", \"text\": \"A page of text.\"}\n");
    put("sums.toml",
        "[let]\na = {from = 1, to = 99}\nb = {from = 1, to = 99}\n"
        "[record]\ntext = \"{a} plus {b} is {=a + b}\"\n");
    put("questions.jsonl",
        "{\"id\": 1, \"question\": \"What is 6 by 7?\", \"answer\": \"<<6*7=42>>42\\n#### 42\"}\n");
    put("replies.jsonl", "{\"id\": 1, \"response\": \"Final Answer: 42\"}\n");
    fs::create_directories(folder_ / "runs/run");  // begun, and stopped before its first checkpoint
    fs::create_directories(folder_ / "runs/mini");
    fs::create_directory_symlink(folder_ / "MODEL", folder_ / "runs/mini/latest");
    for (const std::string run : {"mini", "other"}) {
      put("runs/" + run + "/metrics.csv",
          "step,tokens,seconds,loss,lr,grad_norm,tokens_per_s,share_of_peak\n"
          "1,64,0.1,6.2,1e-4,1.5,640,0.5\n2,128,0.2,6.1,2e-4,1.4,640,0.5\n");
    }
    put("tokenizer/vocab.tiktoken", byte_vocabulary());
    const std::string run =
        "preset = \"tiny\"\n[data]\nseq = 64\n[train]\nsteps = 2\nbatch = 1\n[model]\n";
    put("run.toml", run +
                        "tokenizer = \"tokenizer\"\n[[data.train]]\nfiles = "
                        "[\"books.jsonl.gz\"]\n");
    put("tune.toml",
        "[model]\ninit_from = \"Qwen-7B-Chat\"\n[data]\nseq = 256\n[[data.train]]\nfiles = "
        "[\"chats.jsonl\"]\n[lora]\nrank = 4\n[train]\nsteps = 2\nbatch = 1\n");
    fs::create_directories(folder_ / "runs/tune");  // as runs/run
    const fs::path tuned = source("tests/fixtures/models/qwen1-lora");
    fs::create_directory_symlink(tuned, folder_ / "base");
    fs::create_directory_symlink(tuned / "adapter", folder_ / "adapter");
    const fs::path packed = source("tests/fixtures/models/qwen1-qlora");
    fs::create_directory_symlink(packed, folder_ / "base-int4");
    fs::create_directory_symlink(packed / "adapter", folder_ / "adapter-int4");
    fs::create_directories(folder_ / "recipes");
    fs::copy(source("recipes/service"), folder_ / "recipes/service", fs::copy_options::recursive);
    put("recipes/mini/tiny.toml", run +
                                      "tokenizer = \"../../tokenizer\"\n[[data.train]]\nfiles = "
                                      "[\"../../books.jsonl.gz\"]\n");
  }

  // A benchmark of one question.
  void put_benchmark() const {
    const std::string record =
        "{\"question\": \"1 + 1?\", \"answer\": \"#### 2\", \"rationale\": \"1 + 1 = 2\"}\n";
    put("eval-data/gsm8k/test.jsonl", record);
    put("eval-data/gsm8k/fewshot_8.jsonl", record);
    for (const char* name : {"a/gsm8k.json", "b/gsm8k.json"}) {
      put(name,
          "{\"task\": \"gsm8k\", \"version\": 1, \"prompts_sha256\": \"0\", \"results\": "
          "{\"parity\": "
          "{\"acc\": {\"value\": 100}}}, \"samples\": [{\"id\": \"gsm8k/0\", \"correct\": 1, "
          "\"correct_fixed\": 1}]}");
    }
    put("answers.jsonl", "{\"id\": \"gsm8k/0\", \"response\": \"The answer is 2\"}\n");
  }

  // Two rows of eight ids, as `quern gradients` takes them.
  void put_batch() const {
    const Shape shape = {2, 8};
    std::vector<int64_t> ids(16);
    std::iota(ids.begin(), ids.end(), int64_t{1});
    SafetensorsWriter writer(folder_ / "batch.safetensors",
                             {{"input_ids", DType::I64, shape}, {"labels", DType::I64, shape}});
    for (int tensor = 0; tensor < 2; ++tensor) writer.write(std::as_bytes(std::span(ids)));
    writer.finish();
  }

  TempFolder outer_;
  fs::path folder_;
};

// A block of a page that is to be run, and what it says is printed.
struct Block {
  std::string place, commands, output;
};

void PrintTo(const Block& block, std::ostream* out) { *out << block.place; }

std::vector<Block> runnable_blocks() {
  std::vector<Block> blocks;
  for (const fs::path& page : pages()) {
    std::ifstream file(page);
    std::string heading;
    Block* last = nullptr;  // the block just closed, whose output may follow
    std::string* into = nullptr;
    for (std::string line; std::getline(file, line);) {
      if (into != nullptr) {
        if (line == "```") {
          into = nullptr;
        } else {
          *into += line + "\n";
        }
      } else if (line == "```sh run") {
        blocks.push_back({page.filename().string() + ", " + heading, {}, {}});
        last = &blocks.back();
        into = &last->commands;
      } else if (line == "```text" && last != nullptr) {
        into = &last->output;
        last = nullptr;
      } else if (line.starts_with("#")) {
        heading = line.substr(line.find_first_not_of("# "));
        last = nullptr;
      }
    }
  }
  return blocks;
}

// Whether two outputs are the same word for word, measured numbers (1.25, not 125) within 2 %.
bool same_words(const std::string& output, const std::string& shown) {
  std::istringstream a(output), b(shown);
  std::string word, expected;
  while (b >> expected) {
    if (!(a >> word)) return false;
    if (word == expected) continue;
    if (word.find('.') == word.npos || expected.find('.') == expected.npos) return false;
    char *end = nullptr, *expected_end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    const double wanted = std::strtod(expected.c_str(), &expected_end);
    if (*end != '\0' || *expected_end != '\0') return false;
    if (std::abs(value - wanted) > 0.02 * std::abs(wanted)) return false;
  }
  return !(a >> word);
}

// Output as a page shows it: a line of dots stands for any number of lines.
bool matches(const std::string& output, const std::string& shown) {
  const size_t dots = shown.find("...\n");
  if (dots == shown.npos) return same_words(output, shown);
  const std::string before = shown.substr(0, dots), after = shown.substr(dots + 4);
  return output.starts_with(before) && output.size() >= before.size() + after.size() &&
         output.ends_with(after);
}

class Shown : public ::testing::TestWithParam<Block> {};

TEST_P(Shown, RunsAndPrintsWhatThePageSays) {
  const Block& block = GetParam();
  const Outcome outcome = Sandbox().run(block.commands);
  EXPECT_EQ(outcome.code, 0) << block.place << ":\n" << block.commands << outcome.err;
  if (block.output.empty()) return;
  EXPECT_TRUE(matches(outcome.out, block.output)) << block.place << " shows\n"
                                                  << block.output << "but the command prints\n"
                                                  << outcome.out;
}

INSTANTIATE_TEST_SUITE_P(Docs, Shown, ::testing::ValuesIn(runnable_blocks()));

// Every example of --help, as the page of all commands lists them.
std::vector<std::string> examples() {
  std::vector<std::string> all;
  std::ifstream file(source("docs/commands.md"));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("  quern ")) all.push_back(line.substr(2));
  }
  return all;
}

class Example : public ::testing::TestWithParam<std::string> {};

TEST_P(Example, OfHelpRuns) {
  std::string command = GetParam();
  // A checkpoint of 15 GB is too much for a test, a server does not end, a hub is out of reach, and
  // the model that ships is too small to call tools: their options are looked at.
  for (const char* part :
       {"--preset qwen-7b", "quern serve", "quern pull", "quern agent '", "quern agent --"}) {
    if (command.find(part) != std::string::npos) command += " --show-config";
  }
  const Outcome outcome = Sandbox().run(command);
  EXPECT_EQ(outcome.code, 0) << command << "\n" << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(Docs, Example, ::testing::ValuesIn(examples()));

TEST(Docs, ThePageOfCommandsIsWhatTheProgramMakes) {
  const Outcome outcome = quern({"man", "--markdown"});
  EXPECT_TRUE(read_file(source("docs/commands.md")) == outcome.out)
      << "make it anew: quern man --markdown > docs/commands.md";
}

TEST(Docs, NothingNeedsMoreThanAClone) {
  std::vector<fs::path> all = pages();
  all.push_back(source("packaging/serve.env"));
  for (const fs::path& page : all) {
    EXPECT_EQ(read_file(page).find("../shared"), std::string::npos) << page;
  }
}

TEST(Docs, TheReadmesFiguresAreThoseOfTheResults) {
  if (run({"sh", "-c", "command -v python3"}).code != 0) GTEST_SKIP() << "skipped: needs python3";
  const Outcome outcome = run({"python3", source("scripts/readme-figures").string(), "--check"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(Docs, TheReadmeIsAScreenAndAPageOfPerformanceTwoMinutes) {
  const auto lines = [](const char* page) {
    const std::string text = read_file(source(page));
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_LE(lines("README.md"), 90);
  EXPECT_LE(lines("docs/performance.md"), 150);
}

// Every command that prints JSON is on the page that says what.
TEST(Docs, EveryJsonOutputIsDescribed) {
  const std::string page = read_file(source("docs/json.md"));
  std::istringstream commands(read_file(source("docs/commands.md")));
  std::string command;
  for (std::string line; std::getline(commands, line);) {
    if (line.starts_with("## quern ")) command = line.substr(9);
    if (!line.starts_with("| `--json`")) continue;
    // By its whole name, or with its family in one row.
    const std::string family = "`" + command.substr(0, command.find(' ')) + "`";
    EXPECT_TRUE(page.find("`" + command) != page.npos || page.find(family) != page.npos)
        << command << " --json";
  }
}

TEST(Docs, LinksPointToFilesThatAreThere) {
  const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  for (const fs::path& page : pages()) {
    const std::string text = read_file(page);
    for (std::sregex_iterator at(text.begin(), text.end(), link), end; at != end; ++at) {
      const fs::path target = page.parent_path() / (*at)[1].str();
      EXPECT_TRUE(fs::exists(target)) << page << " links to " << target;
    }
  }
}

}  // namespace
}  // namespace quern::test
