// quern tokenizer compression: how many bytes a token is worth, language by language.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/tokenizer_commands.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "plot/chart.h"
#include "text/compression.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string data, baseline, figure;
  std::vector<std::string> tokenizers;
  bool json = false, force = false;
};

// "NAME=PATH", or a path that is named for its file or folder.
NamedTokenizer open(const std::string& argument) {
  const size_t equals = argument.find('=');
  const bool named = equals != argument.npos && !fs::exists(argument);
  const fs::path path = named ? argument.substr(equals + 1) : argument;
  if (!fs::exists(path)) throw_bad_input(path.string() + ": there is no such file or folder");
  std::string name =
      named ? argument.substr(0, equals) : fs::weakly_canonical(path).stem().string();
  return {std::move(name), load_tokenizer(path)};
}

nlohmann::ordered_json as_json(const std::vector<Compression>& rows,
                               const std::vector<NamedTokenizer>& tokenizers) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const Compression& row : rows) {
    nlohmann::ordered_json tokens, per_token, relative;
    for (size_t i = 0; i < tokenizers.size(); ++i) {
      tokens[tokenizers[i].name] = row.tokens[i];
      per_token[tokenizers[i].name] = row.bytes_per_token(i);
      relative[tokenizers[i].name] = row.relative(i);
    }
    out[row.language] = {{"bytes", row.bytes},
                         {"lines", row.lines},
                         {"tokens", tokens},
                         {"bytes_per_token", per_token},
                         {"relative", relative}};
  }
  return out;
}

std::string as_table(const std::vector<Compression>& rows,
                     const std::vector<NamedTokenizer>& tokenizers) {
  std::string out = "| text | bytes |";
  std::string rule = "|---|---:|";
  for (size_t i = 0; i < tokenizers.size(); ++i) {
    out += fmt::format(" {} |", tokenizers[i].name);
    rule += "---:|";
    if (i == 0) continue;
    out += " relative |";
    rule += "---:|";
  }
  out += "\n" + rule + "\n";
  for (const Compression& row : rows) {
    out += fmt::format("| {} | {} |", row.language, row.bytes);
    for (size_t i = 0; i < tokenizers.size(); ++i) {
      out += fmt::format(" {:.3f} |", row.bytes_per_token(i));
      if (i > 0) out += fmt::format(" {:.3f} |", row.relative(i));
    }
    out += "\n";
  }
  return out;
}

void compression(const Arguments& args) {
  std::vector<NamedTokenizer> tokenizers = {open(args.baseline)};
  for (const std::string& tokenizer : args.tokenizers) tokenizers.push_back(open(tokenizer));
  for (size_t i = 0; i < tokenizers.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (tokenizers[i].name != tokenizers[k].name) continue;
      throw Error(Kind::Misused, "two tokenizers are called " + tokenizers[i].name,
                  "name one: --tokenizer NAME=PATH");
    }
  }
  if (!args.figure.empty()) {
    for (const char* ending : {".svg", ".png"}) {
      claim_output(fs::path(args.figure).replace_extension(ending), args.force);
    }
  }
  ThreadPool threads(globals().threads);
  const std::vector<Compression> rows = measure_compression(args.data, tokenizers, threads);
  print(args.json ? dump(as_json(rows, tokenizers), 1) + "\n" : as_table(rows, tokenizers));
  if (args.figure.empty()) return;
  const std::string figure = compression_figure(rows, tokenizers);
  for (const char* ending : {".svg", ".png"}) {
    write_picture(fs::path(args.figure).replace_extension(ending), figure);
  }
}

}  // namespace

void add_tokenizer_compression(CLI::App& tokenizer) {
  Command command(
      tokenizer, "compression", "Bytes per token of tokenizers side by side, by language",
      {{"tokenizer compression --data texts --baseline Qwen-7B --tokenizer Bytes=qwen.tiktoken "
        "--figure rates.svg",
        "a table, rates.svg and rates.png"}});
  auto args = std::make_shared<Arguments>();
  command.option("--data", args->data, "Folder of texts, one LANGUAGE.txt each")
      .folder()
      .required();
  command
      .option("--baseline", args->baseline,
              "Reference tokenizer: a file, a folder, or a folder with a unigram table")
      .value("[NAME=]PATH")
      .required();
  command.option("--tokenizer", args->tokenizers, "Tokenizer to compare with it; repeatable")
      .value("[NAME=]PATH");
  command.option("--figure", args->figure, "Draw bars to this .svg and a .png beside it").file();
  command.flag("--force", args->force, "Replace the pictures if they exist");
  command.flag("--json", args->json, "Print JSON");
  command.on_run([args] { compression(*args); });
}

}  // namespace quern::cli
