#include "serve/metrics.h"

#include <fmt/format.h>

namespace quern::serve {

void Histogram::observe(double seconds) noexcept {
  size_t bucket = 0;
  while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_us_.fetch_add(static_cast<uint64_t>(seconds * 1e6), std::memory_order_relaxed);
}

void Histogram::write(std::string& out, std::string_view name, std::string_view help) const {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  uint64_t total = 0;
  for (size_t i = 0; i <= kBounds.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bound, total);
  }
  const double sum = static_cast<double>(sum_us_.load(std::memory_order_relaxed)) / 1e6;
  out += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name, sum, total);
}

void Metrics::count_request(int status) {
  const std::lock_guard lock(mutex_);
  ++by_status_[status];
}

void Metrics::count_refusal(const std::string& why) {
  const std::lock_guard lock(mutex_);
  ++refusals_[why];
}

std::string Metrics::text() const {
  std::string out;
  first_token.write(out, "quern_time_to_first_token_seconds",
                    "From the request to its first token.");
  between_tokens.write(out, "quern_inter_token_seconds", "Between two tokens of a stream.");
  request.write(out, "quern_request_seconds", "From the request to the end of its answer.");
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, double>> values;
  for (const auto& [status, count] : by_status_) {
    values.emplace_back(fmt::format("status=\"{}\"", status), static_cast<double>(count));
  }
  write_metric(out, "quern_requests_total", "counter", "Requests by the status of their answer.",
               values);
  values.clear();
  for (const auto& [why, count] : refusals_) {
    values.emplace_back(fmt::format("reason=\"{}\"", why), static_cast<double>(count));
  }
  write_metric(out, "quern_refusals_total", "counter", "Requests refused, by reason.", values);
  return out;
}

void write_metric(std::string& out, std::string_view name, std::string_view type,
                  std::string_view help,
                  std::span<const std::pair<std::string, double>> labelled_values) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  for (const auto& [labels, value] : labelled_values) {
    out += labels.empty() ? fmt::format("{} {}\n", name, value)
                          : fmt::format("{}{{{}}} {}\n", name, labels, value);
  }
}

}  // namespace quern::serve
