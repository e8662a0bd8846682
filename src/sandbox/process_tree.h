// What a process and all its descendants use, read from /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace quern {

struct TreeUsage {
  std::vector<pid_t> processes;  // the root first, parents before their children
  int64_t threads = 0;
  int64_t resident_bytes = 0;  // not shared with files
  double cpu_seconds = 0;      // with that of children that were waited for
};

TreeUsage tree_usage(pid_t root);

}  // namespace quern
