// Text that knows where each of its bytes came from. A chat template's own literals may make control
// tokens, what comes from messages, tools and documents may not: both run through the same filters
// and concatenations, so the origin travels with the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::chat_template {

// Where bytes came from.
struct Origin {
  bool literal = false;    // written by the template itself
  bool generated = false;  // printed inside {% generation %}
  uint32_t message = 0;    // of foreign bytes: the message's number from 1; 0 for anything else

  bool operator==(const Origin&) const = default;
};
constexpr Origin kLiteral{.literal = true};
constexpr Origin kForeign{};

class MarkedText {
 public:
  struct Run {
    size_t begin;
    Origin origin;
  };

  MarkedText() = default;
  MarkedText(std::string_view text, Origin origin) { append(text, origin); }

  std::string_view bytes() const noexcept { return bytes_; }
  size_t size() const noexcept { return bytes_.size(); }
  bool empty() const noexcept { return bytes_.empty(); }
  // Neighbours differ, the first begins at 0; none for an empty text.
  const std::vector<Run>& runs() const noexcept { return runs_; }

  void append(std::string_view text, Origin origin);
  void append(const MarkedText& other) { append(other, 0, other.size()); }
  void append(const MarkedText& other, size_t begin, size_t end);
  MarkedText sub(size_t begin, size_t end) const;

  void truncate(size_t size);

  // Origin of the byte at `at`, which must exist.
  Origin origin_at(size_t at) const;
  // Marks [begin, end) as printed by {% generation %}.
  void mark_generated(size_t begin, size_t end);

 private:
  size_t run_at(size_t at) const;
  void start_run(Origin origin);

  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace quern::chat_template
