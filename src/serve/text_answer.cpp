// The answers of completions.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/utf8.h"
#include "serve/openai_answer.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

// A token's name in completions: its text, or "bytes:\xe4\xbd" where that is no UTF-8.
std::string token_name(const Tokenizer& tokenizer, TokenId id) {
  const std::string_view bytes = bytes_of(tokenizer, id);
  if (utf8::is_valid(bytes)) return std::string(bytes);
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

int64_t characters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

const char* finish_name(FinishReason reason) {
  return reason == FinishReason::Stop ? "stop" : "length";
}

class TextAnswer : public OpenAiAnswer {
 public:
  using OpenAiAnswer::OpenAiAnswer;

 private:
  ordered_json logprobs_json(Choice& choice, size_t begin, size_t end) const;

  void stream_begin(size_t index) override {
    if (plan_.echo && !plan_.prompt_logprobs) {
      const std::string prompt = prompt_text(choices_[index].prompt);
      stream_piece({index, prompt, {}, 0, 0, {}});
    }
  }

  void stream_piece(const Piece& piece) override {
    ordered_json choice = {{"index", piece.choice}};
    choice["text"] = piece.text;
    choice["logprobs"] = piece.first < piece.last
                             ? logprobs_json(choices_[piece.choice], piece.first, piece.last)
                             : ordered_json();
    choice["finish_reason"] =
        piece.finish ? ordered_json(finish_name(*piece.finish)) : ordered_json();
    send_choice(std::move(choice));
  }

  std::vector<size_t> best_of(size_t first) const;
  std::string whole_answer() override;
};

ordered_json TextAnswer::logprobs_json(Choice& choice, size_t begin, size_t end) const {
  ordered_json out = {{"tokens", ordered_json::array()},
                      {"token_logprobs", ordered_json::array()},
                      {"top_logprobs", ordered_json::array()},
                      {"text_offset", ordered_json::array()}};
  const auto add = [&](TokenId id, const Logprobs* logprobs) {
    out["tokens"].push_back(token_name(tokenizer(), id));
    // A token that begins inside a character stands where the character does.
    const std::string_view bytes = bytes_of(tokenizer(), id);
    const bool inside = !bytes.empty() && (static_cast<unsigned char>(bytes[0]) & 0xC0) == 0x80;
    out["text_offset"].push_back(choice.offset - (inside && choice.offset > 0 ? 1 : 0));
    if (!tokenizer().is_special(id)) choice.offset += characters(bytes);
    if (logprobs == nullptr) {  // the first token has none
      out["token_logprobs"].push_back(nullptr);
      out["top_logprobs"].push_back(nullptr);
      return;
    }
    out["token_logprobs"].push_back(finite(logprobs->chosen));
    // The most likely tokens, and the chosen one.
    ordered_json top = ordered_json::object();
    for (const TokenLogprob& other : logprobs->top) {
      top[token_name(tokenizer(), other.id)] = finite(other.logprob);
    }
    if (plan_.base.top_logprobs > 0) top[token_name(tokenizer(), id)] = finite(logprobs->chosen);
    out["top_logprobs"].push_back(std::move(top));
  };
  if (begin == 0 && plan_.prompt_logprobs) {
    const auto& ids = plan_.prompts[choice.prompt];
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto& known = choice.completion.prompt_logprobs;
      const auto first = static_cast<size_t>(plan_.base.prompt_logprobs_from);
      add(ids[i], i < first || i - first >= known.size() ? nullptr : &known[i - first]);
    }
  } else if (begin == 0 && plan_.echo) {
    choice.offset = characters(prompt_text(choice.prompt));
  }
  for (size_t i = begin; i < end; ++i) add(choice.held[i].id, &choice.held[i].logprobs);
  return out;
}

// The n choices with the highest mean log-probability among those of one prompt, which begin at
// `first`.
std::vector<size_t> TextAnswer::best_of(size_t first) const {
  std::vector<size_t> order(static_cast<size_t>(plan_.best_of));
  std::iota(order.begin(), order.end(), first);
  if (plan_.best_of == plan_.n) return order;
  const auto mean = [&](size_t index) {
    const auto& logprobs = choices_[index].completion.logprobs;
    double sum = 0;
    for (const Logprobs& token : logprobs) sum += finite(token.chosen);
    return logprobs.empty() ? 0 : sum / static_cast<double>(logprobs.size());
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return mean(a) > mean(b); });
  order.resize(static_cast<size_t>(plan_.n));
  return order;
}

std::string TextAnswer::whole_answer() {
  ordered_json choices = ordered_json::array();
  const auto per_prompt = static_cast<size_t>(plan_.best_of);
  for (size_t first = 0; first < choices_.size(); first += per_prompt) {
    for (const size_t index : best_of(first)) {
      Choice& choice = choices_[index];
      ordered_json entry = {{"index", choices.size()}};
      entry["text"] =
          (plan_.echo ? prompt_text(choice.prompt) : std::string()) + choice.completion.text;
      entry["logprobs"] = plan_.logprobs ? logprobs_json(choice, 0, count_releasable(choice, true))
                                         : ordered_json();
      entry["finish_reason"] = finish_name(choice.completion.reason);
      choices.push_back(std::move(entry));
    }
  }
  return whole_body(std::move(choices));
}

}  // namespace

std::shared_ptr<Generation> make_text(std::shared_ptr<Exchange> exchange,
                                      std::shared_ptr<LoadedModel> model, Plan plan,
                                      Metrics& metrics) {
  return std::make_shared<TextAnswer>(std::move(exchange), std::move(model), std::move(plan),
                                      metrics);
}

}  // namespace quern::serve
