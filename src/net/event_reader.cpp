#include "net/event_reader.h"

#include <algorithm>
#include <utility>

namespace quern::net {

bool EventReader::put(std::string_view bytes,
                      const std::function<bool(std::string_view data)>& on_event) {
  while (!bytes.empty()) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    line_ += bytes.substr(0, end);
    if (end == bytes.size()) return true;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (!end_line(on_event)) return false;
  }
  return true;
}

bool EventReader::end_line(const std::function<bool(std::string_view data)>& on_event) {
  std::string_view line = line_;
  if (std::exchange(first_, false) && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  bool more = true;
  if (line.empty()) {
    if (std::exchange(has_data_, false)) {
      const std::string data = std::exchange(data_, {});
      more = on_event(data);
    }
  } else if (line == "data" || line.starts_with("data:")) {
    line.remove_prefix(std::min<size_t>(line.size(), 5));
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (std::exchange(has_data_, true)) data_ += '\n';
    data_ += line;
  }
  line_.clear();
  return more;
}

}  // namespace quern::net
