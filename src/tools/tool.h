// A tool that a model may call: what it is told of it, and what a call comes to.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/ordered_json.h"

namespace quern {

// A call shown to the model before the conversation begins.
struct ToolExample {
  std::string query;
  OrderedJson arguments;
  std::string result, answer;
};

struct ToolSpec {
  std::string name;
  std::string description;
  OrderedJson parameters;  // JSON Schema of the arguments, which are an object
  bool side_effects = false;
  double timeout_s = 30;
  size_t max_output = size_t{16} << 10;  // bytes of a result that the model gets to see
  std::vector<ToolExample> examples;
  std::string origin;  // for lists: "built in", a file, an MCP server's name
};

struct ToolResult {
  std::string text;     // any bytes
  bool failed = false;  // `text` says why
};

struct CallContext {
  double seconds = 30;                         // the call's deadline
  const std::atomic<bool>* cancel = nullptr;   // looked at all the time
  std::function<void(std::string_view)> note;  // progress, for people
  bool cancelled() const { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }
};

class Tool {
 public:
  virtual ~Tool() = default;
  const ToolSpec& spec() const noexcept { return spec_; }
  ToolSpec& spec() noexcept { return spec_; }

  // `arguments` fit the schema. What goes wrong with the call is a result that failed; an Error that
  // is thrown means the same.
  virtual ToolResult call(const OrderedJson& arguments, const CallContext& context) = 0;

 protected:
  explicit Tool(ToolSpec spec) : spec_(std::move(spec)) {}

 private:
  ToolSpec spec_;
};

// Throws BadInput for a name that a prompt could take for something else: it has 1 to 64 letters,
// digits, _, - or dots.
void check_tool_name(std::string_view name, std::string_view where);

// Values that must not be shown: read from environment variables that a configuration names.
class Secrets {
 public:
  // Replaces ${NAME} by the variable's value, and remembers it. Throws BadInput at `where` for a
  // variable that is not set.
  std::string fill(std::string_view text, std::string_view where);
  void add(std::string value);
  // `text` with each of them as ***.
  std::string hide(std::string text) const;

 private:
  std::vector<std::string> values_;  // longest first
};

// A result as the model gets it: valid UTF-8 without control characters but line ends and tabs, cut
// at `max_bytes` with a note that says how much there was.
std::string observation_text(std::string_view result, size_t max_bytes);

// The tools of a conversation, by name.
class Toolbox {
 public:
  // Throws BadInput for a name that is taken.
  void add(std::unique_ptr<Tool> tool);
  // A name that is taken gets `prefix` and a hyphen before it.
  void add_from(std::unique_ptr<Tool> tool, const std::string& prefix);

  // Where tools of this origin come from, asked by refresh(): all of them where they have changed.
  using Changes = std::function<std::optional<std::vector<std::unique_ptr<Tool>>>()>;
  void add_source(std::string origin, Changes changes);
  // Puts a source's tools in the place of those it had, where they have changed. Between calls only;
  // true where anything did. What a source throws leaves its tools as they are.
  bool refresh();

  Tool* find(std::string_view name) const noexcept;
  const std::vector<std::unique_ptr<Tool>>& tools() const noexcept { return tools_; }
  bool empty() const noexcept { return tools_.empty(); }
  std::vector<std::string> names() const;
  OrderedJson offered() const;  // in OpenAI's form

  Secrets secrets;

 private:
  std::vector<std::unique_ptr<Tool>> tools_;
  std::vector<std::pair<std::string, Changes>> sources_;
};

// ---- Arguments that fit the schema already. ----
std::string text_argument(const OrderedJson& arguments, std::string_view name,
                          std::string_view fallback = "");
double number_argument(const OrderedJson& arguments, std::string_view name, double fallback);

// A schema of an object: `members` is JSON text of its properties; those named are required.
OrderedJson object_schema(std::string_view members, const std::vector<std::string>& required);

}  // namespace quern
