#include "sandbox/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace quern {
namespace {

// A file of /proc; empty where the process is gone.
std::string slurp(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(file, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(count));
  }
  ::close(file);
  return text;
}

void add_children(const std::string& process, std::vector<pid_t>& out) {
  const std::string tasks = process + "/task";
  DIR* folder = ::opendir(tasks.c_str());
  if (folder == nullptr) return;
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    const std::string list = slurp(tasks + "/" + entry->d_name + "/children");
    for (const char* at = list.c_str(); *at != '\0';) {
      char* end = nullptr;
      const long pid = std::strtol(at, &end, 10);
      if (end == at) break;
      out.push_back(static_cast<pid_t>(pid));
      at = end;
      while (*at == ' ') ++at;
    }
  }
  ::closedir(folder);
}

}  // namespace

TreeUsage tree_usage(pid_t root) {
  static const double ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  static const int64_t page = ::sysconf(_SC_PAGESIZE);
  TreeUsage usage;
  usage.processes = {root};
  for (size_t i = 0; i < usage.processes.size(); ++i) {
    const std::string process = "/proc/" + std::to_string(usage.processes[i]);
    // The fields after the name, which is in brackets and may hold anything: state is field 3.
    const std::string stat = slurp(process + "/stat");
    const size_t name_end = stat.rfind(')');
    if (name_end == stat.npos) continue;
    long long utime = 0, stime = 0, child_utime = 0, child_stime = 0, threads = 0;
    std::sscanf(stat.c_str() + name_end + 1,
                " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld %lld %lld %*d %*d %lld",
                &utime, &stime, &child_utime, &child_stime, &threads);
    usage.cpu_seconds += static_cast<double>(utime + stime + child_utime + child_stime) / ticks;
    usage.threads += threads;
    long long resident = 0, shared = 0;
    if (std::sscanf(slurp(process + "/statm").c_str(), "%*d %lld %lld", &resident, &shared) == 2) {
      usage.resident_bytes += (resident - shared) * page;
    }
    add_children(process, usage.processes);
  }
  return usage;
}

}  // namespace quern
