// The two partners of a conversation: a model in this process, or a server.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands/arguments.h"
#include "text/chat_format.h"

namespace quern::cli {

struct ChatSettings {
  SamplingArguments sampling;
  std::optional<bool> greedy;    // absent: as the model says
  int64_t max_new_tokens = 0;    // 0: as the model says
  std::optional<bool> thinking;  // enable_thinking of its template; absent: as that says
};

struct ChatReply {
  std::string text, reasoning;
  std::string statistics;  // one line on counts and speed
};

class ChatPartner {
 public:
  virtual ~ChatPartner() = default;

  virtual Answerer& answerer() = 0;
  // One line: what the settings come to.
  virtual std::string describe(const ChatSettings& settings) const = 0;
  // Throws Misused for a setting out of its range, as far as that is known here.
  virtual void check(const ChatSettings& settings) const = 0;

  // The answer to the last message; `on_text` and `on_reasoning` get it as it comes. Ends early
  // when `interrupted` is set. Throws what the answer's failure was.
  using OnText = std::function<void(std::string_view text)>;
  ChatReply answer(const std::vector<Message>& messages, const ChatSettings& settings,
                   const OnText& on_text, const OnText& on_reasoning);

 private:
  uint64_t answers_ = 0;
};

std::unique_ptr<ChatPartner> make_model_partner(const ModelArguments& model);

struct ServerArguments {
  std::string url, model, api_key_file, trusted;

  void declare(Command& command);  // --model, --api-key-file, --trusted-certificates
  net::ClientOptions client() const;
};
// An OpenAI-compatible server.
std::unique_ptr<ChatPartner> make_server_partner(const ServerArguments& server);

// The first line of a file of keys that is one.
std::string read_api_key(const std::string& file);

}  // namespace quern::cli
