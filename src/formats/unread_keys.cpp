#include "formats/unread_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <mutex>
#include <set>

#include "core/log.h"

namespace quern {

bool is_off(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_bool()) return !value.boolean();
  if (value.is_string()) return value.string().empty();
  return (value.is_array() || value.is_object()) && value.size() == 0;
}

void warn_of_unread_keys(const std::string& where, const std::vector<std::string>& keys) {
  if (keys.empty()) return;
  const std::string line =
      fmt::format("{}: not known, without effect: {}", where, fmt::join(keys, ", "));
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.insert(line).second) log::warning(line);
}

}  // namespace quern
