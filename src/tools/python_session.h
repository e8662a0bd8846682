// A Python interpreter in the sandbox that keeps its names from one piece of code to the next.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "core/file.h"
#include "core/ordered_json.h"

namespace quern {

class PythonSession {
 public:
  // Starts at the first run().
  PythonSession();
  ~PythonSession();

  struct Outcome {
    std::string output;   // stdout, stderr, the last expression's value, a traceback
    bool failed = false;  // an exception, a limit, the interpreter's death
  };
  // What the code's `_call(name, {...})` comes to: a JSON text {"value": ...} or {"error": "..."},
  // which it raises. Asked on the thread of run().
  using Caller = std::function<std::string(const std::string& name, const OrderedJson& arguments)>;
  // Runs `code` for at most `seconds`, the time of its calls not counted. What ends the interpreter loses its names, and the outcome
  // says so; the next call starts another. Throws Unsupported where the sandbox cannot start.
  Outcome run(const std::string& code, double seconds, const std::atomic<bool>* cancel = nullptr,
              const Caller& call = {});

 private:
  struct Process;
  std::unique_ptr<Process> process_;
};

}  // namespace quern
