#include "evaluate/prompts.h"

namespace quern {

nlohmann::ordered_json item_record(const Item& item) {
  const auto or_null = [](const std::optional<std::string>& text) {
    return text ? nlohmann::ordered_json(*text) : nlohmann::ordered_json(nullptr);
  };
  nlohmann::ordered_json record = {{"task", item.task},
                                   {"subset", or_null(item.subset)},
                                   {"split", item.split},
                                   {"index", item.index},
                                   {"id", item.id}};
  if (item.is_chat()) {
    auto& messages = record["messages"] = nlohmann::ordered_json::array();
    for (const Message& message : item.messages) {
      messages.push_back({{"role", name(message.role)}, {"content", message.text()}});
    }
  } else {
    record["prompt"] = item.prompt;
  }
  record["choices"] =
      item.choices.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(item.choices);
  record["target"] = or_null(item.target);
  record["stop"] = item.stop;
  record["max_new_tokens"] = item.max_new_tokens > 0 ? nlohmann::ordered_json(item.max_new_tokens)
                                                     : nlohmann::ordered_json(nullptr);
  return record;
}

}  // namespace quern
