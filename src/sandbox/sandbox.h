// Running a program that nobody trusts: code that a model wrote.
//
// Bubblewrap gives it namespaces of its own (no network, no other process in sight, an empty root
// with /usr read-only and a /tmp of bounded size), a seccomp filter lets through the system calls
// that programs need, resource limits bound each process, and the caller watches the whole tree
// from outside. A first process of ours, which the program can neither read nor signal, tells how
// it ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct SandboxLimits {
  double cpu_seconds = 10;  // of all its processes together
  double wall_seconds = 15;
  int64_t memory_bytes = int64_t{512} << 20;  // of each process's addresses, and of all resident
  int64_t processes = 64;                     // threads count
  int64_t file_bytes = int64_t{16} << 20;     // a file's size
  int64_t files = 64;                         // open at once, for each process
  int64_t scratch_bytes = int64_t{64} << 20;  // /tmp, where it runs
  size_t output_bytes = size_t{64} << 10;     // kept of stdout and of stderr, each
};

struct SandboxOptions {
  std::vector<fs::path> readable;  // folders beside /usr that it may read
  std::string input;               // its standard input
  // For a program that is talked to while it runs: descriptors of the caller's that become its
  // standard input and its descriptor 3. Then `input` and the outcome's report stay empty.
  int input_descriptor = -1, report_descriptor = -1;
  const std::atomic<bool>* cancel = nullptr;  // set: it is ended as if its time were up
  // No namespaces and no filter: only limits. For machines where nothing else can be had, and only
  // when a person says so; results say that it was so.
  bool unsafe = false;
};

struct SandboxOutcome {
  int exit = -1;               // -1: a signal ended it
  int signal = 0;              // 0: it ended itself
  bool timed_out = false;      // by either clock
  bool out_of_memory = false;  // ended because it took too much
  bool truncated = false;      // stdout or stderr was longer than what was kept
  std::string out, err;        // as they came: any bytes
  std::string report;          // what it wrote to descriptor 3, at most 4 KB
  double cpu_seconds = 0, seconds = 0;
};

// Runs `command`, looked up in /usr/bin, to its end or a limit's. Nothing of it is left then.
// Throws Unsupported, with what bubblewrap said, where namespaces cannot be had; Misused for an
// empty command; BadInput for a folder to read that is not there.
SandboxOutcome run_sandboxed(const std::vector<std::string>& command, const SandboxLimits& limits,
                             const SandboxOptions& options = {});

}  // namespace quern
