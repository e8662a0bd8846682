#include "cli/framework/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "core/error.h"

namespace quern::cli {
namespace {

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

// The folder that is to be made first: the one asked for, or one beside what it will replace.
fs::path place(const fs::path& path, bool force) {
  claim_output(path, force);
  const fs::path wanted = without_slash(path);
  return is_taken(wanted) ? wanted.string() + fmt::format(".new-{}", ::getpid()) : wanted.string();
}

}  // namespace

bool is_taken(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(path, ignored);
  if (!fs::exists(status)) return false;
  if (fs::is_directory(path, ignored)) return !fs::is_empty(path, ignored);
  return fs::is_regular_file(status) || fs::is_symlink(status);
}

void claim_output(const fs::path& path, bool force) {
  const fs::path wanted = without_slash(path);
  if (!is_taken(wanted)) return;
  if (!force) {
    throw Error(Kind::Misused, path.string() + ": exists already",
                "name another one, or --force to replace it");
  }
  std::error_code ignored;
  if (!fs::is_directory(wanted, ignored)) return;
  for (const auto& entry : fs::directory_iterator(wanted)) {
    if (entry.is_directory() && !entry.is_symlink()) {
      throw Error(Kind::Misused,
                  path.string() + ": holds folders, so that --force does not replace it",
                  "name another one, or remove it yourself");
    }
  }
}

OutputFolder::OutputFolder(const fs::path& path, bool force)
    : path_(without_slash(path)), folder_(place(path, force)) {}

void OutputFolder::commit() {
  const bool replaces = is_taken(path_);
  folder_.commit();
  if (!replaces) return;
  replace_output(place(path_, true), path_);
}

void replace_output(const fs::path& made, const fs::path& path) {
  // Both names at once change what they name, so that there is a whole folder at every moment.
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {
    throw_errno(path.string(), "cannot be replaced");
  }
  fs::remove_all(made);
}

}  // namespace quern::cli
