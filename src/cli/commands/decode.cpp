// quern decode: token ids in, text out.
#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "core/error.h"
#include "core/json.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, file, extra_vocab;
  std::vector<std::string> ids;
  bool skip_special = false, json = false, first_release = false;
};

// Adds the ids that `text` lists to `ids`. Throws `kind` for a word that is no id: BadInput for a
// file, Misused for the command line.
void read_words(std::string_view text, const std::string& source, Kind kind,
                std::vector<TokenId>& ids) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  for (size_t at = text.find_first_not_of(kBetween); at != text.npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    const std::string word(text.substr(at, end - at));
    const bool number = word.size() < 10 && word.find_first_not_of("0123456789") == word.npos;
    if (!number) {
      throw Error(kind, fmt::format("{}: '{}' is no token id", source, printable(word, 40)),
                  "ids are numbers, as 9707 11 1879");
    }
    ids.push_back(static_cast<TokenId>(std::stol(word)));
    at = text.find_first_not_of(kBetween, end);
  }
}

// The lists of ids, one for each text to print.
std::vector<std::vector<TokenId>> read_lists(const Arguments& args) {
  std::vector<TokenId> ids;
  for (const std::string& word : args.ids) read_words(word, "the ids", Kind::Misused, ids);
  if (!args.ids.empty()) return {ids};
  if (args.file.ends_with(".json")) return read_ids_file(args.file);
  const std::string content = read_input(args.file.empty() ? "-" : args.file);
  if (!args.file.ends_with(".bin")) {
    read_words(content, args.file.empty() ? "standard input" : args.file, Kind::BadInput, ids);
    return {ids};
  }
  if (content.size() % sizeof(TokenId) != 0) {
    throw_bad_input(
        fmt::format("{}: has {} bytes, which are no 32-bit ids", args.file, content.size()));
  }
  ids.resize(content.size() / sizeof(TokenId));
  std::memcpy(ids.data(), content.data(), content.size());
  return {ids};
}

void decode(const Arguments& args) {
  const auto tokenizer = load_tokenizer(
      args.model, {.first_release = args.first_release, .extra_vocab = args.extra_vocab});
  for (const std::vector<TokenId>& ids : read_lists(args)) {
    const std::string text = tokenizer->decode(ids, BadBytes::Replace, args.skip_special);
    if (args.json) {
      print(dump(nlohmann::ordered_json{{"ids", ids}, {"text", text}}) + "\n");
    } else {
      print(for_terminal(text) + "\n");
    }
  }
}

}  // namespace

void add_decode(CLI::App& root) {
  Command command(root, "decode", "Token ids in, text out",
                  {{"decode Qwen-7B 72 105", "the text of these ids"},
                   {"decode Qwen-7B --file ids.json",
                    "of a list in a file; .bin is what 'tokenize --out' writes"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder, or tokenizer file")
      .required()
      .replaced(resolve_model);
  command.positional("ids", args->ids, "The ids; without them or --file standard input is read");
  command.option(
      "--file,--ids-file", args->file,
      "File of ids: .json a list or a list of lists, .bin 32 bits each, else numbers as text");
  command.flag("--skip-special-tokens", args->skip_special, "Leave special tokens out");
  command.flag("--json", args->json, "Print one JSON object");
  command.flag("--first-release", args->first_release,
               "Special tokens of the first Qwen-7B-Chat release (<R>, <S>, ...)");
  command.option("--extra-vocab", args->extra_vocab, ".tiktoken file of added tokens");
  command.refuse({"ids"}, "and --file exclude each other", [args] { return !args->file.empty(); });
  command.on_run([args] { decode(*args); });
}

}  // namespace quern::cli
