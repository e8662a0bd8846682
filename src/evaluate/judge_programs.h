// Running programs that models wrote, in the sandbox, and saying whether they reach their end.
#pragma once

#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "evaluate/item.h"
#include "sandbox/python.h"

namespace quern {

struct ProgramLimits {
  double cpu_seconds = 3;
  double wall_seconds = 15;
  int64_t memory_bytes = int64_t{2} << 30;
};

// Any number of threads may use one.
class ProgramJudge {
 public:
  explicit ProgramJudge(PythonOptions options) : options_(std::move(options)) {}

  // Fills `correct`, `correct_fixed` and `timed_out`: both programs are run, equal ones once. One
  // that runs out of time is tried once more with nothing beside it.
  void judge(const std::string& parity, const std::string& fixed, const ProgramLimits& limits,
             ItemVerdict& verdict);

  // How it ended, on its second run where the first ran out of time.
  PythonVerdict run(const std::string& program, const ProgramLimits& limits);

 private:
  bool passes(const std::string& program, const ProgramLimits& limits, bool& timed_out);

  PythonOptions options_;
  std::shared_mutex others_;  // held exclusively by a second run
};

}  // namespace quern
