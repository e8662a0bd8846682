#include "core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/console.h"
#include "core/json.h"
#include "core/utf8.h"

namespace quern {
namespace {

std::atomic<ProgressMode> chosen_mode{ProgressMode::Auto};

ProgressMode resolved_mode() {
  const ProgressMode mode = chosen_mode.load();
  if (mode != ProgressMode::Auto) return mode;
  return console::is_terminal(STDERR_FILENO) ? ProgressMode::Tty : ProgressMode::Plain;
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
  if (!finished_ && drawn_ > 0) std::fputs("\n", stderr);
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
  if (mode_ != ProgressMode::Tty || drawn_ == 0) return;
  // A line that was drawn before the terminal became narrower takes several rows now.
  const int rows = (drawn_ - 1) / std::max(1, console::columns(STDERR_FILENO));
  fmt::print(stderr, "{}\r\x1b[J", rows > 0 ? fmt::format("\x1b[{}A", rows) : "");
  std::fflush(stderr);
  drawn_ = 0;
}

// The line with as much as `columns` hold; what goes first is what matters least.
std::string Progress::line(bool last, std::string_view note, int columns) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done_ - already_) / elapsed : 0;
  const double left = rate > 0 && total_ > done_ ? static_cast<double>(total_ - done_) / rate : 0;
  const bool bytes = unit_ == "bytes";
  const auto amount = [&](double value) {
    const auto whole = static_cast<uint64_t>(value);
    return bytes ? human_bytes(whole) : human_count(whole);
  };
  const double share =
      total_ == 0 ? 0 : std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  std::string title = title_;
  int bar = mode_ == ProgressMode::Tty && total_ != 0 ? 24 : 0;
  std::string count = amount(static_cast<double>(done_));
  std::string of = total_ != 0 ? " of " + amount(static_cast<double>(total_)) : "";
  std::string unit = bytes ? "" : " " + unit_;
  // What takes longer than a second each is counted by the minute.
  const bool slow = !bytes && rate > 0 && rate < 1;
  std::string speed =
      fmt::format(", {}{}/{}", amount(slow ? 60 * rate : rate), unit, slow ? "min" : "s");
  std::string time = last       ? ", " + human_seconds(elapsed)
                     : left > 0 ? ", " + human_seconds(left) + " left"
                                : "";
  std::vector<std::string> facts;
  for (size_t begin = 0; begin < note.size();) {
    const size_t end = std::min(note.find(", ", begin), note.size());
    facts.emplace_back(note.substr(begin, end - begin));
    begin = end + 2;
  }
  const auto text = [&] {
    std::string out = title + " ";
    if (bar > 0) {
      const bool blocks = console::decorated();
      const int filled = static_cast<int>(share * bar);
      if (!blocks) out += '[';
      for (int i = 0; i < bar; ++i) out += i < filled ? blocks ? "█" : "#" : blocks ? "░" : "-";
      out += blocks ? " " : "] ";
    }
    if (total_ != 0) out += fmt::format("{:3.0f} %  ", 100 * share);
    out += count + of + unit + speed + time;
    for (const std::string& fact : facts) out += ", " + fact;
    return out;
  };
  const auto fits = [&] { return console::width(text()) <= columns; };
  while (!fits() && facts.size() > 1) facts.pop_back();
  if (!fits()) bar = std::min(bar, 12);
  if (!fits()) speed.clear();
  if (!fits()) bar = 0;
  if (!fits()) unit.clear();
  if (!fits()) facts.clear();
  if (!fits()) count.clear(), of.clear(), time = time.empty() ? time : time.substr(2);
  if (!fits()) time.clear();
  while (!fits() && !title.empty()) {
    do title.pop_back();
    while (!title.empty() && !utf8::is_valid(title));
  }
  return text();
}

void Progress::print(bool last, std::string_view note) {
  if (mode_ == ProgressMode::Json) {
    const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
    const double rate = elapsed > 0 ? static_cast<double>(done_ - already_) / elapsed : 0;
    const double left = rate > 0 && total_ > done_ ? static_cast<double>(total_ - done_) / rate : 0;
    nlohmann::ordered_json line = {{"progress", title_}, {"done", done_},        {"total", total_},
                                   {"unit", unit_},      {"elapsed_s", elapsed}, {"left_s", left},
                                   {"finished", last}};
    if (!note.empty()) line["note"] = note;
    fmt::print(stderr, "{}\n", dump(line));
    return;
  }
  if (mode_ != ProgressMode::Tty) {
    fmt::print(stderr, "{}\n", line(last, note, std::numeric_limits<int>::max()));
    std::fflush(stderr);
    return;
  }
  clear();
  // The last column stays free: a terminal waits there with its cursor, or has wrapped already.
  const std::string text = line(last, note, console::columns(STDERR_FILENO) - 1);
  fmt::print(stderr, "{}{}", text, last ? "\n" : "");
  std::fflush(stderr);
  drawn_ = last ? 0 : console::width(text);
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
