#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/spawn.h"
#include "sandbox/init/protocol.h"
#include "sandbox/process_tree.h"
#include "sandbox/seccomp_filter.h"

// The first process's program.
asm(".pushsection .rodata\n"
    ".hidden quern_sandbox_init\n"
    ".hidden quern_sandbox_init_end\n"
    ".globl quern_sandbox_init, quern_sandbox_init_end\n"
    "quern_sandbox_init:\n"
    ".incbin \"" QUERN_SANDBOX_INIT
    "\"\n"
    "quern_sandbox_init_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" const char quern_sandbox_init[], quern_sandbox_init_end[];

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uid_t kNobody = 65534;
constexpr size_t kMaxReport = 4096;
constexpr int kTickMs = 15;            // how often the tree is looked at
constexpr int64_t kOwnProcesses = 3;   // bubblewrap, the first process, and room for one more
constexpr int kSeccompDescriptor = 5;  // numbers that bubblewrap is told
constexpr int kInitDescriptor = 6;

// Owns a descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    reset();
    value_ = std::exchange(other.value_, -1);
    return *this;
  }
  int get() const noexcept { return value_; }
  explicit operator bool() const noexcept { return value_ >= 0; }
  void reset() noexcept {
    if (value_ >= 0) ::close(value_);
    value_ = -1;
  }

 private:
  int value_ = -1;
};

// Descriptors for the child are numbers above those it is to see, so that putting one in its place
// never overwrites another.
Descriptor out_of_the_way(int descriptor) {
  const Descriptor original(descriptor);
  const int moved = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 16);
  if (moved < 0) throw_errno("descriptor", "cannot duplicate");
  return Descriptor(moved);
}

struct Pipe {
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe", "cannot create");
    read = out_of_the_way(ends[0]);
    write = out_of_the_way(ends[1]);
  }
  Descriptor read, write;
};

// A file in memory that holds `bytes`, to be read from its beginning.
Descriptor memory_file(const char* name, std::string_view bytes) {
  const int file = ::memfd_create(name, MFD_CLOEXEC);
  if (file < 0) throw_errno("memfd", "cannot create");
  Descriptor held = out_of_the_way(file);
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t count =
        ::pwrite(held.get(), bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
    if (count <= 0) throw_errno("memfd", "cannot write");
    at += static_cast<size_t>(count);
  }
  return held;
}

std::string_view init_image() {
  return {quern_sandbox_init, static_cast<size_t>(quern_sandbox_init_end - quern_sandbox_init)};
}

std::vector<std::string> init_arguments(const SandboxLimits& limits) {
  return {fmt::format("{}", std::max<int64_t>(1, std::llround(std::ceil(limits.cpu_seconds)))),
          fmt::format("{}", limits.memory_bytes), fmt::format("{}", limits.processes),
          fmt::format("{}", limits.file_bytes), fmt::format("{}", limits.files)};
}

// /bin, /lib and so on: links into /usr on today's systems, folders of their own on others.
void add_system_folders(std::vector<std::string>& out) {
  out.insert(out.end(), {"--ro-bind", "/usr", "/usr"});
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    std::error_code failure;
    if (fs::is_symlink(name, failure)) {
      out.insert(out.end(), {"--symlink", fs::read_symlink(name, failure).string(), name});
    } else if (fs::is_directory(name, failure)) {
      out.insert(out.end(), {"--ro-bind", name, name});
    }
  }
  for (const char* name : {"/etc/ld.so.cache", "/etc/alternatives"}) {
    out.insert(out.end(), {"--ro-bind-try", name, name});
  }
}

std::vector<std::string> bubblewrap_command(const std::vector<std::string>& command,
                                            const SandboxLimits& limits,
                                            const SandboxOptions& options, bool with_proc) {
  std::vector<std::string> out;
  // Root gives its own rights up first: even a hole in the namespaces then leads to nobody's.
  if (::geteuid() == 0) {
    out = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"};
  }
  const std::string scratch = fmt::format("{}", limits.scratch_bytes);
  out.insert(out.end(), {"bwrap",
                         "--unshare-all",
                         "--die-with-parent",
                         "--new-session",
                         "--as-pid-1",
                         "--cap-drop",
                         "ALL",
                         "--uid",
                         "65534",
                         "--gid",
                         "65534",
                         "--hostname",
                         "sandbox",
                         "--clearenv",
                         "--setenv",
                         "PATH",
                         "/usr/local/bin:/usr/bin:/bin",
                         "--setenv",
                         "HOME",
                         "/tmp",
                         "--setenv",
                         "LANG",
                         "C.UTF-8",
                         "--setenv",
                         "TMPDIR",
                         "/tmp"});
  add_system_folders(out);
  for (const fs::path& folder : options.readable) {
    out.insert(out.end(), {"--ro-bind", folder.string(), folder.string()});
  }
  if (with_proc) out.insert(out.end(), {"--proc", "/proc"});
  const auto add_tmpfs = [&](const char* folder) {
    out.insert(out.end(), {"--perms", "1777", "--size", scratch, "--tmpfs", folder});
  };
  out.insert(out.end(), {"--dev", "/dev"});
  add_tmpfs("/dev/shm");
  out.insert(out.end(), {"--remount-ro", "/dev"});
  add_tmpfs("/tmp");
  out.insert(out.end(), {"--perms", "0555", "--ro-bind-data", fmt::format("{}", kInitDescriptor),
                         "/init", "--remount-ro", "/", "--chdir", "/tmp", "--seccomp",
                         fmt::format("{}", kSeccompDescriptor), "--", "/init"});
  const auto numbers = init_arguments(limits);
  out.insert(out.end(), numbers.begin(), numbers.end());
  out.insert(out.end(), command.begin(), command.end());
  return out;
}

// A folder for a run without namespaces, gone with it.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "quern-unsafe-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw_errno(name, "cannot create");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code failure;
    fs::remove_all(path_, failure);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// A stream of the program and what is kept of it.
struct Stream {
  Descriptor pipe;
  std::string kept;
  size_t limit;
  bool overflowed = false;

  // Reads what is there; closes at the end.
  void drain() {
    char buffer[1 << 16];
    const ssize_t count = ::read(pipe.get(), buffer, sizeof buffer);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
      pipe.reset();
      return;
    }
    const size_t room = limit - kept.size();
    kept.append(buffer, std::min(room, static_cast<size_t>(count)));
    overflowed |= static_cast<size_t>(count) > room;
  }
};

// One run, from the start of its first process to the death of its last.
class Run {
 public:
  Run(const std::vector<std::string>& command, const SandboxLimits& limits,
      const SandboxOptions& options)
      : limits_(limits), options_(options), command_(command) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    if (process_ > 0) {
      kill_tree();
      int status = 0;
      ::waitpid(process_, &status, 0);
    }
  }

  // False where bubblewrap did not get as far as the first process; complaint() says why.
  bool run(bool with_proc) {
    start(with_proc);
    watch();
    settle();
    return started_;
  }

  std::string complaint() const { return err_.kept.substr(0, err_.kept.find('\n')); }
  SandboxOutcome take() { return std::move(outcome_); }

 private:
  void start(bool with_proc) {
    Pipe in, out, err, report, status;
    const Descriptor init = memory_file("init", init_image());
    const Descriptor filter = memory_file("filter", seccomp_filter());
    std::vector<std::string> words;
    if (options_.unsafe) {
      words = {fmt::format("/proc/self/fd/{}", kInitDescriptor)};
      const auto numbers = init_arguments(limits_);
      words.insert(words.end(), numbers.begin(), numbers.end());
      words.insert(words.end(), command_.begin(), command_.end());
    } else {
      words = bubblewrap_command(command_, limits_, options_, with_proc);
    }
    if (options_.unsafe) scratch_.emplace();
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const std::string home = "HOME=" + (scratch_ ? scratch_->path().string() : "/tmp");
    std::vector<std::string> variables = {"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                                          "LANG=C.UTF-8", home};
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    if (scratch_) {
      ::posix_spawn_file_actions_addchdir_np(&actions, scratch_->path().c_str());
    }
    // The caller's descriptors are moved out of the way as well.
    Descriptor own_input, own_report;
    if (options_.input_descriptor >= 0)
      own_input = out_of_the_way(::dup(options_.input_descriptor));
    if (options_.report_descriptor >= 0) {
      own_report = out_of_the_way(::dup(options_.report_descriptor));
    }
    const std::pair<int, int> places[] = {
        {own_input ? own_input.get() : in.read.get(), 0},
        {out.write.get(), 1},
        {err.write.get(), 2},
        {own_report ? own_report.get() : report.write.get(), kReportDescriptor},
        {status.write.get(), kStatusDescriptor},
        {filter.get(), kSeccompDescriptor},
        {init.get(), kInitDescriptor}};
    for (const auto& [from, to] : places) {
      ::posix_spawn_file_actions_adddup2(&actions, from, to);
    }
    ::posix_spawn_file_actions_addclosefrom_np(&actions, kInitDescriptor + 1);
    const OwnSession session;
    started_at_ = Clock::now();
    const int failure = ::posix_spawnp(&process_, arguments[0], &actions, session.get(),
                                       arguments.data(), environment.data());
    ::posix_spawn_file_actions_destroy(&actions);
    if (failure != 0) {
      process_ = -1;
      throw Error(Kind::Unsupported,
                  fmt::format("the sandbox cannot start: {}: {}", words[0], std::strerror(failure)),
                  "install bubblewrap (scripts/install-deps does)");
    }
    in_ = std::move(in.write);
    out_ = {std::move(out.read), {}, limits_.output_bytes};
    err_ = {std::move(err.read), {}, limits_.output_bytes};
    report_ = {std::move(report.read), {}, kMaxReport};
    status_ = {std::move(status.read), {}, 1 + sizeof(SandboxStatus)};
    for (const int descriptor :
         {in_.get(), out_.pipe.get(), err_.pipe.get(), report_.pipe.get(), status_.pipe.get()}) {
      ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
    }
    if (options_.input.empty()) in_.reset();
  }

  double elapsed() const {
    return std::chrono::duration<double>(Clock::now() - started_at_).count();
  }

  void feed() {
    const std::string& input = options_.input;
    const ssize_t count = ::write(in_.get(), input.data() + fed_, input.size() - fed_);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count > 0) fed_ += static_cast<size_t>(count);
    if (count < 0 || fed_ == input.size()) in_.reset();
  }

  // Moves bytes until the first process has told the end, or has none to tell.
  void watch() {
    auto next_look = Clock::now() + std::chrono::milliseconds(kTickMs);
    while (status_.pipe && !ended()) {
      pollfd files[5];
      nfds_t count = 0;
      const auto add = [&](const Descriptor& pipe, short events) {
        if (pipe) files[count++] = {pipe.get(), events, 0};
      };
      add(in_, POLLOUT);
      for (const Stream* stream : {&out_, &err_, &report_, &status_}) add(stream->pipe, POLLIN);
      ::poll(files, count, kTickMs);
      move(files, count);
      const bool cancelled = options_.cancel != nullptr && options_.cancel->load();
      if (cancelled || elapsed() > limits_.wall_seconds) {
        outcome_.timed_out = true;
        kill_tree();
        return;
      }
      if (Clock::now() >= next_look) {
        if (!look()) return;
        next_look = Clock::now() + std::chrono::milliseconds(kTickMs);
      }
    }
  }

  void move(const pollfd* files, nfds_t count) {
    for (nfds_t i = 0; i < count; ++i) {
      if (files[i].revents == 0) continue;
      if (in_ && files[i].fd == in_.get()) {
        feed();
        continue;
      }
      for (Stream* stream : {&out_, &err_, &report_, &status_}) {
        if (stream->pipe && files[i].fd == stream->pipe.get()) stream->drain();
      }
    }
    started_ |= !status_.kept.empty() && status_.kept[0] == kStarted;
  }

  bool ended() const { return status_.kept.size() == 1 + sizeof(SandboxStatus); }

  // Limits that hold for the whole tree. False when it was killed for one.
  bool look() {
    const TreeUsage usage = tree_usage(process_);
    outcome_.cpu_seconds = usage.cpu_seconds;
    const bool slow = usage.cpu_seconds > limits_.cpu_seconds + 0.05;
    const bool fat = usage.resident_bytes > limits_.memory_bytes;
    const bool many = usage.threads > limits_.processes + kOwnProcesses;
    if (!slow && !fat && !many) return true;
    outcome_.timed_out |= slow;
    outcome_.out_of_memory |= fat;
    kill_tree();
    return false;
  }

  // The first process inside takes all others with it; without namespaces each is killed, as often
  // as there are any left.
  void kill_tree() {
    for (int round = 0; round < 100; ++round) {
      const TreeUsage usage = tree_usage(process_);
      for (const pid_t process : usage.processes) ::kill(process, SIGKILL);
      if (!options_.unsafe || usage.processes.size() <= 1) return;
    }
  }

  // Reads to the end what the dead left in the pipes, and says what became of the program.
  void settle() {
    if (options_.unsafe) kill_tree();
    int wait_status = 0;
    ::waitpid(process_, &wait_status, 0);
    process_ = -1;
    outcome_.seconds = elapsed();
    for (Stream* stream : {&out_, &err_, &report_, &status_}) {
      while (stream->pipe) {
        pollfd file = {stream->pipe.get(), POLLIN, 0};
        if (::poll(&file, 1, 0) <= 0) break;
        stream->drain();
      }
    }
    started_ |= !status_.kept.empty() && status_.kept[0] == kStarted;
    if (ended() && !outcome_.timed_out && !outcome_.out_of_memory) {
      SandboxStatus status;
      std::memcpy(&status, status_.kept.data() + 1, sizeof status);
      outcome_.cpu_seconds = static_cast<double>(status.cpu_microseconds) / 1e6;
      if (WIFEXITED(status.wait_status)) outcome_.exit = WEXITSTATUS(status.wait_status);
      if (WIFSIGNALED(status.wait_status)) outcome_.signal = WTERMSIG(status.wait_status);
      const bool spent = outcome_.cpu_seconds + 0.1 >= limits_.cpu_seconds;
      outcome_.timed_out = outcome_.signal == SIGXCPU || (outcome_.signal == SIGKILL && spent);
    } else {
      outcome_.signal = SIGKILL;
    }
    outcome_.out = std::move(out_.kept);
    outcome_.err = err_.kept;
    outcome_.report = std::move(report_.kept);
    outcome_.truncated = out_.overflowed || err_.overflowed;
  }

  const SandboxLimits& limits_;
  const SandboxOptions& options_;
  const std::vector<std::string>& command_;
  std::optional<ScratchFolder> scratch_;
  pid_t process_ = -1;
  Clock::time_point started_at_;
  Descriptor in_;
  size_t fed_ = 0;
  Stream out_{}, err_{}, report_{}, status_{};
  bool started_ = false;
  SandboxOutcome outcome_;
};

// Writing to a pipe whose reader is gone must not end the caller.
void ignore_broken_pipes() {
  struct sigaction action {};
  ::sigaction(SIGPIPE, nullptr, &action);
  if (action.sa_handler != SIG_DFL) return;
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, nullptr);
}

}  // namespace

SandboxOutcome run_sandboxed(const std::vector<std::string>& command, const SandboxLimits& limits,
                             const SandboxOptions& options) {
  if (command.empty()) throw Error(Kind::Misused, "the sandbox has no command to run");
  for (const fs::path& folder : options.readable) {
    if (!fs::exists(folder)) throw_bad_input(folder.string() + ": is not there");
  }
  if (!options.input.empty()) ignore_broken_pipes();
  // Containers often forbid a /proc of one's own; most programs do without.
  std::string complaint;
  for (const bool with_proc : {true, false}) {
    Run run(command, limits, options);
    if (run.run(with_proc)) return run.take();
    if (complaint.empty()) complaint = run.complaint();
    if (options.unsafe) break;
  }
  throw Error(Kind::Unsupported, "the sandbox cannot start: " + printable(complaint),
              "it needs unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
              "or a container that allows them); --unsafe-no-sandbox runs the code without");
}

}  // namespace quern
