#include "cli/commands/chat_partner.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "serve/http_client.h"

namespace quern::cli {
namespace {

std::string statistics_line(int64_t prompt, double first_s, int64_t made, double rest_s) {
  return fmt::format("[{} prompt tokens, first after {:.2f} s; {} new tokens, {}]\n", prompt,
                     first_s, made,
                     rate(rest_s > 0 ? static_cast<double>(made - 1) / rest_s : 0, "tokens/s"));
}

class ModelPartner : public ChatPartner {
 public:
  explicit ModelPartner(const ModelArguments& args)
      : model_(args.model.empty() ? shipped_model() : fs::path(args.model), args.options()),
        engine_(model_.network(), &model_.tokenizer(), model_.engine_options()) {
    model_.chat();  // throws where there is none
  }

  std::string name() const override { return model_.folder().filename().string(); }

  ChatReply answer(const std::vector<Message>& messages, const ChatSettings& settings,
                   const std::function<void(std::string_view text)>& on_text) override {
    Request request;
    request.ids =
        model_.chat().render({.messages = messages, .max_window = chat_window(model_)}).ids;
    request.sampling = sampling(settings);
    request.stop = settings.sampling.stop_rules(model_);
    request.max_new_tokens = max_new_tokens(settings);
    request.stream = answers_++;
    request.text_start = true;
    const Completion reply = engine_.run_continued(
        request, [&](size_t, const NewToken& token) { on_text(token.text); }, &interrupted);
    return {reply.text,
            statistics_line(reply.prompt_tokens, reply.prefill_seconds,
                            static_cast<int64_t>(reply.ids.size()), reply.decode_seconds)};
  }

  std::string describe(const ChatSettings& settings) const override {
    const SamplingOptions s = sampling(settings);
    return fmt::format(
        "temperature {}  top-k {}  top-p {}  min-p {}  repetition-penalty {}  "
        "seed {}  max-new-tokens {}  greedy {}",
        s.temperature, s.top_k, s.top_p, s.min_p, s.repetition_penalty, s.seed,
        max_new_tokens(settings), s.greedy ? "on" : "off");
  }

  void check(const ChatSettings& settings) const override { sampling(settings).check(); }

 private:
  SamplingOptions sampling(const ChatSettings& settings) const {
    SamplingOptions options = settings.sampling.sampling(model_);
    options.greedy = settings.greedy.value_or(options.greedy);
    return options;
  }
  int64_t max_new_tokens(const ChatSettings& settings) const {
    return settings.max_new_tokens > 0 ? settings.max_new_tokens
                                       : model_.generation().max_new_tokens.value_or(512);
  }

  Model model_;
  Engine engine_;
  uint64_t answers_ = 0;
};

class ServerPartner : public ChatPartner {
 public:
  explicit ServerPartner(const ServerArguments& args)
      : client_({.url = args.url,
                 .api_key = args.api_key_file.empty() ? "" : read_api_key(args.api_key_file),
                 .trusted = args.trusted}),
        model_(args.model) {
    // Asked for even where it is named: a wrong address or key is said before the first question.
    const serve::HttpReply reply = client_.send({.method = "GET", .path = path("/models")});
    if (!reply.ok()) throw Error(Kind::Failed, reply.problem());
    const Json list = Json::parse(reply.body, "the list of models").at("data");
    if (list.size() == 0) throw Error(Kind::Failed, client_.url() + " serves no model");
    if (model_.empty()) model_ = list[0].at("id").string();
  }

  std::string name() const override {
    return fmt::format("{} at {}", printable(model_, 100), client_.url());
  }

  ChatReply answer(const std::vector<Message>& messages, const ChatSettings& settings,
                   const std::function<void(std::string_view text)>& on_text) override {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    auto first = begin;
    ChatReply out;
    int64_t prompt = 0, made = 0, pieces = 0;
    serve::HttpCall call;
    call.path = path("/chat/completions");
    call.body = dump(body(messages, settings));
    call.on_event = [&](std::string_view data) {
      if (data == "[DONE]") return false;
      const Json event = Json::parse(data, "event");
      if (const auto failed = event.find("error")) {
        throw Error(Kind::Failed, printable(failed->at("message").string(), 1000));
      }
      if (const auto usage = event.find("usage")) {
        prompt = usage->at("prompt_tokens").integer(0, INT64_MAX);
        made = usage->at("completion_tokens").integer(0, INT64_MAX);
      }
      for (const Json& choice : event.at("choices").items()) {
        const auto delta = choice.find("delta");
        const std::string text = delta ? delta->string_or("content", "") : "";
        if (text.empty()) continue;
        if (pieces++ == 0) first = Clock::now();
        out.text += text;
        on_text(text);
      }
      return true;
    };
    const serve::HttpReply reply = client_.send(std::move(call), &interrupted);
    if (!reply.ok() && !interrupted) throw Error(Kind::Failed, reply.problem());
    const auto seconds = [](auto from, auto to) {
      return std::chrono::duration<double>(to - from).count();
    };
    out.statistics = statistics_line(prompt, seconds(begin, first), made > 0 ? made : pieces,
                                     seconds(first, Clock::now()));
    return out;
  }

  std::string describe(const ChatSettings& settings) const override {
    const nlohmann::ordered_json given = body({}, settings);
    std::string out;
    const std::pair<const char*, const char*> names[] = {
        {"temperature", "temperature"},
        {"top-k", "top_k"},
        {"top-p", "top_p"},
        {"min-p", "min_p"},
        {"repetition-penalty", "repetition_penalty"},
        {"seed", "seed"},
        {"max-new-tokens", "max_tokens"}};
    for (const auto& [ours, theirs] : names) {
      const std::string value = given.contains(theirs) ? dump(given[theirs]) : "the server's";
      out += fmt::format("{}{} {}", out.empty() ? "" : "  ", ours, value);
    }
    return out;
  }

  void check(const ChatSettings&) const override {}  // the server's matter

 private:
  // Addresses are given with and without /v1.
  std::string path(const char* route) const {
    return (client_.url().ends_with("/v1") || client_.url().ends_with("/v1/") ? "" : "/v1") +
           std::string(route);
  }

  // What was not named is left out, so that the server's own defaults hold.
  nlohmann::ordered_json body(const std::vector<Message>& messages,
                              const ChatSettings& settings) const {
    nlohmann::ordered_json out = {{"model", model_},
                                  {"messages", nlohmann::ordered_json::array()},
                                  {"stream", true},
                                  {"stream_options", {{"include_usage", true}}}};
    for (const Message& message : messages) {
      if (message.role == ChatRole::System && message.text().empty()) continue;
      out["messages"].push_back({{"role", quern::name(message.role)}, {"content", message.text()}});
    }
    const SamplingArguments& s = settings.sampling;
    const auto put = [&](const char* name, const auto& value) {
      if (value) out[name] = *value;
    };
    put("temperature", s.temperature);
    put("top_p", s.top_p);
    put("top_k", s.top_k);
    put("min_p", s.min_p);
    put("typical_p", s.typical_p);
    put("repetition_penalty", s.repetition_penalty);
    put("frequency_penalty", s.frequency_penalty);
    put("presence_penalty", s.presence_penalty);
    put("no_repeat_ngram_size", s.no_repeat_ngram);
    put("seed", s.seed);
    if (settings.greedy.value_or(s.greedy)) out["temperature"] = 0;
    if (!s.stop.empty()) out["stop"] = s.stop;
    if (s.ignore_eos) out["ignore_eos"] = true;
    for (const std::string& entry : s.logit_bias) {
      const size_t colon = std::min(entry.find(':'), entry.size());
      const std::string bias = entry.substr(std::min(colon + 1, entry.size()));
      char* end = nullptr;
      out["logit_bias"][entry.substr(0, colon)] = std::strtod(bias.c_str(), &end);
      if (bias.empty() || *end != '\0') {
        throw Error(Kind::Misused, fmt::format("--logit-bias is '{}'", printable(entry, 40)),
                    "expected ID:BIAS");
      }
    }
    if (settings.max_new_tokens > 0) out["max_tokens"] = settings.max_new_tokens;
    return out;
  }

  serve::HttpClient client_;
  std::string model_;
};

}  // namespace

std::unique_ptr<ChatPartner> make_model_partner(const ModelArguments& model) {
  return std::make_unique<ModelPartner>(model);
}

std::unique_ptr<ChatPartner> make_server_partner(const ServerArguments& server) {
  return std::make_unique<ServerPartner>(server);
}

std::string read_api_key(const std::string& file) {
  const std::string text = read_file(file);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    line.resize(std::min(line.find_first_of(" \t\r"), line.size()));  // limits may stand behind it
    if (!line.empty() && !line.starts_with('#') && !line.starts_with("sha256:")) return line;
  }
  throw_bad_input(file + ": holds no key", "expected the key on a line of its own");
}

}  // namespace quern::cli
