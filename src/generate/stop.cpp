#include "generate/stop.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace quern {

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& text : strings_) {
    if (text.empty()) throw Error(Kind::Misused, "a stop string is empty");
  }
}

std::string StopStrings::put(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  size_t first = held_.npos;
  for (const std::string& stop : strings_) first = std::min(first, held_.find(stop));
  if (first != held_.npos) {
    stopped_ = true;
    std::string out = held_.substr(0, first);
    held_.clear();
    return out;
  }
  // The longest end of the text that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : strings_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (held_.ends_with(std::string_view(stop).substr(0, length))) keep = length;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopStrings::flush() { return std::exchange(held_, {}); }

bool StopRules::ends(TokenId id) const noexcept {
  return !ignore_ids && std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool StopRules::forces_end(std::span<const TokenId> history) const noexcept {
  return !ignore_ids && std::any_of(sequences.begin(), sequences.end(), [&](const auto& sequence) {
    return !sequence.empty() && history.size() >= sequence.size() &&
           std::equal(sequence.rbegin(), sequence.rend(), history.rbegin());
  });
}

}  // namespace quern
