// The one error type. A message names the thing, what was found and what was expected; the hint
// names the way out. Both end as one line on the terminal and one JSON body from a server.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace quern {

// What went wrong, as the caller of the program sees it. The values are its exit codes.
enum class Kind {
  Failed = 1,       // the work itself failed
  Misused = 2,      // wrong options or arguments
  BadInput = 3,     // a file or request that is not what it should be
  NoResources = 4,  // out of memory or disk space
  Unsupported = 5,  // right in itself, but this build or machine cannot do it
  Partial = 6,      // stopped half-way and resumable
  Interrupted = 130,
};

class Error : public std::runtime_error {
 public:
  Error(Kind kind, const std::string& message, std::string hint = {});

  Kind kind() const noexcept { return kind_; }
  const std::string& hint() const noexcept { return hint_; }
  int exit_code() const noexcept { return static_cast<int>(kind_); }

  // "message (hint)", with control characters made visible: always exactly one line.
  std::string line() const;

 private:
  Kind kind_;
  std::string hint_;
};

// Shorthand for the commonest kind: input that was checked and found wanting.
[[noreturn]] void throw_bad_input(const std::string& message, std::string hint = {});

// Throws for a failed system call: "path: what: strerror(errno)". A full disk or quota and a lack
// of memory become NoResources, a missing file BadInput, the rest Failed.
[[noreturn]] void throw_errno(const std::string& path, std::string_view what);

// Text from outside made fit for a message: control characters and bad UTF-8 escaped as \xNN, cut
// at `max_bytes`.
std::string printable(std::string_view text, size_t max_bytes = 200);

// The candidate closest to `word` by edit distance, for "did you mean"; empty if none is near.
template <class Range>
std::string nearest(std::string_view word, const Range& candidates);

size_t edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest(std::string_view word, const Range& candidates) {
  std::string best;
  size_t best_distance = word.size() / 3 + 2;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace quern
