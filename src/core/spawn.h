// The attributes of a child process that must not share our session: one of its own, with no signal
// blocked and every one at its default.
#pragma once

#include <spawn.h>

namespace quern {

class OwnSession {
 public:
  OwnSession();
  ~OwnSession();
  OwnSession(const OwnSession&) = delete;
  OwnSession& operator=(const OwnSession&) = delete;

  const posix_spawnattr_t* get() const noexcept { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

}  // namespace quern
