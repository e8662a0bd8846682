#include "sandbox/seccomp_filter.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "core/error.h"

namespace quern {
namespace {

// The system calls that interpreters, compilers and ordinary programs use. Everything else fails
// with EPERM: mount, ptrace, namespaces, bpf, keys, io_uring, perf, modules, clocks, shared memory
// that outlives its process, reading other processes' memory.
constexpr const char* kAllowed[] = {
    // files
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "open",
    "openat",
    "openat2",
    "close",
    "close_range",
    "creat",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "lseek",
    "access",
    "faccessat",
    "faccessat2",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "flock",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "truncate",
    "ftruncate",
    "fallocate",
    "fadvise64",
    "getdents",
    "getdents64",
    "getcwd",
    "chdir",
    "fchdir",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "rmdir",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "symlink",
    "symlinkat",
    "readlink",
    "readlinkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "umask",
    "utime",
    "utimes",
    "utimensat",
    "futimesat",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "copy_file_range",
    "sendfile",
    "splice",
    "tee",
    "pipe",
    "pipe2",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    // waiting
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_gettime",
    "signalfd",
    "signalfd4",
    // memory
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "msync",
    "mincore",
    "mlock",
    "munlock",
    "membarrier",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    // processes and threads
    "fork",
    "vfork",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "kill",
    "tkill",
    "tgkill",
    "getpid",
    "getppid",
    "gettid",
    "getpgid",
    "getpgrp",
    "setpgid",
    "getsid",
    "setsid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "capget",
    "prctl",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "get_robust_list",
    "futex",
    "futex_waitv",
    "rseq",
    "sched_yield",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_getparam",
    "sched_getscheduler",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "getpriority",
    "setpriority",
    "getcpu",
    "getrlimit",
    "setrlimit",
    "prlimit64",
    "getrusage",
    "times",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    // signals
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "restart_syscall",
    "alarm",
    "getitimer",
    "setitimer",
    "timer_create",
    "timer_settime",
    "timer_gettime",
    "timer_getoverrun",
    "timer_delete",
    // time and the machine
    "time",
    "gettimeofday",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "uname",
    "sysinfo",
    "getrandom",
    // sockets that lead to nobody else: pairs, and Unix sockets in the program's own /tmp
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "getsockname",
    "getpeername",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "shutdown",
    "getsockopt",
    "setsockopt",
};

// Requests that programs make of files and terminals. TIOCSTI and TIOCLINUX, which type into the
// caller's terminal, are not among them, nor are they with any bits above the 32nd set.
constexpr uint64_t kIoctls[] = {
    0x5401,  // TCGETS
    0x540F,  // TIOCGPGRP
    0x5413,  // TIOCGWINSZ
    0x541B,  // FIONREAD
    0x5421,  // FIONBIO
    0x5450,  // FIONCLEX
    0x5451,  // FIOCLEX
};

constexpr uint64_t kNamespaceFlags = 0x7E020000;  // CLONE_NEWNS, NEWCGROUP, NEWUTS, ... NEWNET
constexpr uint64_t kUnixFamily = 1;

void must(int result, const char* what) {
  if (result >= 0) return;
  throw Error(Kind::Failed, std::string("seccomp: cannot ") + what);
}

std::string make_filter() {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (filter == nullptr) throw Error(Kind::NoResources, "seccomp: no memory for the filter");
  struct Release {
    scmp_filter_ctx filter;
    ~Release() { seccomp_release(filter); }
  } release{filter};
  for (const char* name : kAllowed) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || number < 0) continue;  // not on this kind of machine
    must(seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0), "allow a call");
  }
  for (const uint64_t request : kIoctls) {
    must(
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, request)),
        "allow an ioctl");
  }
  // Threads and forks, but no new namespaces. clone3 has its flags in memory, where a filter cannot
  // see them: without it the C library goes back to clone.
  must(seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                        SCMP_A0(SCMP_CMP_MASKED_EQ, kNamespaceFlags, 0)),
       "allow clone");
  must(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "hide clone3");
  for (const int call : {SCMP_SYS(socket), SCMP_SYS(socketpair)}) {
    must(seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, kUnixFamily)),
         "allow Unix sockets");
  }
  must(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), "make a tree of the filter");
  const int file = ::memfd_create("seccomp", MFD_CLOEXEC);
  if (file < 0) throw_errno("memfd", "cannot create");
  const int exported = seccomp_export_bpf(filter, file);
  std::string bytes(static_cast<size_t>(::lseek(file, 0, SEEK_END)), '\0');
  const ssize_t read = ::pread(file, bytes.data(), bytes.size(), 0);
  ::close(file);
  must(exported, "export the filter");
  if (read != static_cast<ssize_t>(bytes.size())) throw_errno("memfd", "cannot read");
  return bytes;
}

}  // namespace

const std::string& seccomp_filter() {
  static const std::string filter = make_filter();
  return filter;
}

}  // namespace quern
