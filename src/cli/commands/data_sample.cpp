// quern data sample: a model's answers to prompts, as records.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "answer/answerer.h"
#include "cli/commands/arguments.h"
#include "cli/commands/data_stages.h"
#include "cli/commands/model_store.h"
#include "cli/commands/stage_arguments.h"
#include "core/error.h"
#include "core/json_string.h"
#include "core/ordered_json.h"
#include "core/python_text.h"
#include "formats/byte_source.h"
#include "text/messages.h"
#include "train/adapter_files.h"

namespace quern::cli {
namespace {

constexpr uint64_t kMaxRecord = uint64_t{64} << 20;
// Of the line that stands for a prompt which is none.
constexpr std::string_view kProblem = "quern:problem";
constexpr int64_t kTogether = 32;  // answers that are asked for at once

struct Arguments {
  StageArguments stage;
  ModelArguments model;
  SamplingArguments sampling;
  std::string field, text;
  int64_t samples = 1, max_new_tokens = 512;
  bool raw = false;
};

// "Question: {question}\nAnswer:" with the record's fields; "{{" is a brace.
std::string filled(std::string_view text, const OrderedJson& record, const std::string& where) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    const size_t end = c == '{' ? text.find('}', i) : text.npos;
    if (end == text.npos) {
      out += c;
      continue;
    }
    const std::string name(text.substr(i + 1, end - i - 1));
    const OrderedJson* value = record.find(name);
    if (value == nullptr) {
      throw_bad_input(
          fmt::format("{}: has no field '{}', which --prompt names", where, printable(name, 60)));
    }
    out += value->is_string() ? value->text : python_dumps(*value);
    i = end;
  }
  return out;
}

// Answers the prompts of one file, some at a time; a line an answer.
class SampleSource final : public RecordSource {
 public:
  SampleSource(const fs::path& path, Answerer& answerer, const Arguments& args)
      : path_(path.string()),
        source_(ByteSource::open(path)),
        progress_(source_.get()),
        lines_(std::move(source_), path_, kMaxRecord),
        answerer_(answerer),
        args_(args) {}

  bool next(std::string& line) override {
    while (at_ == ready_.size()) {
      if (!ask()) return false;
    }
    line = ready_[at_++];
    return true;
  }
  uint64_t consumed_bytes() const override { return progress_->consumed_bytes(); }

 private:
  struct Prompt {
    OrderedJson record;
    CompleteRequest request;
  };

  bool ask() {
    ready_.clear();
    at_ = 0;
    std::vector<Prompt> prompts;
    std::string line;
    while (static_cast<int64_t>(prompts.size()) * args_.samples < kTogether && lines_.next(line)) {
      if (python::strip(line).empty()) continue;
      try {
        prompts.push_back(read(line));
      } catch (const Error& error) {
        if (error.kind() != Kind::BadInput) throw;
        ready_.push_back(
            fmt::format("{{{}: {}}}", json_string(kProblem), json_string(error.what())));
      }
    }
    if (prompts.empty()) return !ready_.empty();
    std::vector<CompleteRequest> requests;
    for (const Prompt& prompt : prompts) {
      for (int64_t k = 0; k < args_.samples; ++k) {
        CompleteRequest request = prompt.request;
        request.stream = static_cast<uint64_t>(number_++);
        requests.push_back(std::move(request));
      }
    }
    const std::vector<Answer> answers = answerer_.complete(requests, {}, &interrupted);
    check_interrupted();
    for (size_t i = 0; i < answers.size(); ++i) {
      const Prompt& prompt = prompts[i / static_cast<size_t>(args_.samples)];
      const Answer& answer = answers[i];
      if (answer.finish == FinishReason::Failed) throw Error(answer.failure_kind, answer.failure);
      ready_.push_back(record_of(prompt, answer, static_cast<int64_t>(i) % args_.samples));
    }
    return true;
  }

  Prompt read(const std::string& line) const {
    const std::string where = fmt::format("prompt of line {}", lines_.number());
    Prompt prompt{OrderedJson::parse(line, where), {}};
    CompleteRequest& request = prompt.request;
    request.sampling = args_.sampling.choice();
    request.stop = args_.sampling.stop;
    request.ignore_eos = args_.sampling.ignore_eos;
    request.max_new_tokens = args_.max_new_tokens;
    const OrderedJson* messages = prompt.record.find("messages");
    if (!args_.raw && args_.text.empty() && args_.field.empty() && messages != nullptr) {
      request.messages = read_messages(*messages, where + ": messages");
      // A conversation with its answer is asked without it.
      if (!request.messages.empty() && request.messages.back().role == ChatRole::Assistant) {
        request.messages.pop_back();
      }
      if (request.messages.empty()) throw_bad_input(where + ": messages asks nothing");
      return prompt;
    }
    std::string text;
    if (!args_.text.empty()) {
      text = filled(args_.text, prompt.record, where);
    } else {
      const std::string field = args_.field.empty() ? "prompt" : args_.field;
      const OrderedJson* value = prompt.record.find(field);
      if (value == nullptr || !value->is_string()) {
        throw_bad_input(fmt::format("{}: has no text in '{}'", where, printable(field, 60)),
                        "--field names another, --prompt writes one");
      }
      text = value->text;
    }
    if (args_.raw) {
      request.prompt = std::move(text);
    } else {
      request.messages = {Message(ChatRole::User, std::move(text))};
    }
    return prompt;
  }

  // The prompt's record with the answer: as a text, and as the conversation's last message.
  std::string record_of(const Prompt& prompt, const Answer& answer, int64_t sample) const {
    OrderedJson out = prompt.record;
    out.set("response", OrderedJson::of_string(answer.text));
    out.set("sample", OrderedJson::of_integer(fmt::format("{}", sample)));
    out.set("finish", OrderedJson::of_string(std::string(name(answer.finish))));
    if (args_.raw) {
      out.set("text", OrderedJson::of_string(prompt.request.prompt + answer.text));
    } else {
      OrderedJson messages;
      messages.kind = OrderedJson::Kind::Array;
      for (const Message& message : prompt.request.messages) {
        messages.items.push_back(to_json(message));
      }
      messages.items.push_back(to_json(Message(ChatRole::Assistant, answer.text)));
      out.set("messages", std::move(messages));
    }
    return python_dumps(out);
  }

  std::string path_;
  std::unique_ptr<ByteSource> source_;
  const ByteSource* progress_;
  LineReader lines_;
  Answerer& answerer_;
  const Arguments& args_;
  std::vector<std::string> ready_;
  size_t at_ = 0;
  int64_t number_ = 0;  // of the answer in its file, by which it is drawn
};

class SampleStage final : public Stage {
 public:
  SampleStage(const Arguments& args, Answerer& answerer, std::string weights)
      : args_(args), answerer_(answerer), weights_(std::move(weights)) {}
  std::string_view name() const override { return "sample"; }
  nlohmann::ordered_json settings() const override {
    const SamplingArguments& s = args_.sampling;
    const auto or_null = [](const auto& value) {
      return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
    };
    return {{"weights", weights_},
            {"adapters", args_.model.adapters},
            {"chat_template", args_.model.chat_template},
            {"samples", args_.samples},
            {"field", args_.field},
            {"prompt", args_.text},
            {"raw", args_.raw},
            {"max_new_tokens", args_.max_new_tokens},
            {"greedy", s.greedy},
            {"temperature", or_null(s.temperature)},
            {"top_p", or_null(s.top_p)},
            {"top_k", or_null(s.top_k)},
            {"min_p", or_null(s.min_p)},
            {"repetition_penalty", or_null(s.repetition_penalty)},
            {"seed", or_null(s.seed)},
            {"stop", s.stop}};
  }
  std::string text_field() const override { return ""; }
  std::unique_ptr<StageWorker> worker() const override {
    class Keep final : public StageWorker {
     public:
      Verdict process(Record& record, const Place&) override {
        if (const auto problem = record.string(kProblem)) throw_bad_input(*problem);
        return {};
      }
    };
    return std::make_unique<Keep>();
  }
  std::unique_ptr<RecordSource> open(const fs::path& path) const override {
    return std::make_unique<SampleSource>(path, answerer_, args_);
  }

 private:
  const Arguments& args_;
  Answerer& answerer_;
  std::string weights_;
};

void run(const Arguments& args) {
  StageSettings(args.stage.settings).finish();
  const fs::path path =
      args.model.model.empty() ? default_model() : fs::path(resolve_model(args.model.model));
  Model model(path, args.model.options());
  if (!args.raw && !model.is_chat()) {
    throw Error(Kind::Unsupported, path.string() + ": has no chat format",
                "--raw goes on with the prompts as they are");
  }
  const auto answerer = make_model_answerer(model, {.batch = kTogether});
  const SampleStage stage(args, *answerer, hash_weights(path));
  run_stage_command(args.stage, "sample",
                    [&](StageOptions& options) { return run_stage(stage, options); });
}

}  // namespace

void add_data_sample(CLI::App& data) {
  auto args = std::make_shared<Arguments>();
  Command command(
      data, "sample", "A model's answers to prompts, as records to learn from",
      {{"data sample prompts.jsonl --model MODEL --out sampled --samples 4 --temperature 0.8",
        "four answers to each prompt: response, and messages with the answer"}});
  args->stage.declare(command, "Record files of prompts: messages, or a text");
  command.option("--model", args->model.model, "Checkpoint, GGUF file or model's name",
                 "the published default");
  command.option("--samples", args->samples, "Answers to each prompt")
      .range(int64_t{1}, int64_t{4096});
  command.option("--field", args->field, "Field of the prompt", "messages, else prompt");
  command.option("--prompt", args->text,
                 "Prompt with fields of the record, as \"Solve: {question}\"",
                 "the field as it is");
  command.flag("--raw", args->raw, "Go on with the prompts as text instead of answering them");
  command.option("--max-new-tokens", args->max_new_tokens, "Longest answer")
      .range(int64_t{1}, int64_t{1} << 20);
  command.option("--adapter", args->model.adapters, "Adapter in PEFT's layout, on top of the model")
      .folder();
  args->model.declare_chat(command);
  args->sampling.declare(command);
  command.refuse({"--field"}, "and --prompt exclude each other",
                 [args] { return !args->text.empty(); });
  command.refuse({"--chat-template"}, "and --raw exclude each other", [args] { return args->raw; });
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
