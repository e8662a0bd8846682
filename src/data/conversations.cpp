#include "data/conversations.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr size_t kMaxProblems = 5;
constexpr std::pair<std::string_view, ConversationForm> kForms[] = {
    {"auto", ConversationForm::Auto},
    {"openai", ConversationForm::OpenAi},
    {"sharegpt", ConversationForm::ShareGpt},
    {"alpaca", ConversationForm::Alpaca},
    {"release", ConversationForm::Release}};

[[noreturn]] void bad(const std::string& where, const std::string& problem, std::string hint = {}) {
  throw_bad_input(where + " " + problem, std::move(hint));
}

const OrderedJson* find(const OrderedJson& record, std::string_view key) {
  const OrderedJson* value = record.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const std::string& text(const OrderedJson& record, std::string_view key, const std::string& where) {
  const OrderedJson* value = find(record, key);
  if (value == nullptr) bad(where, fmt::format("lacks the member '{}'", key));
  if (!value->is_string()) bad(fmt::format("{}.{}", where, key), "is not a string");
  return value->text;
}

// The speakers of ShareGPT's and of the release's form. Both write `conversations`.
struct Speaker {
  std::string_view name;
  ChatRole role;
  ConversationForm form;
};
constexpr Speaker kSpeakers[] = {{"human", ChatRole::User, ConversationForm::ShareGpt},
                                 {"gpt", ChatRole::Assistant, ConversationForm::ShareGpt},
                                 {"chatgpt", ChatRole::Assistant, ConversationForm::ShareGpt},
                                 {"function_call", ChatRole::Assistant, ConversationForm::ShareGpt},
                                 {"observation", ChatRole::Tool, ConversationForm::ShareGpt},
                                 {"tool", ChatRole::Tool, ConversationForm::ShareGpt},
                                 {"system", ChatRole::System, ConversationForm::Auto},
                                 {"user", ChatRole::User, ConversationForm::Release},
                                 {"assistant", ChatRole::Assistant, ConversationForm::Release}};

ConversationForm form_of(const OrderedJson& record, const std::string& where) {
  if (find(record, "messages") != nullptr) return ConversationForm::OpenAi;
  if (find(record, "instruction") != nullptr) return ConversationForm::Alpaca;
  const OrderedJson* turns = find(record, "conversations");
  if (turns == nullptr) {
    bad(where, "is no conversation that is known",
        "expected messages, conversations, or instruction with output");
  }
  for (const OrderedJson& turn : turns->items) {
    const OrderedJson* from = turn.is_object() ? find(turn, "from") : nullptr;
    if (from == nullptr || !from->is_string()) continue;
    for (const Speaker& speaker : kSpeakers) {
      if (speaker.name == from->text && speaker.form != ConversationForm::Auto) return speaker.form;
    }
  }
  return ConversationForm::ShareGpt;
}

ToolCall call_of(const std::string& value, const std::string& where) {
  const OrderedJson call = OrderedJson::parse(value, where);
  ToolCall out;
  if (!call.is_object()) bad(where, "is a function_call that holds no JSON object");
  out.name = text(call, "name", where);
  if (const OrderedJson* arguments = find(call, "arguments")) {
    out.arguments = *arguments;
  } else {
    out.arguments.kind = OrderedJson::Kind::Object;
  }
  return out;
}

// Messages whose roles are ShareGPT's, as some files have them: the call as a turn of its own that
// holds JSON, and the observation behind it.
OrderedJson with_call_turns(const OrderedJson& list, const std::string& where) {
  OrderedJson out = list;
  for (size_t i = 0; i < out.items.size(); ++i) {
    const OrderedJson* role = out.items[i].is_object() ? out.items[i].find("role") : nullptr;
    if (role == nullptr || !role->is_string()) continue;
    const std::string here = fmt::format("{}[{}]", where, i);
    if (role->text == "observation") {
      out.items[i].set("role", OrderedJson::of_string("tool"));
    } else if (role->text == "function_call") {
      const ToolCall call = call_of(text(out.items[i], "content", here), here + ".content");
      Message message;
      message.role = ChatRole::Assistant;
      message.tool_calls.push_back(call);
      out.items[i] = to_json(message);
    }
  }
  return out;
}

std::vector<Message> read_turns(const OrderedJson& turns, const std::string& where,
                                ConversationForm form) {
  if (!turns.is_array()) bad(where, "is not a list of turns");
  std::vector<Message> messages;
  for (size_t i = 0; i < turns.items.size(); ++i) {
    const std::string here = fmt::format("{}[{}]", where, i);
    if (!turns.items[i].is_object()) bad(here, "is not an object");
    const std::string& from = text(turns.items[i], "from", here);
    const auto* speaker = std::find_if(std::begin(kSpeakers), std::end(kSpeakers),
                                       [&](const Speaker& row) { return row.name == from; });
    if (speaker == std::end(kSpeakers)) {
      bad(here + ".from", fmt::format("is '{}', expected {}", printable(from, 40),
                                      form == ConversationForm::Release
                                          ? "user or assistant"
                                          : "system, human, gpt, function_call or observation"));
    }
    if (speaker->form != ConversationForm::Auto && speaker->form != form) {
      bad(here + ".from",
          fmt::format("is '{}', which belongs to the form {}, not to {}", from, name(speaker->form),
                      name(form)),
          "one file has one form");
    }
    const std::string& value = text(turns.items[i], "value", here);
    if (find(turns.items[i], "weight") != nullptr) {
      bad(here + ".weight", "is known in the form openai only", "write messages instead");
    }
    Message message(speaker->role, value);
    if (from == "function_call") {
      message.parts.clear();
      message.tool_calls.push_back(call_of(value, here + ".value"));
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

std::vector<Message> read_alpaca(const OrderedJson& record, const std::string& where) {
  std::vector<Message> messages;
  if (const OrderedJson* system = find(record, "system"); system != nullptr) {
    messages.push_back({ChatRole::System, text(record, "system", where)});
  }
  if (const OrderedJson* history = find(record, "history")) {
    if (!history->is_array()) bad(where + ".history", "is not a list of pairs");
    for (size_t i = 0; i < history->items.size(); ++i) {
      const OrderedJson& pair = history->items[i];
      const bool good = pair.is_array() && pair.items.size() == 2 && pair.items[0].is_string() &&
                        pair.items[1].is_string();
      if (!good) bad(fmt::format("{}.history[{}]", where, i), "is not a question and an answer");
      messages.push_back({ChatRole::User, pair.items[0].text});
      messages.push_back({ChatRole::Assistant, pair.items[1].text});
    }
  }
  std::string question = text(record, "instruction", where);
  if (find(record, "input") != nullptr) {
    const std::string& input = text(record, "input", where);
    if (!input.empty()) question += "\n" + input;
  }
  messages.push_back({ChatRole::User, std::move(question)});
  messages.push_back({ChatRole::Assistant, text(record, "output", where)});
  return messages;
}

void check(const std::vector<Message>& messages, const std::string& where) {
  const Message* before = nullptr;
  bool spoken = false;
  std::vector<std::string> open;  // ids of calls that wait for their results
  size_t waiting = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const std::string here = fmt::format("{}[{}]", where, i);
    const bool system = message.role == ChatRole::System || message.role == ChatRole::Developer;
    const bool assistant = message.role == ChatRole::Assistant;
    // A system message may be empty on purpose: it keeps the format's own away.
    if (!system && message.role != ChatRole::Tool && message.tool_calls.empty() &&
        message.text().empty()) {
      bad(here, "is an empty turn");
    }
    if (message.role == ChatRole::Tool) {
      if (waiting == 0) bad(here, "is a tool's result, and no call waits for one");
      --waiting;
      if (!message.tool_call_id.empty() && !open.empty()) {
        const auto call = std::find(open.begin(), open.end(), message.tool_call_id);
        if (call == open.end()) {
          bad(here + ".tool_call_id",
              fmt::format("is '{}', which no call has", printable(message.tool_call_id, 40)));
        }
        open.erase(call);
      }
    } else {
      if (waiting > 0) bad(here, "follows a tool call that has no result");
      open.clear();
    }
    if (before != nullptr && before->role == message.role && message.role != ChatRole::Tool &&
        !system) {
      bad(here, fmt::format("is the {}'s, as the turn before it", name(message.role)),
          "join the two, or leave one out");
    }
    if (assistant) {
      waiting = message.tool_calls.size();
      for (const ToolCall& call : message.tool_calls) {
        if (!call.id.empty()) open.push_back(call.id);
      }
    }
    spoken = spoken || !system;
    before = &message;
  }
  if (before == nullptr) bad(where, "is empty");
  if (!spoken) bad(where, "has nothing but a system message");
}

}  // namespace

std::optional<ConversationForm> conversation_form(std::string_view name) noexcept {
  for (const auto& [known, form] : kForms) {
    if (known == name) return form;
  }
  return std::nullopt;
}

std::string_view name(ConversationForm form) noexcept {
  for (const auto& [known, value] : kForms) {
    if (value == form) return known;
  }
  return {};
}

Conversation read_conversation(const OrderedJson& record, ConversationForm& form,
                               const std::string& where) {
  if (!record.is_object()) bad(where, "is not an object");
  const ConversationForm own = form_of(record, where);
  const bool release_system = own == ConversationForm::ShareGpt || own == ConversationForm::Release;
  if (form == ConversationForm::Auto) form = own;
  if (own != form && !(release_system && find(record, "conversations") != nullptr &&
                       (form == ConversationForm::ShareGpt || form == ConversationForm::Release))) {
    bad(where, fmt::format("is of the form {}, the others of {}", name(own), name(form)),
        "one file has one form");
  }
  Conversation out;
  std::string list = where + ": messages";
  if (form == ConversationForm::OpenAi) {
    out.messages = read_messages(with_call_turns(*find(record, "messages"), list), list,
                                 {.refuse_unknown = false});
  } else if (form == ConversationForm::Alpaca) {
    list = where;
    out.messages = read_alpaca(record, where);
  } else {
    list = where + ": conversations";
    if (const OrderedJson* system = find(record, "system")) {
      if (!system->is_string()) bad(where + ": system", "is not a string");
      if (!system->text.empty()) out.messages.push_back({ChatRole::System, system->text});
    }
    auto turns = read_turns(*find(record, "conversations"), list, form);
    out.messages.insert(out.messages.end(), turns.begin(), turns.end());
  }
  if (find(record, "functions") != nullptr) {
    bad(where + ": functions", "is not known here", "write the tools as tools");
  }
  if (const OrderedJson* tools = find(record, "tools")) {
    // ShareGPT's files hold them as a text.
    out.tools = tools->is_string() && !tools->text.empty()
                    ? OrderedJson::parse(tools->text, where + ": tools")
                    : *tools;
    if (out.tools.is_string()) out.tools = {};
    if (!out.tools.is_null() && !out.tools.is_array()) bad(where + ": tools", "is not a list");
    if (out.tools.items.empty()) out.tools = {};
  }
  check(out.messages, list);
  return out;
}

ConversationReader::ConversationReader(const fs::path& path, const Options& options)
    : path_(path), options_(options), form_(options.form) {
  lines_ =
      std::make_unique<LineReader>(ByteSource::open(path), path.string(), options.max_record_bytes);
  // An array, or one object over several lines, is read as a whole.
  const auto source = ByteSource::open(path);
  std::vector<char> head(1 << 16);
  const size_t size = source->read(head);
  const std::string_view text(head.data(), size);
  const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first == text.npos || text[first] != '[') return;
  std::string whole(text.substr(first));
  while (const size_t more = source->read(head)) {
    whole.append(head.data(), more);
    if (whole.size() > options.max_record_bytes * 16) {
      throw_bad_input(path.string() + ": is a JSON array too large to read at once",
                      "write one conversation a line as JSONL");
    }
  }
  OrderedJson array = OrderedJson::parse(
      whole, path.string(), {.max_bytes = whole.size(), .max_values = size_t{100'000'000}});
  array_ = std::move(array.items);
  lines_.reset();
}

ConversationReader::~ConversationReader() = default;

std::optional<OrderedJson> ConversationReader::next_record(std::string& where) {
  if (!lines_) {
    if (at_ >= array_.size()) return std::nullopt;
    number_ = static_cast<int64_t>(at_) + 1;
    where = fmt::format("{}: item {}", path_.string(), number_);
    return std::move(array_[at_++]);
  }
  for (std::string line; lines_->next(line);) {
    std::string_view text = line;
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    number_ = lines_->number();
    where = fmt::format("{}: line {}", path_.string(), number_);
    return OrderedJson::parse(text, where, {.max_bytes = options_.max_record_bytes});
  }
  return std::nullopt;
}

bool ConversationReader::next(Conversation& conversation) {
  for (;;) {
    std::string where;
    try {
      const auto record = next_record(where);
      if (!record) return false;
      conversation = read_conversation(*record, form_, where);
      conversation.line = number_;
      return true;
    } catch (const Error& failure) {
      if (options_.strict || failure.kind() != Kind::BadInput) throw;
      ++bad_;
      if (problems_.size() < kMaxProblems) problems_.emplace_back(failure.line());
    }
  }
}

}  // namespace quern
