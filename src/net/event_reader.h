// Server-sent events out of bytes as they come (WHATWG HTML, "Server-sent events").
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace quern::net {

class EventReader {
 public:
  // Calls `on_event` with the data of each event that is whole; stops when it returns false, and
  // then returns false. Names, ids and comments are left out; an event without data is none.
  bool put(std::string_view bytes, const std::function<bool(std::string_view data)>& on_event);

  // Bytes kept of the event at hand: for a limit.
  size_t pending() const noexcept { return line_.size() + data_.size(); }

 private:
  bool end_line(const std::function<bool(std::string_view data)>& on_event);

  std::string line_, data_;
  bool has_data_ = false, after_cr_ = false, first_ = true;
};

}  // namespace quern::net
