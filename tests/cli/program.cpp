#include "cli/program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace quern::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(30);

int status_of(pid_t process) {
  int status = 0;
  ::waitpid(process, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// In the child: never returns.
[[noreturn]] void execute(const std::vector<std::string>& arguments,
                          const std::vector<std::pair<std::string, std::string>>& variables) {
  ::setenv("HOME", "/nonexistent", 1);
  ::unsetenv("XDG_CONFIG_HOME");
  ::unsetenv("XDG_STATE_HOME");
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("QUERN_OFFLINE", "1", 1);  // no model is fetched where none is named
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

}  // namespace

Outcome run(const std::vector<std::string>& arguments, const Surroundings& around) {
  // Files instead of pipes: nothing can block.
  const TempFolder streams;
  const fs::path input = streams.write("in", around.input);
  const fs::path output = streams.path() / "out", errors = streams.path() / "err";
  const pid_t process = ::fork();
  if (process == 0) {
    ::dup2(::open(input.c_str(), O_RDONLY), STDIN_FILENO);
    ::dup2(::open(output.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    ::dup2(::open(errors.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    if (!around.folder.empty() && ::chdir(around.folder.c_str()) != 0) ::_exit(126);
    execute(arguments, around.variables);
  }
  Outcome outcome;
  outcome.code = status_of(process);
  outcome.out = content(output);
  outcome.err = content(errors);
  return outcome;
}

Outcome quern(std::vector<std::string> arguments, const Surroundings& around) {
  arguments.insert(arguments.begin(), test::program_path());
  return run(arguments, around);
}

Json parsed(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return Json::parse(outcome.out, "output");
}

Terminal::Terminal(std::vector<std::string> arguments,
                   const std::vector<std::pair<std::string, std::string>>& variables) {
  arguments.insert(arguments.begin(), test::program_path());
  const winsize size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  process_ = ::forkpty(&descriptor_, nullptr, nullptr, &size);
  if (process_ == 0) execute(arguments, variables);
}

Terminal::~Terminal() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    status_of(process_);
  }
  ::close(descriptor_);
}

void Terminal::type(std::string_view keys) {
  while (!keys.empty()) {
    const ssize_t written = ::write(descriptor_, keys.data(), keys.size());
    ASSERT_GT(written, 0);
    keys.remove_prefix(static_cast<size_t>(written));
  }
}

bool Terminal::read_more(int timeout_ms) {
  pollfd waiting = {descriptor_, POLLIN, 0};
  if (::poll(&waiting, 1, timeout_ms) <= 0) return false;
  char block[4096];
  const ssize_t got = ::read(descriptor_, block, sizeof block);
  if (got <= 0) return false;
  output_.append(block, static_cast<size_t>(got));
  return true;
}

void Terminal::expect(std::string_view text) {
  const auto end = Clock::now() + kPatience;
  while (true) {
    const size_t at = output_.find(text, matched_);
    if (at != output_.npos) {
      matched_ = at + text.size();
      return;
    }
    ASSERT_LT(Clock::now(), end) << "waited for '" << text << "' after:\n"
                                 << output_.substr(std::max(
                                        matched_,
                                        output_.size() - std::min<size_t>(output_.size(), 2000)));
    read_more(200);
  }
}

int Terminal::wait() {
  const auto end = Clock::now() + kPatience;
  siginfo_t state{};
  while (state.si_pid == 0) {  // it runs
    read_more(100);
    if (Clock::now() > end) ::kill(process_, SIGKILL);
    ::waitid(P_PID, static_cast<id_t>(process_), &state, WEXITED | WNOHANG | WNOWAIT);
  }
  while (read_more(0)) {
  }
  const int code = status_of(process_);
  process_ = -1;
  return code;
}

}  // namespace quern::test
