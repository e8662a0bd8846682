// How far a long job is: a bar on a terminal, lines elsewhere, JSON for programs. Written to
// stderr. The bar's line never wraps: where the terminal is narrow it says less.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

enum class ProgressMode { Auto, Tty, Plain, Json, None };

std::optional<ProgressMode> progress_mode_from_name(std::string_view name);

// The mode that Auto stands for: Tty if stderr is a terminal, else Plain. Set once by the program.
void set_progress_mode(ProgressMode mode);

class Progress {
 public:
  // `total` 0 means unknown. `unit` is written after counts and rates: "bytes", "tokens". Of a job
  // that was resumed, `already` were done before: they count for how far it is, not for its rate.
  Progress(std::string title, uint64_t total, std::string unit, uint64_t already = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Cheap: prints a few times a second. `note` is a list of facts, "loss 2.1, norm 0.3", the most
  // important one first: a narrow terminal shows as many as fit.
  void update(uint64_t done, std::string_view note = {});
  void finish(std::string_view note = {});  // the last state, once
  void clear();  // takes the bar off a terminal, so that a line of text can be written

 private:
  void print(bool last, std::string_view note);
  std::string line(bool last, std::string_view note, int columns) const;

  using Clock = std::chrono::steady_clock;
  std::string title_;
  uint64_t total_;
  std::string unit_;
  ProgressMode mode_;
  uint64_t already_;
  uint64_t done_ = already_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point printed_{};
  bool finished_ = false;
  int drawn_ = 0;  // columns that the bar's line takes
};

// "1.5 GB", "12 MB": powers of ten, as disks and networks count.
std::string human_bytes(uint64_t bytes);
std::string human_count(uint64_t count);    // "7.72 B", "1.3 M"
std::string human_seconds(double seconds);  // "1 h 02 min", "3.4 s"

}  // namespace quern
