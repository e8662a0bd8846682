#include "loop/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "agent/call_grammar.h"
#include "agent/code_reply.h"
#include "agent/react_conversation.h"
#include "core/error.h"
#include "loop/examples.h"
#include "text/chatml.h"
#include "tools/python_session.h"
#include "tools/schema_check.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;
using Type = AgentEvent::Type;

constexpr size_t kMaxProblem = 500;  // bytes of an error that the model gets to see
constexpr size_t kMaxCallsAtOnce = 16;
constexpr int64_t kMaxProgramTokens = 1024;
constexpr size_t kMaxCodeOutput = size_t{16} << 10;
constexpr double kCodeSeconds = 60;  // of one program

double since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

// Sets `cancel` at a deadline, or when `outer` is set.
class Watch {
 public:
  Watch(double seconds, const std::atomic<bool>* outer)
      : thread_([this, outer, end = Clock::now() + std::chrono::duration<double>(seconds)](
                    const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            if (Clock::now() >= end) late_ = true;
            if (late_ || (outer != nullptr && outer->load())) {
              cancel_ = true;
              return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
        }) {}

  const std::atomic<bool>* cancel() const { return &cancel_; }
  bool late() const { return late_; }

 private:
  std::atomic<bool> cancel_ = false, late_ = false;
  std::jthread thread_;  // the last member: it ends before what it sets
};

}  // namespace

std::string_view name(AgentEvent::Type type) noexcept {
  constexpr std::string_view kNames[] = {"thought", "call",  "confirm", "observation",
                                         "repair",  "limit", "final",   "error"};
  return kNames[static_cast<size_t>(type)];
}

OrderedJson to_json(const AgentEvent& event) {
  OrderedJson out;
  const auto text = [&](const char* key, const std::string& value) {
    out.set(key, OrderedJson::of_string(value));
  };
  const auto seconds = [&] {
    out.set("seconds", OrderedJson::of_float(std::round(event.seconds * 1000) / 1000));
  };
  out.set("type", OrderedJson::of_string(std::string(name(event.type))));
  out.set("step", OrderedJson::of_integer(std::to_string(event.step)));
  switch (event.type) {
    case Type::Call:
    case Type::Confirm:
      text("name", event.tool);
      out.set("arguments", event.arguments);
      if (event.type == Type::Confirm) out.set("allowed", OrderedJson::of_bool(event.flag));
      break;
    case Type::Observation:
      text("name", event.tool);
      text("text", event.text);
      out.set("failed", OrderedJson::of_bool(event.flag));
      seconds();
      break;
    case Type::Final:
      out.set("text", event.flag ? OrderedJson::of_string(event.text) : OrderedJson());
      out.set("steps", OrderedJson::of_integer(std::to_string(event.step)));
      out.set("tokens", OrderedJson::of_integer(std::to_string(event.tokens)));
      seconds();
      break;
    default:
      text("text", event.text);
  }
  return out;
}

struct Agent::State {
  Answerer& answerer;
  Toolbox& tools;
  AgentOptions options;
  AgentHooks hooks;
  AgentStyle style;
  std::vector<Message> messages;
  std::shared_ptr<const Grammar> begin_grammar, thought_grammar;  // of ReAct
  PythonSession python;  // of Code; its names stay for the conversation
  bool python_ready = false;
  int64_t next_call = 1;
  uint64_t requests = 0;

  // Arguments are kept to the schema where a grammar can say it.
  std::shared_ptr<const Grammar> react_grammar(bool in_thought) const {
    CallChoice choice;
    choice.source = "tools";
    for (const auto& tool : tools.tools()) {
      CallableTool one = {tool->spec().name, tool->spec().parameters, true, tool->spec().name};
      try {
        call_grammar({{one}, true, false, "tools"}, ToolStyle::React, false, false);
      } catch (const Error&) {
        one.strict = false;  // any object; what is wrong with it is said afterwards
      }
      choice.tools.push_back(std::move(one));
    }
    return std::make_shared<const Grammar>(
        call_grammar(choice, ToolStyle::React, false, in_thought));
  }
};

// One question on its way.
class Agent::Run {
 public:
  Run(State& state, const std::atomic<bool>* cancel)
      : s_(state), watch_(state.options.max_seconds, cancel) {}

  AgentResult run() {
    while (!over_) {
      if (result_.steps == s_.options.max_steps) {
        limit(fmt::format("{} steps", s_.options.max_steps));
        break;
      }
      ++result_.steps;
      if (s_.tools.refresh()) {  // what was made of the tools is made again
        s_.begin_grammar = s_.thought_grammar = nullptr;
        s_.python_ready = false;
      }
      step();
    }
    result_.seconds = since(begun_);
    AgentEvent event = {Type::Final, result_.steps};
    event.text = result_.text;
    event.flag = result_.end == AgentResult::End::Answered;
    event.tokens = result_.tokens;
    event.seconds = result_.seconds;
    tell(event);
    return std::move(result_);
  }

 private:
  // What one reply came to, whichever way it was written.
  struct Reply {
    std::string thought, raw;
    std::vector<ToolCall> calls;
    std::optional<std::string> final;
    std::string problem;  // why it is neither
  };

  void tell(const AgentEvent& event) const {
    if (s_.hooks.event) s_.hooks.event(event);
  }
  void tell(Type type, const std::string& text) const {
    AgentEvent event = {type, result_.steps};
    event.text = text;
    tell(event);
  }
  void limit(const std::string& what) {
    over_ = true;
    result_.end = AgentResult::End::Limited;
    result_.problem = what;
    tell(Type::Limit, what);
  }
  void fail(const std::string& problem, Kind kind = Kind::Failed) {
    over_ = true;
    result_.end = AgentResult::End::Failed;
    result_.problem = problem;
    result_.failure = kind;
    tell(Type::Error, problem);
  }
  bool stopped() {
    if (!watch_.cancel()->load()) return false;
    if (watch_.late()) {
      limit(fmt::format("{} seconds", s_.options.max_seconds));
    } else {
      over_ = true;
      result_.end = AgentResult::End::Interrupted;
      result_.problem = "interrupted";
    }
    return true;
  }

  void step() {
    if (s_.style == AgentStyle::Code) return code_step();
    const std::optional<Reply> reply = ask();
    if (!reply) return;
    if (!reply->thought.empty()) tell(Type::Thought, reply->thought);
    if (!reply->problem.empty()) {
      s_.messages.emplace_back(ChatRole::Assistant, reply->raw);
      if (repair(reply->problem)) {
        s_.messages.emplace_back(ChatRole::User, "Error: " + bounded(reply->problem));
      }
      return;
    }
    if (reply->calls.empty()) {
      result_.text = reply->final.value_or("");
      result_.end = AgentResult::End::Answered;
      s_.messages.emplace_back(ChatRole::Assistant, result_.text);
      over_ = true;
      return;
    }
    Message message;
    message.role = ChatRole::Assistant;
    if (!reply->thought.empty()) message.parts.push_back({.text = reply->thought});
    message.tool_calls = reply->calls;
    s_.messages.push_back(std::move(message));
    // Every call gets an answer, so that the conversation stays one that templates can write.
    for (const ToolCall& call : reply->calls) {
      const std::string text = over_ ? "Error: not called" : bounded_result(call);
      Message result(ChatRole::Tool, text);
      result.name = call.name;
      result.tool_call_id = call.id;
      s_.messages.push_back(std::move(result));
    }
    if (s_.options.dry && !over_) {
      over_ = true;
      result_.end = AgentResult::End::Dry;
    }
  }

  // A program is written and run. Where it fails the model gets to see why, once.
  void code_step() {
    const std::optional<Reply> reply = ask();
    if (!reply) return;
    const CodeReply parts = parse_code_reply(reply->raw);
    s_.messages.emplace_back(ChatRole::Assistant, reply->raw);
    if (!parts.thought.empty()) tell(Type::Thought, parts.thought);
    std::string output, problem;
    if (parts.code.empty()) {
      problem = "the reply holds no program between ```py and ```";
    } else {
      AgentEvent event = {Type::Call, result_.steps};
      event.tool = "code";
      event.arguments.set("code", OrderedJson::of_string(parts.code));
      tell(event);
      if (s_.options.dry) {
        over_ = true;
        result_.end = AgentResult::End::Dry;
        return;
      }
      const auto begun = Clock::now();
      const PythonSession::Outcome outcome = run_code(parts.code);
      output = observation_text(s_.tools.secrets.hide(outcome.output), kMaxCodeOutput);
      while (output.ends_with('\n')) output.pop_back();
      event.type = Type::Observation;
      event.text = output;
      event.flag = outcome.failed;
      event.seconds = since(begun);
      tell(event);
      if (over_ || stopped()) return;
      if (outcome.failed) {
        problem = output;
      } else if (output.find_first_not_of(" \t\n") == output.npos) {
        problem = "the program gave nothing; its last line must be the answer, or print it";
      }
    }
    if (!problem.empty()) {
      if (repair(problem)) {
        s_.messages.emplace_back(ChatRole::User,
                                 "Error: " + bounded(problem) + "\nWrite the whole program again.");
      }
      return;
    }
    // A text is the answer without its quotes.
    if (output.size() >= 2 && output.front() == '\'' && output.back() == '\'' &&
        output.find_first_of("'\\\n", 1) == output.size() - 1) {
      output = output.substr(1, output.size() - 2);
    }
    result_.text = output;
    result_.end = AgentResult::End::Answered;
    over_ = true;
  }

  PythonSession::Outcome run_code(const std::string& code) {
    const auto left = [&] { return std::max(0.0, s_.options.max_seconds - since(begun_)); };
    if (!s_.python_ready)
      s_.python.run(code_functions(s_.tools.offered()), left(), watch_.cancel());
    const auto outcome = s_.python.run(code, std::min(left(), kCodeSeconds), watch_.cancel(),
                                       [&](const std::string& name, const OrderedJson& arguments) {
                                         const Made made = call_tool({call_id(), name, arguments});
                                         OrderedJson out;
                                         if (made.failed) {
                                           out.set("error", OrderedJson::of_string(made.text));
                                         } else {
                                           out.set("value", value_of(made.text));
                                         }
                                         return python_dumps(out);
                                       });
    s_.python_ready = outcome.output.find("all names are lost") == outcome.output.npos;
    return outcome;
  }

  // What a tool gave as the program sees it: JSON as its value, other texts as they are.
  static OrderedJson value_of(const std::string& text) {
    try {
      return OrderedJson::parse(text, "result");
    } catch (const Error&) {
      return OrderedJson::of_string(text);
    }
  }

  static std::string bounded(const std::string& problem) {
    return observation_text(problem, kMaxProblem);
  }
  // One round for a reply that was wrong. False: it was not the first.
  bool repair(const std::string& problem) {
    if (std::exchange(repairing_, true)) {
      fail(fmt::format("the model's reply was wrong again: {}", printable(problem, kMaxProblem)),
           Kind::Failed);
      return false;
    }
    tell(Type::Repair, bounded(problem));
    return true;
  }

  std::optional<Reply> ask() {
    const int64_t left = s_.options.max_tokens - result_.tokens;
    if (left <= 0) {
      limit(fmt::format("{} tokens", s_.options.max_tokens));
      return std::nullopt;
    }
    CompleteRequest request;
    request.sampling = s_.options.sampling;
    request.max_new_tokens = left;
    request.stream = s_.requests++;
    const bool react = s_.style == AgentStyle::React && !s_.tools.empty();
    bool continues = false;
    const bool code = s_.style == AgentStyle::Code;
    if (code) {
      const OrderedJson offered = s_.tools.offered();
      std::string system = s_.options.system;
      if (!system.empty()) system += "\n\n";
      request.messages.emplace_back(ChatRole::System, system + code_instructions(offered));
      for (const Message& message : code_examples(s_.tools)) request.messages.push_back(message);
      request.messages.insert(request.messages.end(), s_.messages.begin(), s_.messages.end());
      request.messages.emplace_back(ChatRole::Assistant, std::string(kCodeBegin));
      request.continue_last = true;
      request.max_new_tokens = std::min(left, kMaxProgramTokens);
    } else if (react) {
      std::vector<Message> messages = examples(s_.tools);
      messages.insert(messages.end(), s_.messages.begin(), s_.messages.end());
      ReactConversation turns = react_conversation(
          s_.tools.offered(), messages,
          s_.options.system.empty() ? std::string(kDefaultSystem) : s_.options.system);
      request.messages = std::move(turns.messages);
      request.continue_last = continues = turns.continues;
      if (continues) request.messages.back().parts[0].text += "\nThought:";
      if (s_.answerer.keeps_grammars()) {
        auto& grammar = continues ? s_.thought_grammar : s_.begin_grammar;
        if (grammar == nullptr) grammar = s_.react_grammar(continues);
        request.grammar = grammar;
      } else {
        request.stop = {"Observation:", "Observation："};
      }
    } else {
      if (!s_.options.system.empty()) {
        request.messages.emplace_back(ChatRole::System, s_.options.system);
      }
      request.messages.insert(request.messages.end(), s_.messages.begin(), s_.messages.end());
      request.tools = s_.tools.offered();
    }
    const Answer answer = s_.answerer.complete({&request, 1}, {}, watch_.cancel())[0];
    result_.tokens += answer.new_tokens;
    if (stopped()) return std::nullopt;
    if (answer.finish == FinishReason::Failed) {
      fail(answer.failure, answer.failure_kind);
      return std::nullopt;
    }
    const bool cut_short =
        code && request.max_new_tokens < left;  // its program is read as far as it is
    if (answer.finish == FinishReason::Length && answer.calls.empty() && !cut_short) {
      limit(result_.tokens >= s_.options.max_tokens
                ? fmt::format("{} tokens", s_.options.max_tokens)
                : "the room that the model's context has");
      return std::nullopt;
    }
    if (code) {
      Reply out;
      out.raw = std::string(kCodeBegin) + answer.text;
      return out;
    }
    return react ? react_reply(answer, continues) : tools_reply(answer);
  }

  Reply react_reply(const Answer& answer, bool continues) {
    Reply out;
    out.raw = answer.text;
    const ParsedReply reply = parse_react((continues ? "Thought:" : "") + answer.text);
    out.thought = reply.thought;
    if (!reply.calls.empty()) {
      // Later ones were written before the first one's result.
      const ReplyCall& call = reply.calls[0];
      out.calls.push_back({call_id(), call.name, call.arguments});
    } else if (reply.final) {
      out.final = reply.final;
    } else {
      out.problem = reply.error == "bad_arguments"
                        ? "the Action Input could not be read; it must be one JSON object"
                    : reply.error == "empty" ? "the reply is empty"
                                             : "the reply has neither an Action with its Action "
                                               "Input nor a Final Answer";
    }
    return out;
  }

  Reply tools_reply(const Answer& answer) {
    Reply out;
    out.raw = answer.text;
    if (!answer.reasoning.empty()) out.thought = answer.reasoning;
    if (!answer.call_problem.empty() && answer.calls.empty()) {
      out.problem = "the call could not be read; its arguments must be one JSON object";
      return out;
    }
    for (const ToolCall& call : answer.calls) {
      if (out.calls.size() == kMaxCallsAtOnce) break;
      out.calls.push_back(call);
      if (out.calls.back().id.empty()) out.calls.back().id = call_id();
    }
    if (out.calls.empty() && answer.text.find_first_not_of(" \t\n") == answer.text.npos) {
      out.problem = "the reply has neither a call nor an answer";
    } else if (out.calls.empty()) {
      out.final = answer.text;
    } else if (!answer.text.empty()) {
      out.thought += (out.thought.empty() ? "" : "\n") + answer.text;
    }
    return out;
  }

  std::string call_id() { return fmt::format("call_{}", s_.next_call++); }

  struct Made {
    std::string text;
    bool failed = false, wrong = false;  // wrong: the call itself, `text` says why
  };
  // Makes a call, or says why not.
  Made call_tool(const ToolCall& call) {
    OrderedJson arguments = call.arguments;
    std::string problem;
    const Tool* tool = s_.tools.find(call.name);
    if (tool == nullptr) {
      problem = fmt::format("there is no tool {}; the tools are {}", printable(call.name, 60),
                            fmt::join(s_.tools.names(), ", "));
    } else {
      try {
        arguments = arguments_object(call, "the call");
        problem = argument_problem(tool->spec().parameters, arguments);
      } catch (const Error& error) {
        problem = error.what();
      }
    }
    AgentEvent event = {Type::Call, result_.steps};
    event.tool = call.name;
    event.arguments = arguments;
    tell(event);
    if (!problem.empty()) return {problem, true, true};
    if (loops(call.name, arguments)) {
      limit("the same calls again and again");
      return {"Error: not called again", true};
    }
    if (s_.options.dry) return {"not called: a dry run"};
    return make(call.name, arguments);
  }

  std::string bounded_result(const ToolCall& call) {
    const Made made = call_tool(call);
    if (made.wrong) {
      repair(made.text);
      return "Error: " + bounded(made.text);
    }
    repairing_ = false;
    return made.text;
  }

  bool loops(const std::string& tool, const OrderedJson& arguments) {
    done_.push_back(tool + " " + python_dumps(arguments, {.sort_keys = true}));
    const size_t n = done_.size();
    if (n >= 2 && done_[n - 1] == done_[n - 2]) return true;
    return n >= 4 && done_[n - 1] == done_[n - 3] && done_[n - 2] == done_[n - 4];
  }

  Made make(const std::string& tool_name, const OrderedJson& arguments) {
    Tool& tool = *s_.tools.find(tool_name);
    const ToolSpec& spec = tool.spec();
    AgentEvent event = {Type::Confirm, result_.steps};
    event.tool = spec.name;
    event.arguments = arguments;
    ToolResult result;
    const auto begun = Clock::now();
    const bool ask_first =
        spec.side_effects && std::ranges::find(s_.options.yes, spec.name) == s_.options.yes.end();
    if (ask_first) {
      event.flag = s_.hooks.confirm && s_.hooks.confirm(spec, arguments);
      tell(event);
    }
    if (ask_first && !event.flag) {
      result = {"the user did not allow this call", true};
    } else {
      CallContext context;
      context.seconds =
          std::max(0.0, std::min(spec.timeout_s, s_.options.max_seconds - since(begun_)));
      context.cancel = watch_.cancel();
      context.note = s_.hooks.note;
      try {
        result = tool.call(arguments, context);
      } catch (const Error& error) {
        result = {error.what(), true};
      }
    }
    std::string text = s_.tools.secrets.hide(
        observation_text(result.text, std::min(spec.max_output, size_t{16} << 10)));
    if (result.failed) text = "Error: " + text;
    event.type = Type::Observation;
    event.text = text;
    event.flag = result.failed;
    event.seconds = since(begun);
    tell(event);
    stopped();
    return {text, result.failed};
  }

  State& s_;
  Clock::time_point begun_ = Clock::now();
  Watch watch_;
  AgentResult result_;
  bool over_ = false, repairing_ = false;
  std::vector<std::string> done_;
};

Agent::Agent(Answerer& answerer, Toolbox& tools, AgentOptions options, AgentHooks hooks)
    : state_(new State{.answerer = answerer,
                       .tools = tools,
                       .options = std::move(options),
                       .hooks = std::move(hooks),
                       .style = AgentStyle::Tools}) {
  state_->style = state_->options.style;
  const OrderedJson offered = tools.offered();
  const bool offers = tools.empty() || answerer.offers(offered);
  if (state_->style == AgentStyle::Auto) {
    state_->style = offers ? AgentStyle::Tools : AgentStyle::React;
  } else if (state_->style == AgentStyle::Tools && !offers) {
    throw Error(Kind::Unsupported, "the model's chat template offers no tools",
                "--style react works with every model");
  }
}
Agent::~Agent() = default;

AgentResult Agent::ask(const std::string& question, const std::atomic<bool>* cancel) {
  state_->messages.emplace_back(ChatRole::User, question);
  return Run(*state_, cancel).run();
}

AgentStyle Agent::style() const noexcept { return state_->style; }
const std::vector<Message>& Agent::messages() const noexcept { return state_->messages; }
void Agent::forget() { state_->messages.clear(); }

}  // namespace quern
