// The first process of a sandbox: sets the limits, starts the program, buries orphans, and tells
// the caller how the program ended. A small static program of its own, embedded in quern: nothing
// else of quern is inside the sandbox. When it ends, the kernel kills what is left.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sandbox/init/protocol.h"

namespace {

void limit(int resource, rlim_t soft, rlim_t hard) {
  const rlimit values = {soft, hard};
  if (setrlimit(static_cast<__rlimit_resource>(resource), &values) != 0) _exit(126);
}

[[noreturn]] void start(char** arguments) {
  using namespace quern;
  const auto number = [&](int index) { return strtoull(arguments[index], nullptr, 10); };
  // SIGXCPU comes first, and SIGKILL a second later to those who do not listen.
  limit(RLIMIT_CPU, number(kCpuSeconds), number(kCpuSeconds) + 1);
  limit(RLIMIT_AS, number(kAddressBytes), number(kAddressBytes));
  limit(RLIMIT_NPROC, number(kProcesses), number(kProcesses));
  limit(RLIMIT_FSIZE, number(kFileBytes), number(kFileBytes));
  limit(RLIMIT_NOFILE, number(kFiles), number(kFiles));
  limit(RLIMIT_CORE, 0, 0);
  limit(RLIMIT_MEMLOCK, 0, 0);
  close(kStatusDescriptor);
  execvp(arguments[kCommand], arguments + kCommand);
  fprintf(stderr, "%s: %s\n", arguments[kCommand], strerror(errno));
  _exit(errno == ENOENT ? 127 : 126);
}

}  // namespace

int main(int count, char** arguments) {
  using namespace quern;
  if (count <= kCommand) return 125;
  // Nobody may look into this process or take its descriptors; orphans come to it also where it is
  // not the first process of a namespace.
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (write(kStatusDescriptor, &kStarted, 1) != 1) return 125;
  const pid_t program = fork();
  if (program < 0) return 125;
  if (program == 0) start(arguments);
  close(kReportDescriptor);
  for (;;) {
    int status = 0;
    rusage usage = {};
    const pid_t ended = wait4(-1, &status, 0, &usage);
    if (ended < 0 && errno != EINTR) return 125;
    if (ended != program) continue;
    SandboxStatus report = {};
    report.wait_status = status;
    report.cpu_microseconds = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * int64_t{1000000} +
                              usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    return write(kStatusDescriptor, &report, sizeof report) == sizeof report ? 0 : 125;
  }
}
