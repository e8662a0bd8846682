// A Python interpreter in the sandbox that keeps its names from one piece of code to the next.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "core/file.h"

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
  // Runs `code` for at most `seconds`. What ends the interpreter loses its names, and the outcome
  // says so; the next call starts another. Throws Unsupported where the sandbox cannot start.
  Outcome run(const std::string& code, double seconds, const std::atomic<bool>* cancel = nullptr);

 private:
  struct Process;
  std::unique_ptr<Process> process_;
};

}  // namespace quern
