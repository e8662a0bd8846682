#include "cli/commands/data_chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>
#include <unordered_set>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "cli/terminal/terminal.h"
#include "core/error.h"
#include "core/markup.h"
#include "data/pack_chats.h"
#include "text/load.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::vector<std::string> files;
  std::string tokenizer, chat_template, form = "auto", mask = "memo", when_long = "drop", html;
  int64_t max_length = 2048, show = 0;
  bool jsonl = false, report = false, strict = false;
};

// The model's own way to write conversations, and the labels by it.
struct Labels {
  explicit Labels(const Arguments& args)
      : tokenizer(load_tokenizer(args.tokenizer)),
        writer(args.tokenizer, *tokenizer, args.chat_template),
        labeller(writer.labeller(*chat_mask(args.mask))) {}

  std::shared_ptr<const Tokenizer> tokenizer;
  ChatWriter writer;
  ChatLabeller labeller;
};

// Sums over all conversations.
struct Report {
  std::vector<int64_t> lengths;  // in tokens, before anything was left out for its length
  std::map<std::string, int64_t> roles, forms;
  int64_t turns = 0, tokens = 0, learnt = 0, truncated = 0, left_out = 0, bad = 0;
  int64_t ends = 0, learnt_ends = 0, duplicates = 0;
  std::unordered_set<std::string> seen;
  std::vector<std::string> problems;

  void add(const LabelledChat& chat, const Labels& labels) {
    turns += static_cast<int64_t>(chat.turns.size());
    tokens += static_cast<int64_t>(chat.ids.size());
    truncated += chat.truncated ? 1 : 0;
    for (size_t i = 0; i < chat.ids.size(); ++i) {
      learnt += chat.learnt[i];
      if (!labels.writer.ends_turn(chat.ids[i])) continue;
      ++ends;
      learnt_ends += chat.learnt[i];
    }
    const std::string_view bytes(reinterpret_cast<const char*>(chat.ids.data()),
                                 chat.ids.size() * sizeof(TokenId));
    duplicates += seen.emplace(bytes).second ? 0 : 1;
  }

  // Names and values, in the order of the report.
  std::vector<std::pair<std::string, std::string>> rows() const {
    std::vector<int64_t> sorted = lengths;
    std::sort(sorted.begin(), sorted.end());
    const auto quantile = [&](double share) {
      return sorted.empty()
                 ? int64_t{0}
                 : sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
    };
    const auto named = [](const std::map<std::string, int64_t>& counts) {
      std::string all;
      for (const auto& [name, count] : counts) {
        all += fmt::format("{}{} {}", all.empty() ? "" : ", ", name, count);
      }
      return all;
    };
    return {{"conversations", std::to_string(lengths.size())},
            {"forms", named(forms)},
            {"messages", named(roles)},
            {"turns", std::to_string(turns)},
            {"tokens", fmt::format("{}, {} of them learnt", tokens, learnt)},
            {"length", fmt::format("median {}, 90 % up to {}, 99 % up to {}, longest {}",
                                   quantile(0.5), quantile(0.9), quantile(0.99), quantile(1))},
            {"shortened", std::to_string(truncated)},
            {"left out as too long", std::to_string(left_out)},
            {"ends of turns", fmt::format("{}, {} of them learnt", ends, learnt_ends)},
            {"exact duplicates", std::to_string(duplicates)},
            {"bad records", std::to_string(bad)}};
  }
};

std::string html_page(const Report& report) {
  std::string out =
      "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Conversations</title>\n"
      "<style>body{font:16px/1.5 sans-serif;margin:2em auto;max-width:46em}"
      "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #8884;"
      "padding:.3em .6em;text-align:left;vertical-align:top}"
      "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}</style>\n"
      "<h1>Conversations</h1>\n<table>\n";
  for (const auto& [name, value] : report.rows()) {
    out +=
        fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escape_markup(name), escape_markup(value));
  }
  out += "</table>\n";
  if (!report.problems.empty()) out += "<h2>Bad records</h2>\n<ul>\n";
  for (const std::string& problem : report.problems) {
    out += fmt::format("<li>{}</li>\n", escape_markup(problem));
  }
  if (!report.problems.empty()) out += "</ul>\n";
  return out;
}

// The text of a conversation. Tokens that are not learnt are dimmed, or stand in [[brackets]] where
// there is no terminal.
std::string shown(const LabelledChat& chat, const Tokenizer& tokenizer) {
  const bool colour = at_terminal();
  std::string out;
  for (size_t begin = 0; begin < chat.ids.size();) {
    size_t end = begin;
    while (end < chat.ids.size() && chat.learnt[end] == chat.learnt[begin]) ++end;
    const std::string text = for_terminal(tokenizer.decode(
        std::span(chat.ids).subspan(begin, end - begin), BadBytes::Replace, false));
    const bool learnt = chat.learnt[begin] != 0;
    out += learnt ? text : colour ? "\x1b[2m" + text + "\x1b[0m" : "[[" + text + "]]";
    begin = end;
  }
  return out;
}

void print_line(const LabelledChat& chat, int64_t line) {
  std::string ids, labels, turns;
  for (size_t i = 0; i < chat.ids.size(); ++i) {
    const char* comma = i == 0 ? "" : ", ";
    ids += fmt::format("{}{}", comma, chat.ids[i]);
    labels += fmt::format("{}{}", comma, chat.learnt[i] != 0 ? chat.ids[i] : -100);
  }
  for (const auto& [begin, end] : chat.turns) {
    turns += fmt::format("{}[{}, {}]", turns.empty() ? "" : ", ", begin, end);
  }
  print(
      fmt::format("{{\"line\": {}, \"ids\": [{}], \"labels\": [{}], \"turns\": [{}], "
                  "\"truncated\": {}}}\n",
                  line, ids, labels, turns, chat.truncated));
}

void run_chat(const Arguments& args) {
  const Labels labels(args);
  const LongChat when_long = *long_chat(args.when_long);
  Report report;
  int64_t to_show = args.show;
  const InterruptScope scope;
  for (const std::string& file : args.files) {
    if (!fs::is_regular_file(file)) throw_bad_input(file + ": is no file that can be read");
    ConversationReader reader(file, {.form = *conversation_form(args.form), .strict = args.strict});
    Conversation conversation;
    while (reader.next(conversation)) {
      check_interrupted();
      const std::string where = fmt::format("{}: line {}", file, conversation.line);
      try {
        const LabelledChat whole = labels.labeller.label(conversation);
        report.lengths.push_back(static_cast<int64_t>(whole.ids.size()));
        ++report.forms[std::string(name(reader.form()))];
        for (const Message& message : conversation.messages) {
          ++report.roles[std::string(name(message.role))];
        }
        const auto chat = labels.labeller.label(conversation, args.max_length, when_long);
        if (!chat) {
          ++report.left_out;
          continue;
        }
        report.add(*chat, labels);
        if (args.jsonl) print_line(*chat, conversation.line);
        if (to_show-- > 0)
          print(fmt::format("--- {}\n{}\n", where, shown(*chat, *labels.tokenizer)));
      } catch (const Error& failure) {
        if (failure.kind() != Kind::BadInput) throw;
        const Error named(failure.kind(), where + ": " + failure.what(), failure.hint());
        if (args.strict) throw named;
        ++report.bad;
        if (report.problems.size() < 5) report.problems.push_back(named.line());
      }
    }
    report.bad += reader.bad_records();
    for (const std::string& problem : reader.problems()) {
      if (report.problems.size() < 5) report.problems.push_back(problem);
    }
  }
  if (args.report || (!args.jsonl && args.show == 0)) {
    for (const auto& [name, value] : report.rows()) print(fmt::format("{:<22} {}\n", name, value));
  }
  if (!args.html.empty()) write_file(args.html, html_page(report));
  // Every conversation that is left out is accounted for.
  for (const std::string& problem : report.problems) fmt::print(stderr, "quern: {}\n", problem);
  if (report.bad > 0) fmt::print(stderr, "quern: {} bad records were left out\n", report.bad);
  if (report.left_out > 0) {
    fmt::print(stderr, "quern: {} conversations were left out: longer than {} tokens\n",
               report.left_out, args.max_length);
  }
}

}  // namespace

void add_data_chat(CLI::App& data) {
  Command command(
      data, "chat", "Conversations as training reads them: ids, what is learnt, a report",
      {{"data chat chats.jsonl --tokenizer Qwen-7B", "lengths, roles, what is learnt, duplicates"},
       {"data chat chats.jsonl --tokenizer Qwen-7B --show 3", "samples, what is not learnt dimmed"},
       {"data chat chats.jsonl --tokenizer Qwen-7B --mask assistant --jsonl",
        "a line of ids and labels a conversation; -100 is not learnt"}});
  auto args = std::make_shared<Arguments>();
  command
      .positional("files", args->files, "Files of conversations: JSONL or JSON, also .gz and .zst")
      .required();
  command
      .option("--tokenizer", args->tokenizer,
              "Model whose format they are written in, or a tokenizer's file")
      .path()
      .required()
      .replaced(resolve_model);
  command.option("--chat-template", args->chat_template,
                 "How they are written: a built-in name or a Jinja file", "the model's own");
  command
      .option("--format", args->form,
              "Form of the records: openai (messages), sharegpt (from human and gpt), alpaca "
              "(instruction, output), release (from user and assistant); auto: by their keys")
      .one_of({"auto", "openai", "sharegpt", "alpaca", "release"});
  command
      .option("--mask", args->mask,
              "What is learnt: memo (all but the user's words), release (marks of turns and the "
              "assistant's words), assistant (its words and what ends them)")
      .one_of({"memo", "release", "assistant"});
  command.option("--max-length", args->max_length, "Tokens of a conversation at most")
      .range(int64_t{8}, int64_t{1} << 31);
  command
      .option("--long", args->when_long,
              "Longer ones: drop their oldest turns, cut their end, or error")
      .one_of({"drop", "cut", "error"});
  command.flag("--jsonl", args->jsonl, "Print {line, ids, labels, turns, truncated} for each");
  command.option("--show", args->show, "Print so many samples").range(int64_t{0}, int64_t{1} << 31);
  command.flag("--report", args->report, "Print the report beside --jsonl or --show");
  command.option("--html", args->html, "Write the report as a page into this file", "none");
  command.flag("--strict", args->strict, "Stop at the first bad record instead of counting it");
  command.on_run([args] { run_chat(*args); });
}

}  // namespace quern::cli
