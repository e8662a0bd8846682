#include "cli/commands/chat_partner.h"

#include <fmt/format.h>

#include "cli/commands/model_store.h"
#include "core/error.h"

namespace quern::cli {
namespace {

class ModelPartner : public ChatPartner {
 public:
  explicit ModelPartner(const ModelArguments& args)
      : model_(args.model.empty() ? default_model() : fs::path(args.model), args.options()),
        answerer_(make_model_answerer(model_, {.batch = 1, .whole_context = true})) {
    model_.chat();  // throws where there is none
  }

  Answerer& answerer() override { return *answerer_; }

  std::string describe(const ChatSettings& settings) const override {
    const SamplingOptions s = sampling(settings);
    const int64_t most = settings.max_new_tokens > 0
                             ? settings.max_new_tokens
                             : model_.generation().max_new_tokens.value_or(512);
    return fmt::format(
        "temperature {}  top-k {}  top-p {}  min-p {}  repetition-penalty {}  "
        "seed {}  max-new-tokens {}  greedy {}",
        s.temperature, s.top_k, s.top_p, s.min_p, s.repetition_penalty, s.seed, most,
        s.greedy ? "on" : "off");
  }

  void check(const ChatSettings& settings) const override { sampling(settings).check(); }

 private:
  SamplingOptions sampling(const ChatSettings& settings) const {
    SamplingOptions options = settings.sampling.sampling(model_);
    options.greedy = settings.greedy.value_or(options.greedy);
    return options;
  }

  Model model_;
  std::unique_ptr<Answerer> answerer_;
};

class ServerPartner : public ChatPartner {
 public:
  explicit ServerPartner(const ServerArguments& args)
      : answerer_(make_server_answerer({.client = args.client(),
                                        .model = args.model,
                                        .connections = 1,
                                        .tries = 1,
                                        .stream = true})) {}

  Answerer& answerer() override { return *answerer_; }

  std::string describe(const ChatSettings& settings) const override {
    const SamplingArguments& s = settings.sampling;
    std::string out;
    const auto add = [&](const char* name, const auto& value) {
      out += fmt::format("{}{} ", out.empty() ? "" : "  ", name);
      out += value ? fmt::format("{}", *value) : "the server's";
    };
    const bool greedy = settings.greedy.value_or(s.greedy);
    add("temperature", greedy ? std::optional<double>(0) : s.temperature);
    add("top-k", s.top_k);
    add("top-p", s.top_p);
    add("min-p", s.min_p);
    add("repetition-penalty", s.repetition_penalty);
    add("seed", s.seed);
    add("max-new-tokens", settings.max_new_tokens > 0
                              ? std::optional<int64_t>(settings.max_new_tokens)
                              : std::nullopt);
    return out;
  }

  void check(const ChatSettings&) const override {}  // the server's matter

 private:
  std::unique_ptr<Answerer> answerer_;
};

}  // namespace

ChatReply ChatPartner::answer(const std::vector<Message>& messages, const ChatSettings& settings,
                              const OnText& on_text, const OnText& on_reasoning) {
  CompleteRequest request;
  request.messages = messages;
  request.sampling = settings.sampling.choice();
  if (settings.greedy) request.sampling.greedy = settings.greedy;
  request.stop = settings.sampling.stop;
  request.ignore_eos = settings.sampling.ignore_eos;
  request.max_new_tokens = settings.max_new_tokens;
  request.stream = answers_++;
  request.thinking = settings.thinking;
  const Answer answer =
      answerer().complete({&request, 1},
                          {.text = [&](size_t, std::string_view text) { on_text(text); },
                           .reasoning = [&](size_t, std::string_view text) { on_reasoning(text); }},
                          &interrupted)[0];
  if (answer.finish == FinishReason::Failed) throw Error(answer.failure_kind, answer.failure);
  const double rest = answer.seconds - answer.first_seconds;
  return {answer.text, answer.reasoning,
          fmt::format(
              "[{} prompt tokens, first after {:.2f} s; {} new tokens, {}]\n", answer.prompt_tokens,
              answer.first_seconds, answer.new_tokens,
              rate(rest > 0 ? static_cast<double>(answer.new_tokens - 1) / rest : 0, "tokens/s"))};
}

void ServerArguments::declare(Command& command) {
  command.option("--model", model, "Name of the server's model", "its first").value("NAME");
  command.option("--api-key-file", api_key_file, "File with the server's API key").file();
  command.option("--trusted-certificates", trusted, "PEM certificates to trust beside the system's")
      .file();
  command.explain_unknown(explain_api_key);
}

net::ClientOptions ServerArguments::client() const {
  return {.url = url,
          .api_key = api_key_file.empty() ? "" : read_api_key(api_key_file),
          .trusted = trusted};
}

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
