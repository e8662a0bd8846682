#include "core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/json.h"

namespace quern {
namespace {

std::atomic<ProgressMode> chosen_mode{ProgressMode::Auto};

ProgressMode resolved_mode() {
  const ProgressMode mode = chosen_mode.load();
  if (mode != ProgressMode::Auto) return mode;
  return ::isatty(STDERR_FILENO) != 0 ? ProgressMode::Tty : ProgressMode::Plain;
}

std::string scaled(double value, std::initializer_list<const char*> units) {
  auto unit = units.begin();
  while (value >= 999.5 && unit + 1 != units.end()) {
    value /= 1000;
    ++unit;
  }
  const int digits = unit == units.begin() ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  const std::string number = fmt::format("{:.{}f}", value, digits);
  return **unit == '\0' ? number : number + " " + *unit;
}

}  // namespace

std::optional<ProgressMode> progress_mode_from_name(std::string_view name) {
  if (name == "auto") return ProgressMode::Auto;
  if (name == "tty") return ProgressMode::Tty;
  if (name == "plain") return ProgressMode::Plain;
  if (name == "json") return ProgressMode::Json;
  if (name == "none") return ProgressMode::None;
  return std::nullopt;
}

void set_progress_mode(ProgressMode mode) { chosen_mode.store(mode); }

Progress::Progress(std::string title, uint64_t total, std::string unit, uint64_t already)
    : title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      mode_(resolved_mode()),
      already_(already) {}

Progress::~Progress() {
  // A job that threw leaves no half line behind.
  if (!finished_ && mode_ == ProgressMode::Tty && printed_ != Clock::time_point{}) {
    std::fputs("\n", stderr);
  }
}

void Progress::update(uint64_t done, std::string_view note) {
  done_ = done;
  if (mode_ == ProgressMode::None) return;
  const auto interval = mode_ == ProgressMode::Plain ? std::chrono::milliseconds(5000)
                                                     : std::chrono::milliseconds(200);
  const auto now = Clock::now();
  const auto since = printed_ == Clock::time_point{} ? started_ : printed_;
  if (now - since < interval) return;
  printed_ = now;
  print(false, note);
}

void Progress::finish(std::string_view note) {
  if (finished_) return;
  finished_ = true;
  if (total_ != 0) done_ = total_;
  if (mode_ == ProgressMode::None) return;
  // A job too short to have shown anything stays silent where people look.
  if (printed_ == Clock::time_point{} && mode_ != ProgressMode::Json) return;
  print(true, note);
}

void Progress::clear() {
  if (mode_ != ProgressMode::Tty || printed_ == Clock::time_point{}) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void Progress::print(bool last, std::string_view note) {
  const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done_ - already_) / elapsed : 0;
  const double left = rate > 0 && total_ > done_ ? static_cast<double>(total_ - done_) / rate : 0;
  if (mode_ == ProgressMode::Json) {
    nlohmann::ordered_json line = {{"progress", title_}, {"done", done_},        {"total", total_},
                                   {"unit", unit_},      {"elapsed_s", elapsed}, {"left_s", left},
                                   {"finished", last}};
    if (!note.empty()) line["note"] = note;
    fmt::print(stderr, "{}\n", dump(line));
    return;
  }
  const bool bytes = unit_ == "bytes";
  const auto amount = [&](double value) {
    const auto whole = static_cast<uint64_t>(value);
    return bytes ? human_bytes(whole) : human_count(whole);
  };
  std::string text = title_ + " ";
  if (total_ != 0) {
    const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    if (mode_ == ProgressMode::Tty) {
      constexpr int kWidth = 24;
      const int filled = static_cast<int>(share * kWidth);
      for (int i = 0; i < kWidth; ++i) text += i < filled ? "█" : "░";
      text += " ";
    }
    text += fmt::format("{:3.0f} %  ", 100 * share);
  }
  text += amount(static_cast<double>(done_));
  if (total_ != 0) text += " of " + amount(static_cast<double>(total_));
  if (!bytes) text += " " + unit_;
  text += fmt::format(", {}{}/s", amount(rate), bytes ? "" : " " + unit_);
  if (last) {
    text += ", " + human_seconds(elapsed);
  } else if (left > 0) {
    text += ", " + human_seconds(left) + " left";
  }
  if (!note.empty()) text += fmt::format(", {}", note);
  if (mode_ == ProgressMode::Tty) {
    fmt::print(stderr, "\r\x1b[K{}{}", text, last ? "\n" : "");
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

std::string human_bytes(uint64_t bytes) {
  return scaled(static_cast<double>(bytes), {"B", "kB", "MB", "GB", "TB"});
}

std::string human_count(uint64_t count) {
  return scaled(static_cast<double>(count), {"", "k", "M", "B", "T"});
}

std::string human_seconds(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace quern
