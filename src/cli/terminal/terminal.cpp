#include "cli/terminal/terminal.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>

#include "core/console.h"
#include "core/utf8.h"

namespace quern::cli {
namespace {

// Before each line after the first.
std::string_view continuation() { return console::utf8() ? "… " : ". "; }

// Where the terminal's cursor is, relative to the prompt's first row.
struct Place {
  int row = 0, column = 0;
};

// The place after drawing `text`, as terminals wrap it: a wide character that does not fit in the
// last column goes to the next row whole.
Place advance(Place at, std::string_view text, int columns) {
  const int indent = display_width(continuation());
  while (!text.empty()) {
    const size_t length = utf8::decode(text).length;
    if (text[0] == '\n') {
      at = {at.row + 1, indent};
    } else {
      const int width = display_width(text.substr(0, length));
      if (at.column + width > columns) at = {at.row + 1, 0};
      at.column += width;
    }
    text.remove_prefix(length);
  }
  if (at.column == columns) at = {at.row + 1, 0};
  return at;
}

int csi_key(const std::string& parameters, int last) {
  const bool with_modifier = parameters.find(';') != parameters.npos;
  switch (last) {
    case 'A':
      return kUp;
    case 'B':
      return kDown;
    case 'C':
      return with_modifier ? kWordRight : kRight;
    case 'D':
      return with_modifier ? kWordLeft : kLeft;
    case 'H':
      return kHome;
    case 'F':
      return kEnd;
    case '~':
      break;
    default:
      return kNoKey;
  }
  if (parameters == "1" || parameters == "7") return kHome;
  if (parameters == "4" || parameters == "8") return kEnd;
  if (parameters == "3") return kDelete;
  if (parameters == "200") return kPasteBegin;
  if (parameters == "201") return kPasteEnd;
  return kNoKey;
}

}  // namespace

void put(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

bool at_terminal() {
  return console::is_terminal(STDIN_FILENO) && console::is_terminal(STDOUT_FILENO);
}

RawMode::RawMode(CtrlC ctrl_c) : active_(at_terminal()) {
  if (!active_) return;
  ::tcgetattr(STDIN_FILENO, &saved_);
  termios raw = saved_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
  if (ctrl_c == CtrlC::Key) raw.c_lflag &= ~static_cast<tcflag_t>(ISIG);
  raw.c_iflag &= ~static_cast<tcflag_t>(IXON | ICRNL | INLCR);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  put("\x1b[?2004h");
}

RawMode::~RawMode() {
  if (!active_) return;
  put("\x1b[?2004l");
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
}

int KeyReader::read_byte() {
  if (used_ == bytes_.size()) {
    char block[4096];
    const ssize_t got = ::read(STDIN_FILENO, block, sizeof block);
    if (got <= 0) return -1;
    bytes_.assign(block, static_cast<size_t>(got));
    used_ = 0;
  }
  return static_cast<unsigned char>(bytes_[used_++]);
}

bool KeyReader::waiting() {
  if (used_ < bytes_.size()) return true;
  pollfd descriptor = {STDIN_FILENO, POLLIN, 0};
  constexpr int kMilliseconds = 30;  // a sequence's bytes come together; a person is slower
  return ::poll(&descriptor, 1, kMilliseconds) > 0;
}

// What follows ESC: Alt with a key, or a CSI or SS3 sequence of the common terminals.
int KeyReader::read_escape() {
  if (!waiting()) return kNoKey;
  const int kind = read_byte();
  switch (kind) {
    case '\r':
    case '\n':
      return kNewLine;
    case 'b':
      return kWordLeft;
    case 'f':
      return kWordRight;
    case 'd':
      return kDeleteWordRight;
    case 0x7F:
      return kDeleteWordLeft;
    case '[':
    case 'O':
      break;
    default:
      return kNoKey;
  }
  std::string parameters;
  int last = read_byte();
  while (last >= 0x20 && last < 0x40) {
    parameters += static_cast<char>(last);
    last = read_byte();
  }
  return csi_key(parameters, last);
}

int KeyReader::next() {
  const int first = read_byte();
  if (first < 0) return kEndOfInput;
  if (first == 0x1b) return read_escape();
  if (first < 0x80) return first;
  std::string bytes(1, static_cast<char>(first));
  const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  for (int i = 0; i < more; ++i) bytes += static_cast<char>(read_byte());
  const utf8::Point point = utf8::decode(bytes);
  // U+0080 to U+009F control some terminals: they must not come back as output.
  return point.valid && point.value >= 0xA0 ? static_cast<int>(point.value) : kNoKey;
}

int draw(std::string_view prompt, const EditBuffer& buffer, int cursor_row) {
  const int columns = console::columns(STDOUT_FILENO);
  const std::string_view text = buffer.text();
  std::string out = cursor_row > 0 ? fmt::format("\x1b[{}A", cursor_row) : "";
  out += "\r\x1b[J";
  out += prompt;
  for (const char c : text) {
    if (c == '\n') {
      out += "\r\n";
      out += continuation();
    } else {
      out += c;
    }
  }
  const Place start = advance({}, prompt, columns);
  const Place end = advance(start, text, columns);
  const Place cursor = advance(start, text.substr(0, buffer.cursor()), columns);
  // After a full row terminals keep the cursor in the last column until more comes.
  if (end.column == 0 && end.row > 0) out += "\r\n";
  if (end.row > cursor.row) out += fmt::format("\x1b[{}A", end.row - cursor.row);
  out += cursor.column > 0 ? fmt::format("\r\x1b[{}C", cursor.column) : "\r";
  put(out);
  return cursor.row;
}

}  // namespace quern::cli
