// quern tokenizer: making vocabularies.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/tokenizer_commands.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "data/documents.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_spec.h"
#include "text/bpe_trainer.h"
#include "text/vocabulary_files.h"

namespace quern::cli {
namespace {

struct TrainArguments {
  std::vector<std::string> files;
  std::string out = "tokenizer", field = "text";
  std::vector<std::string> specials = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  int64_t vocab = 32000, min_frequency = 0;
  bool force = false, json = false, dry_run = false;
};

// tokenizer.json and .tiktoken, with the same ids; special tokens come after what was learnt.
void write_tokenizer(const fs::path& folder, const TrainedBpe& trained,
                     const std::vector<std::string>& specials) {
  std::vector<std::array<int32_t, 3>> merges;
  for (const Bpe::Merge& merge : trained.merges) {
    merges.push_back({merge.left, merge.right, merge.joined});
  }
  std::vector<AddedToken> added;
  auto next = static_cast<int64_t>(trained.tokens.size());
  for (const std::string& special : specials) added.push_back({.id = next++, .content = special});
  const TokenizerSpec spec = spec_of_byte_vocabulary(trained.tokens, std::move(merges), added);
  write_file(folder / "tokenizer.json", to_tokenizer_json(spec));
  write_tiktoken(folder / "vocab.tiktoken", {.first_rank = 0, .tokens = trained.tokens});
  nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"clean_up_tokenization_spaces", false}};
  if (!specials.empty()) config["eos_token"] = config["pad_token"] = specials[0];
  write_file(folder / "tokenizer_config.json", dump(config, 2) + "\n");
}

// Each thread counts the words of some of the documents.
BpeTrainer count_words(const TrainArguments& args, uint64_t total, uint64_t& bytes) {
  constexpr size_t kBatchBytes = size_t{8} << 20;
  ThreadPool threads(globals().threads);
  std::vector<BpeTrainer> trainers(static_cast<size_t>(threads.size()));
  std::vector<std::string> batch;
  size_t batch_bytes = 0;
  const auto count_batch = [&] {
    threads.parallel_for(
        static_cast<int64_t>(batch.size()), 1, [&](int64_t from, int64_t to, int thread) {
          for (int64_t i = from; i < to; ++i) {
            trainers[static_cast<size_t>(thread)].add(batch[static_cast<size_t>(i)]);
          }
        });
    batch.clear();
    batch_bytes = 0;
  };
  Progress progress("counting words", total, "bytes");
  uint64_t done = 0;
  for (const std::string& file : args.files) {
    DocumentReader reader(file, {.text_field = args.field});
    Document document;
    while (reader.next(document)) {
      check_interrupted();
      bytes += document.text.size();
      batch_bytes += document.text.size();
      batch.push_back(std::move(document.text));
      if (batch_bytes >= kBatchBytes) count_batch();
      progress.update(done + reader.consumed_bytes());
    }
    done += file == "-" ? reader.consumed_bytes() : fs::file_size(file);
  }
  count_batch();
  progress.finish();
  for (size_t i = 1; i < trainers.size(); ++i) {
    trainers[0].add(trainers[i]);
    trainers[i] = BpeTrainer();
  }
  return std::move(trainers[0]);
}

void train(const TrainArguments& args) {
  claim_output(args.out, args.force);
  const int64_t learnt = args.vocab - static_cast<int64_t>(args.specials.size());
  if (learnt < 256) {
    throw Error(Kind::Misused,
                fmt::format("--vocab-size is {}, which leaves {} tokens for text", args.vocab,
                            std::max<int64_t>(0, learnt)),
                "the 256 bytes alone need as many");
  }
  uint64_t total = 0;
  for (const std::string& file : args.files) {
    if (file == "-") continue;
    if (!fs::is_regular_file(file)) throw_bad_input(file + ": there is no such file");
    total += fs::file_size(file);
  }
  if (args.dry_run) {
    const nlohmann::ordered_json facts = {
        {"files", args.files.size()}, {"bytes", total}, {"vocab_size", args.vocab}};
    print(args.json ? dump(facts) + "\n"
                    : fmt::format("{}: {} tokens from {} files, {}\n", args.out, args.vocab,
                                  args.files.size(), human_bytes(total)));
    return;
  }
  const InterruptScope scope;
  OutputFolder folder(args.out, args.force);
  uint64_t bytes = 0;
  const BpeTrainer trainer = count_words(args, total, bytes);
  if (trainer.words() == 0)
    throw_bad_input("the files hold no text", "look at them and at --field");
  Progress progress("merging", static_cast<uint64_t>(learnt), "tokens");
  const TrainedBpe trained =
      trainer.train({.vocab = learnt, .min_frequency = args.min_frequency}, [&](int64_t tokens) {
        check_interrupted();
        progress.update(static_cast<uint64_t>(tokens));
      });
  write_tokenizer(folder.temporary(), trained, args.specials);
  folder.commit();
  progress.finish();
  if (args.json) {
    print(dump(nlohmann::ordered_json{{"out", args.out},
                                      {"tokens", trained.tokens.size()},
                                      {"special_tokens", args.specials.size()},
                                      {"words", trainer.words()},
                                      {"text_bytes", bytes}}) +
          "\n");
    return;
  }
  print(fmt::format("{}: {} tokens and {} special ones from {} different words in {} of text\n",
                    args.out, trained.tokens.size(), args.specials.size(), trainer.words(),
                    human_bytes(bytes)));
  if (static_cast<int64_t>(trained.tokens.size()) < learnt) {
    print("there were no more pairs to merge\n");
  }
  print(fmt::format("try: quern tokenize {} 'Hello, world!'\n", args.out));
}

}  // namespace

void add_tokenizer(CLI::App& root) {
  Command tokenizer(root, "tokenizer", "Make and compare vocabularies");
  Command command(
      tokenizer.app(), "train", "Learn a byte-level BPE vocabulary from text",
      {{"tokenizer train books.jsonl.gz notes.txt --vocab-size 32000 --out my-tokenizer",
        "tokenizer.json, vocab.tiktoken and tokenizer_config.json"}});
  auto args = std::make_shared<TrainArguments>();
  command.positional("files", args->files, "Text or JSONL files, also .gz and .zst").required();
  command.option("--vocab-size", args->vocab, "Size of the vocabulary, special tokens included")
      .range(int64_t{256}, int64_t{1} << 24);
  command.option("--out", args->out, "Folder to make").folder();
  command.flag("--dry-run", args->dry_run, "Check the inputs, print what would be read, and end");
  command.flag("--force", args->force, "Replace the folder if it exists");
  command.flag("--json", args->json, "Print one JSON object");
  command.option("--min-frequency", args->min_frequency, "Pairs rarer than this are not merged")
      .range(int64_t{0}, int64_t{1} << 40);
  command.option("--special", args->specials,
                 "Special token; the first is the end-of-text token; repeatable",
                 "<|endoftext|>, <|im_start|>, <|im_end|>");
  command.option("--field", args->field, "Field of a JSONL record that holds the text");
  command.on_run([args] { train(*args); });
  add_tokenizer_expand(tokenizer.app());
  add_tokenizer_compression(tokenizer.app());
}

}  // namespace quern::cli
