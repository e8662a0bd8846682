// The system calls that a sandboxed program may make.
#pragma once

#include <string>

namespace quern {

// The filter as the kernel loads it: an array of struct sock_filter. Made once.
const std::string& seccomp_filter();

}  // namespace quern
