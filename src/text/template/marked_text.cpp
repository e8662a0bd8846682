#include "text/template/marked_text.h"

#include <algorithm>

namespace quern::chat_template {

void MarkedText::start_run(Origin origin) {
  if (runs_.empty() || !(runs_.back().origin == origin)) runs_.push_back({bytes_.size(), origin});
}

void MarkedText::append(std::string_view text, Origin origin) {
  if (text.empty()) return;
  start_run(origin);
  bytes_ += text;
}

void MarkedText::append(const MarkedText& other, size_t begin, size_t end) {
  if (begin >= end) return;
  if (&other == this) return append(MarkedText(other), begin, end);
  for (size_t run = other.run_at(begin); begin < end; ++run) {
    const size_t stop =
        run + 1 < other.runs_.size() ? std::min(other.runs_[run + 1].begin, end) : end;
    append(other.bytes().substr(begin, stop - begin), other.runs_[run].origin);
    begin = stop;
  }
}

MarkedText MarkedText::sub(size_t begin, size_t end) const {
  MarkedText out;
  out.append(*this, begin, std::min(end, size()));
  return out;
}

void MarkedText::truncate(size_t size) {
  bytes_.resize(std::min(size, bytes_.size()));
  while (!runs_.empty() && runs_.back().begin >= bytes_.size()) runs_.pop_back();
}

size_t MarkedText::run_at(size_t at) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), at,
                       [](size_t value, const Run& run) { return value < run.begin; });
  return static_cast<size_t>(after - runs_.begin()) - 1;
}

Origin MarkedText::origin_at(size_t at) const { return runs_[run_at(at)].origin; }

void MarkedText::mark_generated(size_t begin, size_t end) {
  if (begin >= end) return;
  MarkedText out;
  out.append(*this, 0, begin);
  for (size_t run = run_at(begin); begin < end; ++run) {
    const size_t stop = run + 1 < runs_.size() ? std::min(runs_[run + 1].begin, end) : end;
    Origin origin = runs_[run].origin;
    origin.generated = true;
    out.append(bytes().substr(begin, stop - begin), origin);
    begin = stop;
  }
  out.append(*this, end, size());
  *this = std::move(out);
}

}  // namespace quern::chat_template
