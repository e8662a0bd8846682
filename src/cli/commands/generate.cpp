// quern generate: continues a prompt.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "core/error.h"
#include "core/json.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  SamplingArguments sampling;
  std::optional<std::string> prompt, system;
  std::string prompt_file, ids_file;
  int64_t max_new_tokens = 0;
  int64_t samples = 1;
  int64_t logprobs = -1;
  std::string think = "auto";
  bool chat = false, json = false, truncate = false, echo = false, stats = false;
};

nlohmann::ordered_json to_json(const Logprobs& logprobs, TokenId id, const Tokenizer* tokenizer) {
  const auto entry = [&](TokenId token, float value) {
    nlohmann::ordered_json out = {{"id", token}, {"logprob", value}};
    if (tokenizer != nullptr && token < tokenizer->size()) {
      out["piece"] = std::string(tokenizer->token_bytes(token));
    }
    return out;
  };
  nlohmann::ordered_json out = entry(id, logprobs.chosen);
  if (logprobs.top.empty()) return out;
  out["top"] = nlohmann::ordered_json::array();
  for (const TokenLogprob& other : logprobs.top)
    out["top"].push_back(entry(other.id, other.logprob));
  return out;
}

void print_json(const Completion& completion, size_t index, const Tokenizer* tokenizer) {
  nlohmann::ordered_json line = {{"index", index}, {"ids", completion.ids}};
  if (tokenizer != nullptr) line["text"] = completion.text;
  if (!completion.logprobs.empty()) {
    line["logprobs"] = nlohmann::ordered_json::array();
    for (size_t i = 0; i < completion.logprobs.size(); ++i) {
      line["logprobs"].push_back(to_json(completion.logprobs[i], completion.ids[i], tokenizer));
    }
  }
  line["finish_reason"] = name(completion.reason);
  line["prompt_tokens"] = completion.prompt_tokens;
  line["prefill_seconds"] = completion.prefill_seconds;
  line["decode_seconds"] = completion.decode_seconds;
  print(dump(line) + "\n");
}

std::string statistics(const Completion& c) {
  const auto tokens = static_cast<double>(c.ids.size());
  return fmt::format("{} prompt tokens, {}; {} new tokens, {}", c.prompt_tokens,
                     rate(static_cast<double>(c.prompt_tokens) / c.prefill_seconds, "tokens/s"),
                     c.ids.size(),
                     rate(c.decode_seconds > 0 ? (tokens - 1) / c.decode_seconds : 0, "tokens/s"));
}

// Log-probabilities for people: a line per token, the most likely ones beside it.
void print_logprobs(const Completion& completion, const Tokenizer* tokenizer) {
  const auto piece = [&](TokenId id) {
    const bool known = tokenizer != nullptr && id < tokenizer->size();
    return known ? printable(tokenizer->token_bytes(id), 24) : std::to_string(id);
  };
  print(fmt::format("{:>9}  {:<18}  most likely\n", "logprob", "token"));
  for (size_t i = 0; i < completion.logprobs.size(); ++i) {
    const Logprobs& row = completion.logprobs[i];
    std::string others;
    for (const TokenLogprob& other : row.top) {
      others +=
          fmt::format("{}{} {:.4f}", others.empty() ? "" : ", ", piece(other.id), other.logprob);
    }
    print(fmt::format("{:>9.4f}  {:<18}  {}\n", row.chosen, piece(completion.ids[i]), others));
  }
}

// The prompt as text: an argument, a file, or what comes through a pipe.
std::string prompt_text(const Arguments& args) {
  if (!args.prompt_file.empty()) return read_input(args.prompt_file);
  if (args.prompt && args.prompt != "-") return *args.prompt;
  if (args.prompt) return read_input("-");
  return piped_input().value_or("");
}

std::vector<Request> make_requests(const Arguments& args, const Model& model,
                                   const std::string& text) {
  Request request;
  request.sampling = args.sampling.sampling(model);
  request.stop = args.sampling.stop_rules(model);
  request.max_new_tokens = args.max_new_tokens > 0
                               ? args.max_new_tokens
                               : model.generation().max_new_tokens.value_or(512);
  request.top_logprobs = args.logprobs;
  request.truncate = args.truncate;
  std::vector<std::vector<TokenId>> prompts;
  if (!args.ids_file.empty()) {
    prompts = read_ids_file(args.ids_file);
    for (size_t i = 0; i < prompts.size(); ++i) {
      check_ids(prompts[i], model.config(),
                prompts.size() == 1 ? args.ids_file : fmt::format("{}: list {}", args.ids_file, i));
    }
  } else {
    if (args.chat) {
      ChatPrompt prompt{.thinking = parse_switch("--think", args.think),
                        .max_window = chat_window(model)};
      if (args.system) prompt.messages.push_back({ChatRole::System, *args.system});
      prompt.messages.push_back({ChatRole::User, text});
      prompts = {model.chat().render(prompt).ids};
      request.text_start = true;
    } else {
      prompts = {model.raw_prompt(text)};
      request.text_start = text.empty();
    }
  }
  std::vector<Request> requests;
  for (const auto& prompt : prompts) {
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      requests.push_back(request);
      requests.back().ids = prompt;
      requests.back().stream = requests.size() - 1;
    }
  }
  return requests;
}

void generate(const Arguments& args) {
  Model model(args.model.model, args.model.options());
  const std::string text = args.ids_file.empty() ? prompt_text(args) : "";
  const std::vector<Request> requests = make_requests(args, model, text);
  const Tokenizer* tokenizer = model.tokenizer_or_null();
  Engine engine(model.network(), tokenizer, model.engine_options());
  const bool stream = !args.json && requests.size() == 1 && tokenizer != nullptr;
  if (args.echo && stream) print(for_terminal(text));
  const InterruptScope scope;
  std::vector<Completion> completions;
  try {
    completions = engine.run(
        requests,
        [&](size_t, const NewToken& token) {
          if (!stream || token.text.empty()) return;
          print(for_terminal(token.text));
          flush_output();
        },
        &interrupted);
  } catch (const Error& failure) {
    if (failure.kind() != Kind::Failed) throw;
    model.explain_nonfinite();
  }
  for (size_t i = 0; i < completions.size(); ++i) {
    if (args.json) {
      print_json(completions[i], i, tokenizer);
    } else if (!stream && tokenizer != nullptr) {
      print(fmt::format("--- {}\n{}{}\n", i, args.echo ? for_terminal(text) : "",
                        for_terminal(completions[i].text)));
    } else if (!stream) {
      print(dump(nlohmann::ordered_json(completions[i].ids)) + "\n");
    }
    if (stream) print("\n");
    if (args.logprobs >= 0 && !args.json) print_logprobs(completions[i], tokenizer);
    if (args.stats) fmt::print(stderr, "quern: {}\n", statistics(completions[i]));
  }
  if (interrupted) throw Error(Kind::Interrupted, "interrupted");
}

}  // namespace

void add_generate(CLI::App& root) {
  Command command(
      root, "generate", "Continue a prompt",
      {{"generate Qwen-7B 'The capital of France is' -n 20", "continue a text"},
       {"generate Qwen-7B --prompt-file story.txt --top-p 0.8 --seed 7 --samples 3",
        "three continuations of a file"},
       {"generate Qwen-7B-Chat --chat 'Why is the sky blue?'", "one answer of a chat model"},
       {"generate MODEL --ids-file prompts.json --greedy --json",
        "token ids in, token ids out; a list of lists runs as one batch"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command);
  args->model.declare_chat(command);
  command.group("Prompt");
  command
      .positional("prompt", args->prompt,
                  "Text to continue; - or a pipe: standard input; none: the start of a text")
      .value("PROMPT");
  command
      .option("--prompt-file", args->prompt_file, "Read the prompt from a file; - = standard input")
      .file();
  command
      .option("--ids-file", args->ids_file,
              "JSON file with a list of token ids, or a list of lists")
      .file();
  command.flag("--chat", args->chat, "Apply the chat template: the prompt is the user's message")
      .usual();
  command.option("--system", args->system, "System message of --chat",
                 "the model's own, if it has one");
  command
      .option("--think", args->think,
              "With --chat: reasoning before the answer; auto = as the template says")
      .one_of({"auto", "on", "off"});
  command.flag("--truncate", args->truncate, "Drop the beginning of a prompt that is too long");
  command.group("Output");
  command
      .option("--max-new-tokens,-n", args->max_new_tokens,
              "Maximum number of new tokens; 0 = the checkpoint's, or 512")
      .range(int64_t{0}, int64_t{1} << 31)
      .usual();
  command.option("--samples", args->samples, "Number of completions per prompt").range(1, 1024);
  command
      .option("--logprobs", args->logprobs,
              "Log-probability of each token and of the N most likely; -1 = off")
      .range(-1, 1000);
  command.flag("--json", args->json, "Print a JSON object per completion").usual();
  command.flag("--echo", args->echo, "Print the prompt too");
  command.flag("--stats", args->stats,
               "Print token counts and tokens per second on standard error");
  args->sampling.declare(command);
  command.refuse({"--system", "--think", "--chat-template"}, "goes with --chat",
                 [args] { return !args->chat; });
  command.refuse({"prompt", "--prompt-file", "--chat", "--echo"},
                 "and --ids-file exclude each other", [args] { return !args->ids_file.empty(); });
  command.refuse({"prompt"}, "and --prompt-file exclude each other",
                 [args] { return !args->prompt_file.empty(); });
  command.refuse({"--echo"}, "and --json exclude each other", [args] { return args->json; });
  command.on_run([args] { generate(*args); });
}

}  // namespace quern::cli
