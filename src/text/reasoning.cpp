#include "text/reasoning.h"

#include <algorithm>

namespace quern {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kSpace = " \t\r\n";

// How much of the end of `text` could be the beginning of `word`.
size_t unfinished(std::string_view text, std::string_view word) {
  for (size_t size = std::min(text.size(), word.size() - 1); size > 0; --size) {
    if (word.starts_with(text.substr(text.size() - size))) return size;
  }
  return 0;
}

}  // namespace

ReasoningSplitter::Pieces ReasoningSplitter::put(std::string_view text) {
  Pieces out;
  held_ += text;
  for (;;) {
    if (state_ == State::Start) {
      const size_t first = std::min(held_.find_first_not_of(kSpace), held_.size());
      const std::string_view rest = std::string_view(held_).substr(first);
      if (rest.starts_with(kOpen)) {
        held_.erase(0, first + kOpen.size());
        state_ = State::Reasoning;
      } else if (kOpen.starts_with(rest)) {
        return out;  // it may still come
      } else {
        state_ = State::Content;
      }
    } else if (state_ == State::Reasoning) {
      if (!begun_) {
        held_.erase(0, std::min(held_.find_first_not_of("\r\n"), held_.size()));
      }
      const size_t close = held_.find(kClose);
      std::string_view given = std::string_view(held_).substr(0, close);
      if (close == std::string::npos) {
        // White space at the end is given out once more follows, or not at all.
        given.remove_suffix(unfinished(given, kClose));
        const size_t last = given.find_last_not_of(kSpace);
        given = given.substr(0, last == given.npos ? 0 : last + 1);
      } else {
        const size_t last = given.find_last_not_of("\r\n");
        given = given.substr(0, last == given.npos ? 0 : last + 1);
      }
      out.reasoning += given;
      begun_ = begun_ || !given.empty();
      if (close == std::string::npos) {
        held_.erase(0, given.size());
        return out;
      }
      held_.erase(0, close + kClose.size());
      state_ = State::AfterTag;
    } else if (state_ == State::AfterTag) {
      const size_t first = held_.find_first_not_of("\r\n");
      held_.erase(0, std::min(first, held_.size()));
      if (held_.empty()) return out;
      state_ = State::Content;
    } else {
      out.content += held_;
      held_.clear();
      return out;
    }
  }
}

ReasoningSplitter::Pieces ReasoningSplitter::flush() {
  Pieces out;
  if (state_ == State::Reasoning) {
    out.reasoning = held_.substr(0, held_.find_last_not_of(kSpace) + 1);
  } else if (state_ == State::Start || state_ == State::Content) {
    out.content = held_;
  }
  held_.clear();
  return out;
}

bool opens_reasoning(std::string_view prompt) {
  const size_t last = prompt.find_last_not_of(kSpace);
  return last != prompt.npos && prompt.substr(0, last + 1).ends_with(kOpen);
}

}  // namespace quern
