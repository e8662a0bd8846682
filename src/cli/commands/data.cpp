// quern data: text to the datasets that training reads.
#include <fmt/format.h>

#include "cli/commands/arguments.h"
#include "cli/commands/data_stages.h"
#include "core/error.h"
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
  bool skip_bad = false;
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
  const auto tokenizer = load_tokenizer(args.tokenizer);
  uint64_t total = 0;
  std::vector<fs::path> files;
  for (const std::string& file : args.files) {
    files.emplace_back(file);
    if (file == "-") continue;
    if (!fs::is_regular_file(file)) throw_bad_input(file + ": is no file that can be read");
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

  const InterruptScope scope;  // so that Ctrl-C removes what is half written
  AtomicFolder folder(out);
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
  print(fmt::format("{}: {} tokens in {} documents, {:.2f} bytes a token, {} shard{}\n", args.out,
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
  command.option("--tokenizer", args->tokenizer, "Tokenizer file, or folder of a model").required();
  command.option("--out", args->out, "Folder to make").required();
  command.option("--name", args->name, "Name of the dataset in reports", "the folder's");
  command.option("--field", args->field, "Field of a JSONL record that holds the text");
  command.option("--messages", args->messages,
                 "Field that holds a conversation, a list of {role, content}; texts are not read");
  command.option("--system", args->system,
                 "System message of conversations that have none; empty: leave it out");
  command.option("--where", args->where,
                 "FIELD=VALUE: only records that say so; values of one field are alternatives");
  command.option("--replace", args->replace, "NAME=TEXT: {{NAME}} in conversations becomes TEXT");
  command.option("--shard-tokens", args->shard_tokens, "Tokens of a file, about")
      .range(int64_t{1} << 10, int64_t{1} << 32);
  command.flag("--skip-bad", args->skip_bad, "Count bad records instead of stopping at the first");
  command.on_run([args] { run_pack(*args); });
}

}  // namespace quern::cli
