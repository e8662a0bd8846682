// A program that runs beside ours: a command tool, or an MCP server on its standard input and output.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace quern {

struct ChildOptions {
  std::vector<std::string> command;  // an argument list; no shell reads it
  // Added to PATH, HOME, LANG, TZ, USER and TMPDIR; nothing else of our environment is passed on.
  std::vector<std::pair<std::string, std::string>> environment;
  fs::path folder;     // where it runs; empty: here
  bool input = false;  // its standard input is a pipe; else there is nothing to read
};

// The destructor ends it, with all that it has started: also what has left its process group, which
// is known by an environment variable.
class ChildProcess {
 public:
  // Throws BadInput for a program that is not there or cannot be run.
  explicit ChildProcess(const ChildOptions& options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Descriptors that don't block; -1 once closed.
  int in() const noexcept { return in_; }
  int out() const noexcept { return out_; }
  int err() const noexcept { return err_; }
  void close_in() noexcept;
  void close_out() noexcept;
  void close_err() noexcept;

  bool ended();  // its first process has; buries it
  // "exit status 3", "signal 9", or "running".
  std::string status() const;
  bool succeeded() const noexcept { return ended_ && status_ == 0; }
  void kill() noexcept;

 private:
  pid_t process_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  bool ended_ = false;
  int status_ = 0;  // of waitpid
  std::string mark_;
};

struct CommandOutcome {
  std::string out, err;  // the first bytes of each
  size_t out_bytes = 0;  // that there were
  bool late = false, cancelled = false, flooded = false;
  std::string status;
  bool succeeded = false;
};
// Runs a command to its end, to a deadline, or until it has written more than 64 MiB.
CommandOutcome run_command(const ChildOptions& options, double seconds, size_t kept_bytes,
                           const std::atomic<bool>* cancel);

}  // namespace quern
