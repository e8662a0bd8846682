#include "sandbox/python.h"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <unistd.h>

#include "core/error.h"
#include "sandbox/init/protocol.h"

namespace quern {
namespace {

// A number that nobody can guess, as hexadecimal digits.
std::string draw_nonce() {
  unsigned char bytes[16];
  if (::RAND_bytes(bytes, sizeof bytes) != 1) throw Error(Kind::Failed, "no random numbers");
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// The folder that an interpreter outside /usr needs: the one above its bin/.
std::vector<fs::path> readable_for(const fs::path& python) {
  const fs::path real = fs::weakly_canonical(python);
  if (real.string().starts_with("/usr/")) return {};
  return {real.parent_path().parent_path()};
}

}  // namespace

void check_python(const PythonOptions& options) {
  if (!fs::exists(options.python)) {
    throw_bad_input(options.python.string() + ": is not there",
                    "install Debian's python3 (scripts/install-deps does), or name another "
                    "interpreter with --python");
  }
}

PythonVerdict run_python(const std::string& program, const SandboxLimits& limits,
                         const PythonOptions& options) {
  check_python(options);
  const std::string nonce = draw_nonce();
  SandboxOptions sandbox;
  sandbox.unsafe = options.unsafe;
  sandbox.readable = readable_for(options.python);
  // Python reads its whole input before it runs the first line, so the program cannot read on.
  sandbox.input =
      fmt::format("{}\n__import__('posix').write({}, b'{}')\n", program, kReportDescriptor, nonce);
  const fs::path real = fs::weakly_canonical(options.python);
  PythonVerdict verdict;
  verdict.outcome = run_sandboxed({real.string(), "-I", "-"}, limits, sandbox);
  verdict.reached_end = verdict.outcome.exit == 0 && verdict.outcome.report == nonce;
  return verdict;
}

}  // namespace quern
