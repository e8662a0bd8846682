#include "evaluate/judge_programs.h"

namespace quern {

PythonVerdict ProgramJudge::run(const std::string& program, const ProgramLimits& limits) {
  SandboxLimits bounds;
  bounds.cpu_seconds = limits.cpu_seconds;
  bounds.wall_seconds = limits.wall_seconds;
  bounds.memory_bytes = limits.memory_bytes;
  PythonVerdict verdict;
  {
    const std::shared_lock beside(others_);
    verdict = run_python(program, bounds, options_);
  }
  if (verdict.outcome.timed_out) {
    const std::unique_lock alone(others_);
    verdict = run_python(program, bounds, options_);
  }
  return verdict;
}

bool ProgramJudge::passes(const std::string& program, const ProgramLimits& limits,
                          bool& timed_out) {
  const PythonVerdict verdict = run(program, limits);
  timed_out |= verdict.outcome.timed_out;
  return verdict.reached_end;
}

void ProgramJudge::judge(const std::string& parity, const std::string& fixed,
                         const ProgramLimits& limits, ItemVerdict& verdict) {
  verdict.correct = passes(parity, limits, verdict.timed_out);
  verdict.correct_fixed =
      fixed == parity ? *verdict.correct : passes(fixed, limits, verdict.timed_out);
}

}  // namespace quern
