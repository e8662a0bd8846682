// quern tokenizer expand: new words for an old vocabulary.
#include <fmt/format.h>

#include "cli/commands/tokenizer_commands.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "text/load.h"
#include "text/vocab_expansion.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string words, tokenizer, out = "extra.tiktoken";
  bool force = false;
};

void expand(const Arguments& args) {
  claim_output(args.out, args.force);
  fs::path file = args.tokenizer;
  if (fs::is_directory(file)) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(file)) {
      if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
    }
    if (found.size() != 1) {
      throw_bad_input(fmt::format("{}: has {} .tiktoken files", args.tokenizer, found.size()),
                      "name the vocabulary itself");
    }
    file = found[0];
  }
  const RankedTokens ranks = read_tiktoken(file);
  const int64_t first_id = load_tokenizer(file)->size();  // behind the special tokens
  const VocabExpansion made = expand_vocabulary(ranks, read_input(args.words), first_id);
  for (const std::string& warning : made.warnings) fmt::print(stderr, "warning: {}\n", warning);
  if (made.tokens.tokens.empty()) {
    throw_bad_input(args.words + ": holds no word that can be added", "see the warnings");
  }
  write_tiktoken(args.out, made.tokens);
  print(fmt::format("{}: {} tokens, ids {} to {}, for {} words\n", args.out,
                    made.tokens.tokens.size(), first_id,
                    first_id + static_cast<int64_t>(made.tokens.tokens.size()) - 1, made.words));
}

}  // namespace

void add_tokenizer_expand(CLI::App& tokenizer) {
  Command command(tokenizer, "expand", "Make an extra vocabulary of words that become tokens",
                  {{"tokenizer expand words.txt --tokenizer qwen.tiktoken --out more.tiktoken",
                    "one word, a tab and its frequency per line"}});
  auto args = std::make_shared<Arguments>();
  command
      .positional("words", args->words,
                  "File with a word, a tab and its frequency per line; - = standard input")
      .required();
  command.option("--tokenizer", args->tokenizer, "The .tiktoken vocabulary, or a checkpoint folder")
      .path()
      .required();
  command.option("--out", args->out, "File to write, for --extra-vocab of other commands").file();
  command.flag("--force", args->force, "Replace the file if it exists");
  command.on_run([args] { expand(*args); });
}

}  // namespace quern::cli
