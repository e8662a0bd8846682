// quern chat: a conversation in the terminal.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "cli/commands/chat_partner.h"
#include "cli/terminal/line_editor.h"
#include "cli/terminal/word_wrap.h"
#include "core/error.h"
#include "core/ordered_json.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  ServerArguments server;
  SamplingArguments sampling;
  std::optional<std::string> system;
  int64_t max_new_tokens = 0;
  bool stats = false;
  std::string think = "auto";
};

constexpr uint64_t kMaxSavedBytes = uint64_t{64} << 20;

constexpr std::string_view kHelp =
    "/help               this list\n"
    "/reset              forget the conversation\n"
    "/system [TEXT]      show the system message, or set it and start over\n"
    "/save [-f] FILE     write the conversation as JSON; -f replaces a file\n"
    "/load FILE          read one back\n"
    "/set [NAME VALUE]   show the settings, or set one: temperature, top-k,\n"
    "                    top-p, min-p, repetition-penalty, seed,\n"
    "                    max-new-tokens, greedy on|off, think on|off|auto,\n"
    "                    stats on|off\n"
    "/retry              another answer to the last message\n"
    "/stats              tokens, tokens per second and seed of the last answer\n"
    "/quit               leave; so does Ctrl-D\n"
    "Alt-Enter, or a backslash before Enter, starts a new line.\n"
    "Ctrl-C stops an answer.\n";

// A seed of its own for each conversation, short enough to type.
uint64_t random_seed() { return std::random_device()() % 1'000'000; }

fs::path history_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state != nullptr && *state != '\0') return fs::path(state) / "quern" / "chat_history";
  if (home == nullptr) return {};
  return fs::path(home) / ".local" / "state" / "quern" / "chat_history";
}

class Chat {
 public:
  explicit Chat(const Arguments& args)
      : partner_(args.server.url.empty() ? make_model_partner(args.model)
                                         : make_server_partner(args.server)),
        settings_{args.sampling, {}, args.max_new_tokens, parse_switch("--think", args.think)},
        system_(args.system),
        stats_(args.stats) {
    partner_->check(settings_);
    // A server draws its own.
    if (!settings_.sampling.seed && args.server.url.empty())
      settings_.sampling.seed = random_seed();
  }

  void run() {
    LineEditor editor(history_file());
    if (at_terminal()) {
      print(fmt::format("{}; /help lists the commands\n", partner_->answerer().name()));
      flush_output();
    }
    while (const auto entry = editor.read("> ")) {
      try {
        if (entry->starts_with('/')) {
          if (!command(*entry)) return;
        } else if (entry->find_first_not_of(" \t\n") != entry->npos) {
          messages_.push_back({ChatRole::User, *entry});
          answer();
        }
      } catch (const Error& failure) {
        // A script that feeds the conversation through a pipe sees a failed answer by the exit code.
        if (failure.kind() == Kind::NoResources ||
            (failure.kind() == Kind::Failed && !at_terminal() && !entry->starts_with('/'))) {
          throw;
        }
        fmt::print(stderr, "quern: {}\n", failure.line());
      }
      flush_output();
    }
  }

 private:
  std::vector<Message> conversation() const {
    std::vector<Message> all;
    if (system_) all.push_back({ChatRole::System, *system_});
    all.insert(all.end(), messages_.begin(), messages_.end());
    return all;
  }

  // The answer to the last message, streamed. An interrupted one is kept as far as it came.
  void answer() {
    const InterruptScope scope;
    // Keys typed meanwhile are for the next entry and must not show up in the answer.
    const RawMode quiet(RawMode::CtrlC::Signal);
    ChatReply reply;
    WordWrap wrap;
    bool thinking = false;
    // Reasoning is set apart from the answer: dimmed on a terminal, else by an empty line.
    const auto think = [&](bool on) {
      if (std::exchange(thinking, on) == on) return;
      if (at_terminal()) print(on ? "\x1b[2m" : "\x1b[0m");
      if (!on) print("\n\n");
    };
    try {
      reply = partner_->answer(
          conversation(), settings_,
          [&](std::string_view text) {
            think(false);
            print(wrap.put(for_terminal(text)));
            flush_output();
          },
          [&](std::string_view text) {
            think(true);
            print(wrap.put(for_terminal(text)));
            flush_output();
          });
      if (thinking && at_terminal()) print("\x1b[0m");
    } catch (...) {
      if (thinking && at_terminal()) print("\x1b[0m");
      messages_.pop_back();  // the question stays unasked
      throw;
    }
    print("\n");
    messages_.push_back({ChatRole::Assistant, reply.text});
    messages_.back().reasoning_content = reply.reasoning;
    statistics_ = reply.statistics;
    if (settings_.sampling.seed && statistics_.ends_with("]\n")) {
      statistics_.resize(statistics_.size() - 2);
      statistics_ += fmt::format("; seed {}]\n", *settings_.sampling.seed);
    }
    if (stats_) print(statistics_);
  }

  // False when the conversation is over.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(1, space == line.npos ? line.npos : space - 1);
    const size_t start = line.find_first_not_of(' ', space);
    const std::string rest = space == line.npos || start == line.npos ? "" : line.substr(start);
    const bool alone = name == "quit" || name == "exit" || name == "help" || name == "reset" ||
                       name == "retry" || name == "stats";
    if (alone && !rest.empty()) {
      throw Error(Kind::Misused,
                  fmt::format("/{} stands alone, without '{}'", name, printable(rest, 40)));
    }
    if (name == "quit" || name == "exit") return false;
    if (name == "help") {
      print(kHelp);
    } else if (name == "reset") {
      messages_.clear();
      print("the conversation is forgotten\n");
    } else if (name == "system") {
      if (rest.empty()) {
        print(system_ ? *system_ + "\n" : "the system message is the model's own\n");
      } else {
        system_ = rest;
        messages_.clear();
        print("the system message is set, the conversation starts over\n");
      }
    } else if (name == "save") {
      save(rest);
    } else if (name == "load") {
      load(rest);
    } else if (name == "retry") {
      while (!messages_.empty() && messages_.back().role != ChatRole::User) messages_.pop_back();
      if (messages_.empty()) throw Error(Kind::Misused, "there is no question to retry");
      answer();
    } else if (name == "set") {
      set(rest);
    } else if (name == "stats") {
      if (statistics_.empty()) throw Error(Kind::Misused, "there is no answer yet");
      print(statistics_);
    } else {
      const std::vector<std::string> names = {"help", "reset", "system", "save", "load",
                                              "set",  "retry", "stats",  "quit"};
      const std::string guess = nearest(name, names);
      throw Error(Kind::Misused, fmt::format("there is no command /{}", printable(name, 40)),
                  guess.empty() ? "/help lists them" : "did you mean /" + guess + "?");
    }
    return true;
  }

  void save(const std::string& argument) {
    const bool force = argument.starts_with("-f ");
    const std::string path =
        force ? argument.substr(std::min(argument.find_first_not_of(' ', 3), argument.size()))
              : argument;
    if (path.empty()) throw Error(Kind::Misused, "/save needs a file's name");
    // The file that this conversation was saved to before may be written again.
    if (!force && path != saved_ && fs::exists(path)) {
      throw Error(Kind::Misused, path + ": exists already", "/save -f FILE replaces it");
    }
    OrderedJson list, file;
    list.kind = OrderedJson::Kind::Array;
    for (const Message& message : conversation()) list.items.push_back(to_json(message));
    file.set("messages", std::move(list));
    write_file(path, python_dumps(file, {.indent = 2}) + "\n");
    saved_ = path;
    print(fmt::format("saved {} messages to {}\n", messages_.size(), path));
  }

  void load(const std::string& path) {
    if (path.empty()) throw Error(Kind::Misused, "/load needs a file's name");
    const OrderedJson json = OrderedJson::parse(read_file(path, kMaxSavedBytes), path);
    const OrderedJson* list = json.find("messages");
    if (list == nullptr) throw_bad_input(path + ": lacks the member 'messages'");
    std::vector<Message> messages = read_messages(*list, path + ": messages");
    system_.reset();
    if (messages[0].role == ChatRole::System) {
      system_ = messages[0].text();
      messages.erase(messages.begin());
    }
    messages_ = std::move(messages);
    print(fmt::format("loaded {} messages\n", messages_.size()));
  }

  void set(const std::string& setting) {
    if (setting.empty()) {
      const char* think = !settings_.thinking ? "auto" : *settings_.thinking ? "on" : "off";
      print(fmt::format("{}  think {}  stats {}\n", partner_->describe(settings_), think,
                        stats_ ? "on" : "off"));
      return;
    }
    const size_t space = setting.find(' ');
    const std::string name = setting.substr(0, space);
    const std::string value = space == setting.npos ? "" : setting.substr(space + 1);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    const bool numeric = !value.empty() && *end == '\0';
    const auto whole = [&](double least, double most) {
      if (number >= least && number <= most && number == std::floor(number)) return number;
      throw Error(Kind::Misused,
                  fmt::format("expected a whole number from {:.0f} to {:.0f}", least, most));
    };
    ChatSettings changed = settings_;
    SamplingArguments& sampling = changed.sampling;
    if (name == "think") {
      if (value != "on" && value != "off" && value != "auto") {
        throw Error(Kind::Misused, "expected on, off or auto");
      }
      changed.thinking = parse_switch("/set think", value);
    } else if (name == "greedy" || name == "stats") {
      const auto on = parse_switch("/set " + name, value);
      if (!on) throw Error(Kind::Misused, "expected on or off");
      if (name == "stats") {
        stats_ = *on;
      } else {
        changed.greedy = *on;
      }
    } else if (!numeric) {
      throw Error(Kind::Misused, fmt::format("/set {} needs a number", printable(name, 40)));
    } else if (name == "temperature") {
      sampling.temperature = number;
    } else if (name == "top-k") {
      sampling.top_k = static_cast<int64_t>(whole(0, 1e9));
    } else if (name == "top-p") {
      sampling.top_p = number;
    } else if (name == "min-p") {
      sampling.min_p = number;
    } else if (name == "repetition-penalty") {
      sampling.repetition_penalty = number;
    } else if (name == "seed") {
      sampling.seed = static_cast<uint64_t>(whole(0, 9e15));
    } else if (name == "max-new-tokens") {
      changed.max_new_tokens = static_cast<int64_t>(whole(1, 1e6));
    } else {
      throw Error(Kind::Misused, fmt::format("there is no setting '{}'", printable(name, 40)));
    }
    partner_->check(changed);
    settings_ = changed;
  }

  std::unique_ptr<ChatPartner> partner_;
  ChatSettings settings_;
  std::optional<std::string> system_;  // absent: as the model's format says
  bool stats_;
  std::string statistics_;         // of the last answer
  std::string saved_;              // the file that /save wrote last
  std::vector<Message> messages_;  // without the system's
};

}  // namespace

void add_chat(CLI::App& root) {
  Command command(root, "chat", "Talk with a model in the terminal",
                  {{"chat Qwen-7B-Chat", "a conversation; /help lists its commands"},
                   {"chat Qwen-7B-Chat --system 'You answer in verse.' --temperature 0.7",
                    "with another system message"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command, /*required=*/false);
  args->model.declare_chat(command);
  command.group("Server");
  command
      .option("--server", args->server.url,
              "URL of an OpenAI-compatible server to chat with instead of a local model")
      .value("URL")
      .usual();
  args->server.declare(command);
  command.group("Conversation");
  command.option("--system", args->system, "System message", "the model's own, if it has one")
      .usual();
  command
      .option("--max-new-tokens,-n", args->max_new_tokens,
              "Maximum number of new tokens per answer; 0 = the checkpoint's, or 512")
      .range(int64_t{0}, int64_t{1} << 31)
      .usual();
  command
      .option(
          "--think", args->think,
          "Reasoning before the answer (enable_thinking of the template); auto = the template's")
      .one_of({"auto", "on", "off"});
  command.flag("--stats", args->stats,
               "Print token counts and tokens per second after each answer");
  args->sampling.declare(command, "random");
  std::vector<std::string> local = command.names_under("Model");
  local.insert(local.begin(), "model");
  command.refuse(local, "and --server exclude each other",
                 [args] { return !args->server.url.empty(); });
  command.refuse({"--model", "--api-key-file", "--trusted-certificates"}, "goes with --server",
                 [args] { return args->server.url.empty(); });
  command.on_run([args] { Chat(*args).run(); });
}

}  // namespace quern::cli
