#include "tools/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "core/error.h"
#include "core/spawn.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kFlood = size_t{64} << 20;

void close_end(int& descriptor) noexcept {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

struct Ends {
  int read = -1, write = -1;
  Ends() {
    int both[2];
    if (::pipe2(both, O_CLOEXEC) != 0) throw_errno("pipe", "cannot create");
    read = both[0];
    write = both[1];
  }
  ~Ends() {
    close_end(read);
    close_end(write);
  }
  Ends(const Ends&) = delete;
  Ends& operator=(const Ends&) = delete;
};

int give_away(int& descriptor) {
  ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
  return std::exchange(descriptor, -1);
}

// All processes that have `mark` in their environment.
std::vector<pid_t> marked(const std::string& mark) {
  std::vector<pid_t> out;
  std::error_code failure;
  for (fs::directory_iterator entry("/proc", failure), end; !failure && entry != end;
       entry.increment(failure)) {
    const std::string name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    std::ifstream file(entry->path() / "environ", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.find(mark) != text.npos) out.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return out;
}

}  // namespace

ChildProcess::ChildProcess(const ChildOptions& options) {
  if (options.command.empty() || options.command[0].empty()) {
    throw Error(Kind::Misused, "there is no command to run");
  }
  Ends in, out, err;
  std::random_device random;
  mark_ = fmt::format("QUERN_CHILD={:08x}{:08x}{:08x}", random(), random(), random());
  std::vector<std::string> variables = {mark_};
  for (const char* name : {"PATH", "HOME", "LANG", "TZ", "USER", "TMPDIR"}) {
    if (const char* value = std::getenv(name))
      variables.push_back(fmt::format("{}={}", name, value));
  }
  for (const auto& [name, value] : options.environment) variables.push_back(name + "=" + value);
  std::vector<std::string> words = options.command;
  std::vector<char*> arguments, environment;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (!options.folder.empty()) {
    ::posix_spawn_file_actions_addchdir_np(&actions, options.folder.c_str());
  }
  if (options.input) {
    ::posix_spawn_file_actions_adddup2(&actions, in.read, 0);
  } else {
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  }
  ::posix_spawn_file_actions_adddup2(&actions, out.write, 1);
  ::posix_spawn_file_actions_adddup2(&actions, err.write, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  const OwnSession session;
  const int failure = ::posix_spawnp(&process_, arguments[0], &actions, session.get(),
                                     arguments.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) {
    process_ = -1;
    throw_bad_input(fmt::format("{}: cannot be run: {}", printable(options.command[0], 100),
                                std::strerror(failure)));
  }
  ::signal(SIGPIPE, SIG_IGN);  // a child that reads no more must not end us
  if (options.input) in_ = give_away(in.write);
  out_ = give_away(out.read);
  err_ = give_away(err.read);
}

ChildProcess::~ChildProcess() {
  kill();
  close_in();
  close_out();
  close_err();
}

void ChildProcess::close_in() noexcept { close_end(in_); }
void ChildProcess::close_out() noexcept { close_end(out_); }
void ChildProcess::close_err() noexcept { close_end(err_); }

bool ChildProcess::ended() {
  if (!ended_ && process_ > 0 && ::waitpid(process_, &status_, WNOHANG) == process_) ended_ = true;
  return ended_;
}

std::string ChildProcess::status() const {
  if (!ended_) return "running";
  return WIFEXITED(status_) ? fmt::format("exit status {}", WEXITSTATUS(status_))
                            : fmt::format("signal {}", WTERMSIG(status_));
}

void ChildProcess::kill() noexcept {
  if (process_ <= 0) return;
  try {
    if (!ended_) ::kill(-process_, SIGKILL);
    // What left the group, as often as new ones turn up.
    for (int round = 0; round < 50; ++round) {
      const std::vector<pid_t> left = marked(mark_);
      bool any = false;
      for (const pid_t process : left) {
        any |= process != process_;
        ::kill(process, SIGKILL);
      }
      if (!any) break;
      ::usleep(2000);
    }
  } catch (...) {
    ::kill(-process_, SIGKILL);
  }
  if (!ended_ && ::waitpid(process_, &status_, 0) == process_) ended_ = true;
}

CommandOutcome run_command(const ChildOptions& options, double seconds, size_t kept_bytes,
                           const std::atomic<bool>* cancel) {
  ChildProcess child(options);
  CommandOutcome outcome;
  const auto until = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
  size_t err_bytes = 0;
  auto ended_at = until;
  bool ended = false;
  while (child.out() >= 0 || child.err() >= 0) {
    const auto now = Clock::now();
    outcome.late = now >= until;
    outcome.cancelled = cancel != nullptr && cancel->load();
    outcome.flooded = outcome.out_bytes + err_bytes > kFlood;
    if (outcome.late || outcome.cancelled || outcome.flooded) break;
    if (!ended && child.ended()) {
      ended = true;
      ended_at = now;
    }
    // Children in the background may hold the pipes: they are not waited for.
    if (ended && now > ended_at + std::chrono::milliseconds(200)) break;
    pollfd files[2] = {{child.out(), POLLIN, 0}, {child.err(), POLLIN, 0}};
    if (::poll(files, 2, 20) <= 0) continue;
    char buffer[1 << 16];
    for (const bool is_out : {true, false}) {
      const pollfd& file = files[is_out ? 0 : 1];
      if (file.fd < 0 || file.revents == 0) continue;
      const ssize_t count = ::read(file.fd, buffer, sizeof buffer);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (count <= 0) {
        is_out ? child.close_out() : child.close_err();
        continue;
      }
      std::string& kept = is_out ? outcome.out : outcome.err;
      (is_out ? outcome.out_bytes : err_bytes) += static_cast<size_t>(count);
      kept.append(buffer, std::min(kept_bytes - std::min(kept_bytes, kept.size()),
                                   static_cast<size_t>(count)));
    }
  }
  const bool stopped = outcome.late || outcome.cancelled || outcome.flooded;
  while (!stopped && !child.ended() && Clock::now() < until) ::usleep(2000);
  outcome.late |= !stopped && !child.ended();
  const bool by_itself = child.ended();
  outcome.status = child.status();
  outcome.succeeded = by_itself && child.succeeded();
  return outcome;
}

}  // namespace quern
