#include "core/spawn.h"

#include <csignal>

namespace quern {

OwnSession::OwnSession() {
  ::posix_spawnattr_init(&attributes_);
  ::posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes_, &none);
  ::posix_spawnattr_setsigdefault(&attributes_, &all);
}

OwnSession::~OwnSession() { ::posix_spawnattr_destroy(&attributes_); }

}  // namespace quern
