// quern chat: a conversation in the terminal.
#include <fmt/format.h>

#include <cstdlib>

#include "cli/commands/chat_partner.h"
#include "cli/terminal/line_editor.h"
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
};

constexpr uint64_t kMaxSavedBytes = uint64_t{64} << 20;

constexpr std::string_view kHelp =
    "/help               this list\n"
    "/reset              forget the conversation\n"
    "/system TEXT        change the system message and forget the conversation\n"
    "/save FILE          write the conversation as JSON\n"
    "/load FILE          read one back\n"
    "/set NAME VALUE     temperature, top-k, top-p, min-p, repetition-penalty, seed, "
    "max-new-tokens,\n"
    "                    greedy on|off, stats on|off; /set alone shows them\n"
    "/retry              another answer to the last question\n"
    "/stats              counts and speed of the last answer\n"
    "/quit               leave; so does Ctrl-D\n"
    "Alt-Enter, or a backslash before Enter, begins a new line. Ctrl-C ends an answer.\n";

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
        settings_{args.sampling, {}, args.max_new_tokens},
        system_(args.system),
        stats_(args.stats) {
    partner_->check(settings_);
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
        // Who reads from a pipe learns by the exit code that an answer failed.
        if (failure.kind() == Kind::NoResources ||
            (failure.kind() == Kind::Failed && !at_terminal())) {
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
    // What is typed meanwhile is for the next entry: it must not show up in the answer.
    const RawMode quiet(RawMode::CtrlC::Signal);
    ChatReply reply;
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
            print(for_terminal(text));
            flush_output();
          },
          [&](std::string_view text) {
            think(true);
            print(for_terminal(text));
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
    if (stats_) print(statistics_);
  }

  // False when the conversation is over.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(1, space == line.npos ? line.npos : space - 1);
    const size_t start = line.find_first_not_of(' ', space);
    const std::string rest = space == line.npos || start == line.npos ? "" : line.substr(start);
    if (name == "quit" || name == "exit") return false;
    if (name == "help") {
      print(kHelp);
    } else if (name == "reset") {
      messages_.clear();
    } else if (name == "system") {
      system_ = rest;
      messages_.clear();
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

  void save(const std::string& path) const {
    if (path.empty()) throw Error(Kind::Misused, "/save needs a file's name");
    OrderedJson list, file;
    list.kind = OrderedJson::Kind::Array;
    for (const Message& message : conversation()) list.items.push_back(to_json(message));
    file.set("messages", std::move(list));
    write_file(path, python_dumps(file, {.indent = 2}) + "\n");
    print(fmt::format("saved {} messages\n", messages_.size()));
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
      print(fmt::format("{}  stats {}\n", partner_->describe(settings_), stats_ ? "on" : "off"));
      return;
    }
    const size_t space = setting.find(' ');
    const std::string name = setting.substr(0, space);
    const std::string value = space == setting.npos ? "" : setting.substr(space + 1);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    const bool numeric = !value.empty() && *end == '\0';
    ChatSettings changed = settings_;
    SamplingArguments& sampling = changed.sampling;
    if (name == "greedy" || name == "stats") {
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
      sampling.top_k = static_cast<int64_t>(number);
    } else if (name == "top-p") {
      sampling.top_p = number;
    } else if (name == "min-p") {
      sampling.min_p = number;
    } else if (name == "repetition-penalty") {
      sampling.repetition_penalty = number;
    } else if (name == "seed") {
      sampling.seed = static_cast<uint64_t>(number);
    } else if (name == "max-new-tokens") {
      if (number < 1 || number > 1e6) throw Error(Kind::Misused, "expected 1 to 1000000");
      changed.max_new_tokens = static_cast<int64_t>(number);
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
  command.group("Server");
  command.option("--server", args->server.url,
                 "Address of an OpenAI-compatible server that answers instead of a model here");
  command.option("--model", args->server.model, "Name of the model there", "its first");
  command.option("--api-key-file", args->server.api_key_file, "File with the key for it");
  command.option("--trusted-certificates", args->server.trusted,
                 "Certificates in PEM form to trust beside the system's");
  command.group("Conversation");
  command.option("--system", args->system, "System message", "the model's own, if it has one");
  command
      .option("--max-new-tokens,-n", args->max_new_tokens,
              "Tokens of an answer at most; 0: as the checkpoint says, or 512")
      .range(int64_t{0}, int64_t{1} << 31);
  command.flag("--stats", args->stats, "Print counts and speed after each answer");
  args->sampling.declare(command);
  command.on_run([args] { Chat(*args).run(); });
}

}  // namespace quern::cli
