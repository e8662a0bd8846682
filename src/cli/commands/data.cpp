// quern data: text to the datasets that training reads.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/data_chat.h"
#include "cli/commands/data_stages.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "data/pack.h"
#include "text/chatml.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::vector<std::string> files;
  std::string tokenizer, out, name, messages;
  std::string field = "text";
  std::vector<std::string> where, replace;
  std::string system = std::string(kDefaultSystem);
  int64_t shard_tokens = int64_t{1} << 26;
  bool skip_bad = false, force = false, json = false, dry_run = false;
};

std::vector<std::pair<std::string, std::string>> pairs(const std::vector<std::string>& items,
                                                       const std::string& option) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& item : items) {
    const size_t at = item.find('=');
    if (at == std::string::npos || at == 0) {
      throw Error(Kind::Misused, fmt::format("{} is '{}'", option, printable(item, 80)),
                  "expected FIELD=VALUE");
    }
    out.emplace_back(item.substr(0, at), item.substr(at + 1));
  }
  return out;
}

void run_pack(const Arguments& args) {
  claim_output(args.out, args.force);
  const auto tokenizer = load_tokenizer(args.tokenizer);
  uint64_t total = 0;
  std::vector<fs::path> files;
  for (const std::string& file : args.files) {
    files.emplace_back(file);
    if (file == "-") continue;
    if (!fs::is_regular_file(file)) throw_bad_input(file + ": there is no such file");
    total += fs::file_size(file);
  }
  PackOptions options;
  options.documents = {.text_field = args.field,
                       .messages_field = args.messages,
                       .where = pairs(args.where, "--where"),
                       .replace = pairs(args.replace, "--replace"),
                       .skip_bad = args.skip_bad};
  const fs::path out(args.out);
  options.name = !args.name.empty()   ? args.name
                 : out.has_filename() ? out.filename().string()
                                      : out.parent_path().filename().string();
  options.shard_tokens = args.shard_tokens;
  options.system = args.system;

  if (args.dry_run) {
    const nlohmann::ordered_json facts = {{"files", files.size()},
                                          {"bytes", total},
                                          {"tokenizer_tokens", tokenizer->size()},
                                          {"name", options.name}};
    print(args.json ? dump(facts) + "\n"
                    : fmt::format("{}: {} files, {}, for a vocabulary of {} tokens\n", args.out,
                                  files.size(), human_bytes(total), tokenizer->size()));
    return;
  }
  const InterruptScope scope;  // so that Ctrl-C removes what is half written
  OutputFolder folder(out, args.force);
  ThreadPool pool(globals().threads);
  Progress progress("packing " + options.name, total, "bytes");
  const PackReport report =
      pack(files, *tokenizer, folder.temporary(), options, pool, [&](uint64_t done) {
        check_interrupted();
        progress.update(done);
      });
  folder.commit();
  progress.finish();
  const DatasetManifest& made = report.manifest;
  if (args.json) {
    nlohmann::ordered_json facts = {{"out", args.out},
                                    {"tokens", made.tokens},
                                    {"learnt_tokens", made.learnt_tokens},
                                    {"documents", made.documents},
                                    {"text_bytes", made.text_bytes},
                                    {"shards", made.shards.size()},
                                    {"bad_records", report.bad_records}};
    if (report.bad_records > 0) facts["first_bad"] = report.first_bad;
    print(dump(facts) + "\n");
    return;
  }
  print(fmt::format("{}: {} tokens in {} documents, {:.2f} bytes per token, {} shard{}\n", args.out,
                    made.tokens, made.documents,
                    static_cast<double>(made.text_bytes) / static_cast<double>(made.tokens),
                    made.shards.size(), made.shards.size() == 1 ? "" : "s"));
  if (made.learnt_tokens != made.tokens) {
    print(fmt::format("{} tokens are learnt, the rest is only read\n", made.learnt_tokens));
  }
  if (report.bad_records > 0) {
    print(fmt::format("{} bad records were left out, the first: {}\n", report.bad_records,
                      report.first_bad));
  }
}

}  // namespace

void add_data(CLI::App& root) {
  Command data(root, "data", "Prepare data for training");
  add_data_chat(data.app());
  add_data_stages(data.app());
  Command command(
      data.app(), "pack", "Tokenize documents into a dataset for training",
      {{"data pack books.jsonl.gz notes.txt --tokenizer tokenizer/ --out data/books",
        "texts, joined by <|endoftext|>"},
       {"data pack all.jsonl.zst --where lang=en --where lang=fr --tokenizer tokenizer/ --out en",
        "some of the records"},
       {"data pack chats.jsonl --messages messages --tokenizer tokenizer/ --out data/chats",
        "conversations as ChatML; the assistant's words are learnt"}});
  auto args = std::make_shared<Arguments>();
  command.positional("files", args->files, "Text or JSONL files, also .gz and .zst").required();
  command.option("--tokenizer", args->tokenizer, "Tokenizer file, or model")
      .path()
      .required()
      .replaced(resolve_model);
  command.option("--out", args->out, "Folder to make").folder().required();
  command.option("--name", args->name, "Name of the dataset in reports", "the folder's");
  command.option("--field", args->field, "Field of a JSONL record that holds the text");
  command.option("--messages", args->messages,
                 "Field that holds a conversation, a list of {role, content}; texts are not read");
  command.option("--system", args->system,
                 "System message of conversations that have none; empty: leave it out");
  command
      .option("--where", args->where,
              "Only records with this value; several values of one field are alternatives")
      .value("FIELD=VALUE");
  command.option("--replace", args->replace, "Replace {{NAME}} in conversations by TEXT")
      .value("NAME=TEXT");
  command.option("--shard-tokens", args->shard_tokens, "Tokens per shard file, approximately")
      .range(int64_t{1} << 10, int64_t{1} << 32);
  command.flag("--skip-bad", args->skip_bad,
               "Skip and count bad records instead of stopping at the first");
  command.flag("--dry-run", args->dry_run, "Check the inputs, print what would be read, and end");
  command.flag("--force", args->force, "Replace the folder if it exists");
  command.flag("--json", args->json, "Print one JSON object");
  command.refuse({"--system", "--replace"}, "goes with --messages",
                 [args] { return args->messages.empty(); });
  command.refuse({"--field"}, "and --messages exclude each other",
                 [args] { return !args->messages.empty(); });
  command.on_run([args] { run_pack(*args); });
}

}  // namespace quern::cli
