// quern tokenize: text in, token ids out.
#include <fmt/format.h>

#include <bit>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "cli/commands/tokenize_chat.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "text/load.h"
#include "text/parallel_encode.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, file;
  std::optional<std::string> text;
  bool force = false;
  bool json = false, jsonl = false, specials = false, first_release = false, bare = false;
  std::string extra_vocab, out, chat_template, invalid = "replace";
};

// JSON escapes may hold half a surrogate pair, which UTF-8 cannot: such a half is read as U+FFFD.
std::string mend_surrogates(std::string line) {
  const auto unit_at = [&](size_t i) -> int {
    if (i + 6 > line.size() || line[i] != '\\' || line[i + 1] != 'u') return -1;
    const std::string digits = line.substr(i + 2, 4);
    if (digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) return -1;
    return std::stoi(digits, nullptr, 16);
  };
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\') continue;
    const int unit = unit_at(i);
    if (unit < 0xD800 || unit > 0xDFFF) {
      ++i;  // the escaped character is no escape of its own
      continue;
    }
    const int next = unit_at(i + 6);
    if (unit < 0xDC00 && next >= 0xDC00 && next <= 0xDFFF) {
      i += 11;
      continue;
    }
    line.replace(i + 2, 4, "fffd");
    i += 5;
  }
  return line;
}

SpecialPolicy read_policy(const Json& request) {
  using Set = SpecialPolicy::Set;
  SpecialPolicy policy = SpecialPolicy::all();  // as the release's tokenizer does
  const auto read = [&](const char* key, Set& set, std::vector<std::string>& names) {
    const auto value = request.find(key);
    if (!value) return;
    if (value->is_string()) {
      if (value->string() != "all") value->fail("is a string other than \"all\"");
      set = Set::All;
      return;
    }
    set = Set::Listed;
    for (const Json& name : value->items()) names.push_back(name.string());
  };
  read("allowed_special", policy.allowed, policy.allowed_names);
  read("disallowed_special", policy.refused, policy.refused_names);
  return policy;
}

using nlohmann::ordered_json;

// A line that asks for the ids of a text.
ordered_json answer_text(const Tokenizer& tokenizer, const Json& request) {
  const std::string& text = request.at("text").string();
  const SpecialPolicy policy = read_policy(request);
  return {{"ids", request.boolean_or("add_special_tokens", false)
                      ? tokenizer.encode_whole(text, policy)
                      : tokenizer.encode(text, policy)}};
}

// A line that asks for the text of ids.
ordered_json answer_ids(const Tokenizer& tokenizer, const Json& request) {
  std::vector<TokenId> ids;
  for (const Json& id : request.at("ids").items()) {
    ids.push_back(static_cast<TokenId>(id.integer(0, std::numeric_limits<TokenId>::max())));
  }
  return {{"text", tokenizer.decode(ids, BadBytes::Replace,
                                    request.boolean_or("skip_special_tokens", false))}};
}

// Answers line by line. A line that cannot be answered gets its error, and the next one is read.
void tokenize_lines(const Tokenizer& tokenizer, const Arguments& args, std::istream& input,
                    const std::string& name) {
  ChatLines chats(tokenizer, args.model, args.chat_template);
  int64_t number = 0;
  for (std::string line; std::getline(input, line);) {
    const std::string where = fmt::format("{}: line {}", name, ++number);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    std::string reply;
    try {
      line = mend_surrogates(std::move(line));
      const Json request = Json::parse(line, where);
      if (request.has("messages")) {
        reply = python_dumps(chats.answer(OrderedJson::parse(line, where), where));
      } else if (request.has("ids") && !request.has("text")) {
        reply = dump(answer_ids(tokenizer, request));
      } else {
        reply = dump(answer_text(tokenizer, request));
      }
    } catch (const Error& failure) {
      const std::string what = failure.line();
      reply = dump(ordered_json{{"error", what.starts_with(where) ? what : where + ": " + what}});
    }
    print(reply + "\n");
  }
}

BadText bad_text(const std::string& word) {
  if (word == "replace") return BadText::Replace;
  if (word == "strict") return BadText::Refuse;
  if (word == "raw") return BadText::Keep;
  throw Error(Kind::Misused, fmt::format("--invalid is '{}'", printable(word, 40)),
              "expected replace, strict or raw");
}

std::vector<TokenId> encode_text(const Tokenizer& tokenizer, std::string_view text,
                                 const Arguments& args) {
  const BadText bad = bad_text(args.invalid);
  if (args.specials) {
    if (bad == BadText::Keep) {
      throw Error(Kind::Misused, "--specials and --invalid raw exclude each other");
    }
    if (bad == BadText::Refuse) tokenizer.encode_bytes(text, bad);
    return tokenizer.encode(text, SpecialPolicy::all());
  }
  if (bad != BadText::Replace) return tokenizer.encode_bytes(text, bad);
  ThreadPool threads(text.size() < (1 << 20) ? 1 : globals().threads);
  return encode_parallel(tokenizer, text, threads);
}

// Ids as little-endian 32-bit numbers.
void write_ids(const std::vector<TokenId>& ids, const fs::path& path) {
  static_assert(std::endian::native == std::endian::little);
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(ids)));
  file.commit();
}

void tokenize(const Arguments& args) {
  const auto tokenizer = load_tokenizer(
      args.model, {.first_release = args.first_release, .extra_vocab = args.extra_vocab});
  if (args.jsonl) {
    if (args.file.empty() || args.file == "-") {
      tokenize_lines(*tokenizer, args, std::cin, "standard input");
    } else {
      std::ifstream input(args.file);
      if (!input || fs::is_directory(args.file)) throw_bad_input(args.file + ": cannot open");
      tokenize_lines(*tokenizer, args, input, args.file);
    }
    return;
  }
  if (!args.out.empty()) claim_output(args.out, args.force);
  // A large file need not fit in memory, only its ids.
  std::string read;
  std::optional<MappedFile> mapped;
  if (fs::is_regular_file(args.file)) {
    mapped.emplace(args.file);
  } else {
    read = args.text ? *args.text : read_input(args.file.empty() ? "-" : args.file);
  }
  std::vector<TokenId> ids =
      encode_text(*tokenizer, mapped ? mapped->text() : std::string_view(read), args);
  // What stands around a text is part of what the model reads, and none of the text's bytes.
  size_t first = 0, last = ids.size();
  if (!args.bare) {
    const auto& before = tokenizer->before_text();
    const auto& after = tokenizer->after_text();
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
    first = before.size();
    last += before.size();
  }
  const auto bytes_of = [&](size_t i) {
    return i < first || i >= last ? size_t{0} : tokenizer->token_bytes(ids[i]).size();
  };
  if (!args.out.empty()) {
    write_ids(ids, args.out);
    print(fmt::format("{}: {} tokens of {} bytes\n", args.out, ids.size(),
                      mapped ? mapped->size() : read.size()));
    return;
  }
  if (args.json) {
    nlohmann::ordered_json pieces = nlohmann::ordered_json::array();
    int64_t offset = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto length = static_cast<int64_t>(bytes_of(i));
      pieces.push_back({{"id", ids[i]},
                        {"piece", std::string(tokenizer->token_bytes(ids[i]))},
                        {"offsets", {offset, offset + length}}});
      offset += length;
    }
    print(dump(nlohmann::ordered_json{{"ids", ids}, {"pieces", pieces}}) + "\n");
    return;
  }
  print(fmt::format("{:>8} {:>8}  {}\n", "offset", "id", "piece"));
  size_t offset = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    print(fmt::format("{:>8} {:>8}  {}\n", offset, ids[i],
                      printable(tokenizer->token_bytes(ids[i]))));
    offset += bytes_of(i);
  }
  print(fmt::format("{} tokens, {} bytes, {:.2f} bytes per token\n", ids.size(), offset,
                    ids.empty() ? 0 : static_cast<double>(offset) / double(ids.size())));
}

}  // namespace

void add_tokenize(CLI::App& root) {
  Command command(
      root, "tokenize", "Text in, token ids out",
      {{"tokenize Qwen-7B 'Hello, world!'", "ids, pieces and byte offsets"},
       {"tokenize qwen.tiktoken --file book.txt --json", "as JSON"},
       {"tokenize Qwen-7B --file book.txt --out ids.bin --threads 2",
        "ids as little-endian 32-bit numbers; all threads without --threads"},
       {"tokenize Qwen-7B --jsonl < requests.jsonl",
        "a line {\"text\":...} in, {\"ids\":[...]} out; {\"ids\":[...]} in, "
        "{\"text\":...} out; {\"messages\":[...], \"tools\":[...], ...} in, {\"ids\":[...]} out"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder, or tokenizer file")
      .required()
      .replaced(resolve_model);
  command.positional("text", args->text, "Text; without it or --file, standard input is read")
      .value("TEXT");
  command.option("--file", args->file, "File to read; - = standard input").file();
  command.option("--out", args->out, "Write the ids to this file, 32 bits each", "print them")
      .file();
  command.flag("--force", args->force, "Replace the file of --out if it exists");
  command
      .option("--invalid", args->invalid,
              "Bytes that are not UTF-8: replace (by U+FFFD), strict (an error), raw (kept, "
              "without normalization)")
      .one_of({"replace", "strict", "raw"});
  command.flag("--specials", args->specials, "Parse the names of special tokens as these tokens");
  command.flag("--no-special-tokens", args->bare,
               "Leave out the BOS, EOS, ... that the tokenizer's files put around a text");
  command.flag("--json", args->json, "Print one JSON object");
  command.flag("--jsonl", args->jsonl, "JSON Lines in and out");
  command.flag("--first-release", args->first_release,
               "Special tokens of the first Qwen-7B-Chat release (<R>, <S>, ...)");
  command.option("--chat-template", args->chat_template,
                 "With --jsonl: chat template, a built-in name or a Jinja file", "the model's own");
  command.option("--extra-vocab", args->extra_vocab, ".tiktoken file of added tokens").file();
  command.refuse({"text", "--out", "--json", "--invalid", "--specials", "--no-special-tokens"},
                 "and --jsonl exclude each other", [args] { return args->jsonl; });
  command.refuse({"--chat-template"}, "goes with --jsonl", [args] { return !args->jsonl; });
  command.refuse({"text"}, "and --file exclude each other", [args] { return !args->file.empty(); });
  command.refuse({"--json"}, "and --out exclude each other", [args] { return !args->out.empty(); });
  command.on_run([args] { tokenize(*args); });
}

}  // namespace quern::cli
