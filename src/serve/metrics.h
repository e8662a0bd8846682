// Counters of the server in Prometheus' text form.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::serve {

class Histogram {
 public:
  void observe(double seconds) noexcept;
  void write(std::string& out, std::string_view name, std::string_view help) const;

 private:
  static constexpr std::array<double, 14> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                     0.25,  0.5,    1,     2.5,  5,     10,   60};
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<uint64_t> sum_us_{0};
};

class Metrics {
 public:
  Histogram first_token, between_tokens, request;

  void count_request(int status);
  void count_refusal(const std::string& why);
  // The histograms and what is counted here; what engines count is the caller's.
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::map<int, uint64_t> by_status_;
  std::map<std::string, uint64_t> refusals_;
};

// "# HELP", "# TYPE" and one line for each labelled value.
void write_metric(std::string& out, std::string_view name, std::string_view type,
                  std::string_view help,
                  std::span<const std::pair<std::string, double>> labelled_values);

}  // namespace quern::serve
