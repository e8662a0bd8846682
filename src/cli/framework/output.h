// Where commands write: nothing is overwritten unless --force says so.
#pragma once

#include "core/file.h"

namespace quern::cli {

// Looks at where a command is going to write. Throws Misused if something is there and `force` does
// not say to replace it; an empty folder, a device and a FIFO count as nothing. With `force`, a
// folder may be replaced only if it holds nothing but files, as those that Quern makes do.
void claim_output(const fs::path& path, bool force);

// An AtomicFolder that may take another's place: with `force`, what is there is taken away once the
// new folder is whole, and stays as it is if it never is.
class OutputFolder {
 public:
  OutputFolder(const fs::path& path, bool force);

  const fs::path& temporary() const noexcept { return folder_.temporary(); }
  void commit();

 private:
  fs::path path_;
  AtomicFolder folder_;  // `path_` itself, or beside it
};

// Puts what was made under one name in the place of what is under another, which is removed.
void replace_output(const fs::path& made, const fs::path& path);

// Whether something other than an empty folder is there.
bool is_taken(const fs::path& path);

}  // namespace quern::cli
