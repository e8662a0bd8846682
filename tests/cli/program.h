// Running the built program in tests, as a shell or a terminal would.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"
#include "support/support.h"

namespace quern::test {

struct Outcome {
  int code = 0;  // exit status, or 128 + the signal that ended it
  std::string out, err;
};

struct Surroundings {
  std::string input;                                           // standard input
  std::vector<std::pair<std::string, std::string>> variables;  // added to the environment
  fs::path folder;                                             // where it runs; empty: here
};

// Runs a program with its arguments and waits for its end. Configuration files and variables of
// whoever runs the tests are out of its sight.
Outcome run(const std::vector<std::string>& arguments, const Surroundings& around = {});

// run() for quern itself.
Outcome quern(std::vector<std::string> arguments, const Surroundings& around = {});

// What a command that went well printed.
Json parsed(const Outcome& outcome);

// A program at a terminal of 80 columns and 24 rows.
class Terminal {
 public:
  Terminal(std::vector<std::string> arguments,
           const std::vector<std::pair<std::string, std::string>>& variables);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(std::string_view keys);
  // Waits for `text` in what it printed after the last match; fails the test after 30 seconds.
  void expect(std::string_view text);
  // Everything that it printed so far.
  const std::string& output() const { return output_; }
  // Waits until the program is ready for an entry: keys typed before would go through the
  // terminal's own line editing.
  void expect_prompt() { expect("\x1b[?2004h"); }
  // Waits for the end of the program, which it kills after 30 seconds; its exit status as in
  // Outcome.
  int wait();

 private:
  bool read_more(int timeout_ms);

  int descriptor_ = -1;
  pid_t process_ = -1;
  std::string output_;
  size_t matched_ = 0;
};

}  // namespace quern::test
