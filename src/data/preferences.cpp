#include "data/preferences.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/python_text.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr uint64_t kMaxRecord = uint64_t{64} << 20;

// A message of `role` with a text.
OrderedJson message_of(const std::string& role, const std::string& text) {
  OrderedJson message;
  message.kind = OrderedJson::Kind::Object;
  message.set("role", OrderedJson::of_string(role));
  message.set("content", OrderedJson::of_string(text));
  return message;
}

// A field's messages: its list, or its text as one message of `role`.
void append_messages(const OrderedJson& value, const std::string& role, const std::string& where,
                     OrderedJson& list) {
  if (value.is_string()) {
    list.items.push_back(message_of(role, value.text));
  } else if (value.is_array()) {
    list.items.insert(list.items.end(), value.items.begin(), value.items.end());
  } else {
    throw_bad_input(where + " is neither a text nor a list of messages");
  }
}

Conversation conversation_of(OrderedJson messages, const OrderedJson& record,
                             const std::string& where) {
  OrderedJson whole;
  whole.kind = OrderedJson::Kind::Object;
  whole.set("messages", std::move(messages));
  if (const OrderedJson* tools = record.find("tools")) whole.set("tools", *tools);
  ConversationForm form = ConversationForm::OpenAi;
  return read_conversation(whole, form, where);
}

OrderedJson empty_list() {
  OrderedJson list;
  list.kind = OrderedJson::Kind::Array;
  return list;
}

}  // namespace

Preference read_preference(const OrderedJson& record, const std::string& where) {
  if (!record.is_object()) throw_bad_input(where + " is no object");
  const OrderedJson* prompt = record.find("prompt");
  const OrderedJson* chosen = record.find("chosen");
  const OrderedJson* rejected = record.find("rejected");
  const OrderedJson* messages = record.find("messages");
  if (rejected == nullptr || (chosen == nullptr && messages == nullptr)) {
    throw_bad_input(where + " has no pair of answers",
                    "prompt, chosen and rejected; chosen and rejected; or messages and rejected");
  }
  OrderedJson better = empty_list(), worse = empty_list();
  if (chosen != nullptr) {
    if (prompt == nullptr && (!chosen->is_array() || !rejected->is_array())) {
      throw_bad_input(where + " has answers without a prompt",
                      "without a prompt chosen and rejected are whole conversations");
    }
    for (OrderedJson* list : {&better, &worse}) {
      if (prompt != nullptr) append_messages(*prompt, "user", where + ".prompt", *list);
    }
    append_messages(*chosen, "assistant", where + ".chosen", better);
    append_messages(*rejected, "assistant", where + ".rejected", worse);
  } else {
    if (!messages->is_array() || messages->items.empty()) {
      throw_bad_input(where + ".messages is no list of messages");
    }
    better = worse = *messages;
    worse.items.pop_back();
    append_messages(*rejected, "assistant", where + ".rejected", worse);
  }
  Preference pair{conversation_of(std::move(better), record, where + ".chosen"),
                  conversation_of(std::move(worse), record, where + ".rejected")};
  if (pair.chosen.messages.back().text() == pair.rejected.messages.back().text() &&
      pair.chosen.messages.size() == pair.rejected.messages.size()) {
    throw_bad_input(where + " has the same answer twice: nothing is preferred");
  }
  return pair;
}

ChatPackReport pack_preferences(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                                const ChatLabeller& labeller, const fs::path& folder,
                                const ChatPackOptions& options,
                                const std::function<void()>& progress) {
  constexpr size_t kMaxProblems = 5;
  constexpr int64_t kShardTokens = int64_t{1} << 26;
  ChatPackReport report;
  DatasetManifest start;
  start.name = options.name;
  start.tokenizer_hash = tokenizer.hash();
  start.vocab = tokenizer.size();
  DatasetWriter writer(folder, std::move(start), kShardTokens);
  const auto add = [&](const LabelledChat& chat, size_t common) {
    // What both answers begin with tells them not apart.
    std::vector<uint8_t> learnt = chat.learnt;
    std::fill_n(learnt.begin(), common, uint8_t{0});
    int64_t bytes = 0;
    for (const TokenId id : chat.ids) {
      bytes += static_cast<int64_t>(tokenizer.token_bytes(id).size());
    }
    writer.add(chat.ids, learnt, bytes);
  };
  for (const fs::path& file : files) {
    LineReader lines(ByteSource::open(file), file.string(), kMaxRecord);
    for (std::string line; lines.next(line);) {
      if (python::strip(line).empty()) continue;
      const std::string where = fmt::format("{}: line {}", file.string(), lines.number());
      try {
        const Preference pair = read_preference(OrderedJson::parse(line, where), where);
        const auto chosen = labeller.label(pair.chosen, options.max_length, LongChat::Drop);
        const auto rejected = labeller.label(pair.rejected, options.max_length, LongChat::Drop);
        if (!chosen || !rejected) {
          ++report.left_out;
          continue;
        }
        const size_t least = std::min(chosen->ids.size(), rejected->ids.size());
        size_t common = 0;
        while (common < least && chosen->ids[common] == rejected->ids[common]) ++common;
        add(*chosen, common);
        add(*rejected, common);
        ++report.conversations;
        progress();
      } catch (const Error& error) {
        if (options.strict || error.kind() != Kind::BadInput) throw;
        ++report.bad;
        if (report.problems.size() < kMaxProblems) report.problems.emplace_back(error.line());
      }
    }
  }
  if (report.conversations == 0) {
    throw_bad_input(
        fmt::format("{}: no pair of answers is left to learn from: {} bad, {} too long{}",
                    files.empty() ? options.name : files[0].string(), report.bad, report.left_out,
                    report.problems.empty() ? "" : "; " + report.problems[0]));
  }
  writer.finish();
  return report;
}

}  // namespace quern
