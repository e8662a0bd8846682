#include "data/pack_chats.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "core/error.h"

namespace quern {

ChatWriter::ChatWriter(const fs::path& model, const Tokenizer& tokenizer,
                       const std::string& chat_template)
    : tokenizer_(tokenizer) {
  ChatTemplateText text =
      chat_template.empty() ? find_chat_template(model) : named_chat_template(chat_template, model);
  if (!text.text.empty()) {
    templated_ = std::make_unique<TemplatedChat>(tokenizer, std::move(text));
  } else if (supports_chatml(tokenizer)) {
    release_ = std::make_unique<ChatMl>(tokenizer);
  } else {
    throw_bad_input(model.string() + ": has no chat template",
                    fmt::format("put a chat_template.jinja beside the tokenizer, or name a format "
                                "where --chat-template is taken: {}",
                                fmt::join(builtin_chat_templates(), ", ")));
  }
}

ChatLabeller ChatWriter::labeller(ChatMask mask) const {
  return release_ ? ChatLabeller(tokenizer_, *release_, mask)
                  : ChatLabeller(tokenizer_, *templated_, mask);
}

bool ChatWriter::ends_turn(TokenId id) const {
  if (release_) return id == release_->end();
  const auto& ends = templated_->turn_ends();
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

ChatPackReport pack_chats(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                          const ChatLabeller& labeller, const fs::path& folder,
                          const ChatPackOptions& options, ThreadPool& pool,
                          const std::function<void()>& progress) {
  constexpr size_t kTogether = 1024, kMaxProblems = 5;
  constexpr int64_t kShardTokens = int64_t{1} << 26;
  struct Result {
    std::optional<LabelledChat> chat;
    std::optional<Error> problem;
  };
  ChatPackReport report;
  DatasetManifest start;
  start.name = options.name;
  start.tokenizer_hash = tokenizer.hash();
  start.vocab = tokenizer.size();
  DatasetWriter writer(folder, std::move(start), kShardTokens);
  std::vector<Conversation> waiting;

  const auto flush = [&](const fs::path& file) {
    std::vector<Result> results(waiting.size());
    pool.parallel_for(
        static_cast<int64_t>(waiting.size()), 1, [&](int64_t begin, int64_t end, int) {
          for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
            try {
              results[i].chat = labeller.label(waiting[i], options.max_length, options.when_long);
            } catch (const Error& failure) {
              results[i].problem = failure;
            }
          }
        });
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].problem) {
        const Error& failure = *results[i].problem;
        const Error named(
            failure.kind(),
            fmt::format("{}: line {}: {}", file.string(), waiting[i].line, failure.what()),
            failure.hint());
        if (options.strict || failure.kind() != Kind::BadInput) throw named;
        ++report.bad;
        if (report.problems.size() < kMaxProblems) report.problems.emplace_back(named.line());
        continue;
      }
      if (!results[i].chat) {
        ++report.left_out;
        continue;
      }
      const LabelledChat& chat = *results[i].chat;
      int64_t bytes = 0;
      for (const TokenId id : chat.ids) {
        bytes += static_cast<int64_t>(tokenizer.token_bytes(id).size());
      }
      writer.add(chat.ids, chat.learnt, bytes);
      ++report.conversations;
      report.shortened += chat.truncated ? 1 : 0;
    }
    waiting.clear();
    progress();
  };
  for (const fs::path& file : files) {
    ConversationReader reader(file, {.form = options.form, .strict = options.strict});
    for (Conversation one; reader.next(one);) {
      waiting.push_back(std::move(one));
      if (waiting.size() == kTogether) flush(file);
    }
    flush(file);
    report.bad += reader.bad_records();
    for (const std::string& problem : reader.problems()) {
      if (report.problems.size() < kMaxProblems) report.problems.push_back(problem);
    }
  }
  if (report.conversations == 0) {
    throw_bad_input(
        fmt::format("{}: no conversation is left to learn from: {} bad, {} too long{}",
                    files.empty() ? options.name : files[0].string(), report.bad, report.left_out,
                    report.problems.empty() ? "" : "; " + report.problems[0]),
        "look at them with quern data chat");
  }
  writer.finish();
  return report;
}

}  // namespace quern
