// The agent: a model that thinks, calls tools and reads what they give, until it answers or a budget
// ends it.
//
// Ways to call tools, one loop: the model's own function calls, where its chat template (or the
// server) offers tools, ReAct (Yao et al. 2022) for every other, and programs (agent/code_reply.h). The conversation is kept in
// OpenAI's messages either way.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "answer/answerer.h"
#include "tools/tool.h"

namespace quern {

// Code: a program that calls the tools, run in the sandbox.
enum class AgentStyle { Auto, Tools, React, Code };

struct AgentOptions {
  AgentStyle style = AgentStyle::Auto;  // Auto: Tools where the answerer offers them
  int64_t max_steps = 8;                // replies of the model
  double max_seconds = 120;
  int64_t max_tokens = 4096;     // that the model writes, all steps together
  bool dry = false;              // calls are checked and told, not made; the first ends the run
  std::vector<std::string> yes;  // tools with side effects that need not be asked for
  SamplingChoice sampling;
  std::string system;  // empty: the model's own, or that of ReAct
};

struct AgentEvent {
  enum class Type { Thought, Call, Confirm, Observation, Repair, Limit, Final, Error } type;
  int64_t step = 0;
  std::string text;       // what was thought, observed, wrong; of Limit what ended it
  std::string tool;       // of Call, Confirm, Observation
  OrderedJson arguments;  // of Call and Confirm
  bool flag = false;      // of Confirm: allowed; of Observation: failed; of Final: there is a text
  double seconds = 0;     // of Observation and Final
  int64_t tokens = 0;     // of Final
};
std::string_view name(AgentEvent::Type type) noexcept;
// {"type", "step", ...}: what quern agent --json prints.
OrderedJson to_json(const AgentEvent& event);

struct AgentHooks {
  std::function<void(const AgentEvent&)> event;
  // Whether a call with side effects may be made. Absent: none may.
  std::function<bool(const ToolSpec& tool, const OrderedJson& arguments)> confirm;
  std::function<void(std::string_view)> note;  // progress of a tool
};

struct AgentResult {
  enum class End { Answered, Limited, Failed, Interrupted, Dry } end = End::Failed;
  std::string text;     // the answer
  std::string problem;  // of Limited and Failed
  Kind failure = Kind::Failed;
  int64_t steps = 0, tokens = 0;
  double seconds = 0;
};

class Agent {
 public:
  // Both must outlive it.
  Agent(Answerer& answerer, Toolbox& tools, AgentOptions options, AgentHooks hooks);
  ~Agent();

  // One question of the conversation, to its end. Budgets count for it alone.
  AgentResult ask(const std::string& question, const std::atomic<bool>* cancel = nullptr);

  AgentStyle style() const noexcept;
  // The conversation so far. A question that came to no answer stays, with what was done for it.
  const std::vector<Message>& messages() const noexcept;
  void forget();

 private:
  class Run;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quern
