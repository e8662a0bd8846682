#include "core/console.h"

#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string>

#include "core/utf8.h"

namespace quern::console {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

bool is_terminal(int descriptor) { return ::isatty(descriptor) != 0 && variable("TERM") != "dumb"; }

int columns(int descriptor, int fallback) {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const std::string_view text = variable("COLUMNS");
  int value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc{} && end == text.data() + text.size() && value > 0 ? value : fallback;
}

bool utf8() {
  // The first that is set counts, as setlocale(3) has it.
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value(variable(name));
    if (value.empty()) continue;
    const size_t dot = value.find('.');
    if (dot == std::string::npos) return false;
    const std::string set = value.substr(dot + 1, value.find('@', dot) - dot - 1);
    return ::strcasecmp(set.c_str(), "UTF-8") == 0 || ::strcasecmp(set.c_str(), "UTF8") == 0;
  }
  return false;
}

bool decorated() { return utf8() && variable("NO_COLOR").empty(); }

int width(std::string_view text) {
  struct Range {
    char32_t first, last;
  };
  constexpr Range kNone[] = {{0x0, 0x1F}, {0x7F, 0x9F}, {0x300, 0x36F}, {0x200B, 0x200F}};
  constexpr Range kWide[] = {{0x1100, 0x115F}, {0x2E80, 0xA4CF},   {0xAC00, 0xD7A3},
                             {0xF900, 0xFAFF}, {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},
                             {0xFFE0, 0xFFE6}, {0x1F300, 0x1FAFF}, {0x20000, 0x3FFFD}};
  const auto in = [](char32_t point, const auto& ranges) {
    for (const Range& range : ranges) {
      if (point >= range.first && point <= range.last) return true;
    }
    return false;
  };
  int columns = 0;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    columns += in(point.value, kNone) ? 0 : in(point.value, kWide) ? 2 : 1;
    text.remove_prefix(point.length);
  }
  return columns;
}

}  // namespace quern::console
