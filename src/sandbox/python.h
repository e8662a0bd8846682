// Running a Python program in the sandbox, and knowing whether it came to its end.
#pragma once

#include <string>

#include "sandbox/sandbox.h"

namespace quern {

struct PythonOptions {
  fs::path python = "/usr/bin/python3";
  bool unsafe = false;  // see SandboxOptions
};

struct PythonVerdict {
  // The last line was executed and the interpreter then ended with status 0. A program that exits
  // early, by whatever means, did not reach it: what proves the end is a number drawn for the run,
  // written after the program's text.
  bool reached_end = false;
  SandboxOutcome outcome;
};

PythonVerdict run_python(const std::string& program, const SandboxLimits& limits,
                         const PythonOptions& options = {});

// Throws BadInput that says what to install where the interpreter is not there, or lies where the
// sandbox cannot read it.
void check_python(const PythonOptions& options);

}  // namespace quern
