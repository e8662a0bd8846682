#include "cli/line_editor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "core/utf8.h"

namespace quern::cli {
namespace {

constexpr size_t kMaxHistory = 1000;

// Keys beyond characters. Characters are their code points.
enum Key : int {
  kNoKey = -1,
  kEndOfInput = -2,
  kUp = 0x110000,
  kDown,
  kLeft,
  kRight,
  kHome,
  kEnd,
  kDelete,
  kWordLeft,
  kWordRight,
  kNewLine,
  kPasteBegin,
  kPasteEnd,
};

constexpr int control(char letter) { return letter & 0x1F; }

// Raw mode while it lives, with bracketed paste.
class RawTerminal {
 public:
  RawTerminal() {
    ::tcgetattr(STDIN_FILENO, &saved_);
    termios raw = saved_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON | ICRNL | INLCR);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    put("\x1b[?2004h");
  }
  ~RawTerminal() {
    put("\x1b[?2004l");
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  static void put(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

 private:
  termios saved_{};
};

int read_byte() {
  unsigned char byte = 0;
  const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
  return got == 1 ? byte : -1;
}

bool byte_waiting() {
  pollfd descriptor = {STDIN_FILENO, POLLIN, 0};
  return ::poll(&descriptor, 1, 30) > 0;
}

// What follows ESC: CSI and SS3 sequences of the common terminals.
int read_escape() {
  if (!byte_waiting()) return kNoKey;
  const int kind = read_byte();
  if (kind == '\r' || kind == '\n') return kNewLine;
  if (kind == 'b') return kWordLeft;
  if (kind == 'f') return kWordRight;
  if (kind != '[' && kind != 'O') return kNoKey;
  std::string parameters;
  int last = read_byte();
  while (last >= 0x20 && last < 0x40) {
    parameters += static_cast<char>(last);
    last = read_byte();
  }
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
      if (parameters == "1" || parameters == "7") return kHome;
      if (parameters == "4" || parameters == "8") return kEnd;
      if (parameters == "3") return kDelete;
      if (parameters == "200") return kPasteBegin;
      if (parameters == "201") return kPasteEnd;
      return kNoKey;
    default:
      return kNoKey;
  }
}

int read_key() {
  const int first = read_byte();
  if (first < 0) return kEndOfInput;
  if (first == 0x1b) return read_escape();
  if (first < 0x80) return first;
  std::string bytes(1, static_cast<char>(first));
  const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  for (int i = 0; i < more; ++i) bytes += static_cast<char>(read_byte());
  const utf8::Point point = utf8::decode(bytes);
  return point.valid ? static_cast<int>(point.value) : kNoKey;
}

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Where the terminal's cursor is, relative to the prompt's first row, after drawing `text`.
struct Place {
  int row = 0, column = 0;
};

Place advance(Place at, std::string_view text, int columns, int indent) {
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    if (point.value == '\n') {
      at = {at.row + 1, indent};
    } else {
      const int width = std::max(0, utf8proc_charwidth(static_cast<utf8proc_int32_t>(point.value)));
      if (at.column + width > columns) at = {at.row + 1, 0};
      at.column += width;
    }
    text.remove_prefix(point.length);
  }
  if (at.column == columns) at = {at.row + 1, 0};
  return at;
}

constexpr std::string_view kContinuation = "… ";

// Draws prompt and text anew from the prompt's first row; returns the row of the cursor.
int draw(const std::string& prompt, const EditBuffer& buffer, int cursor_row) {
  const int columns = terminal_columns();
  const int indent = display_width(kContinuation);
  std::string out = cursor_row > 0 ? fmt::format("\x1b[{}A", cursor_row) : "";
  out += "\r\x1b[J" + prompt;
  for (const char c : buffer.text()) {
    if (c == '\n') {
      out += "\r\n";
      out += kContinuation;
    } else {
      out += c;
    }
  }
  const Place start = advance({}, prompt, columns, 0);
  const Place end = advance(start, buffer.text(), columns, indent);
  const Place cursor =
      advance(start, std::string_view(buffer.text()).substr(0, buffer.cursor()), columns, indent);
  if (end.column == 0 && end.row > 0 && !buffer.text().ends_with('\n')) out += "\r\n";
  if (end.row > cursor.row) out += fmt::format("\x1b[{}A", end.row - cursor.row);
  out += cursor.column > 0 ? fmt::format("\r\x1b[{}C", cursor.column) : "\r";
  RawTerminal::put(out);
  return cursor.row;
}

// History entries of several lines are kept in one, with escapes.
std::string escaped(const std::string& entry) {
  std::string out;
  for (const char c : entry) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string unescaped(const std::string& line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) {
      out += line[++i] == 'n' ? '\n' : line[i];
    } else {
      out += line[i];
    }
  }
  return out;
}

}  // namespace

int display_width(std::string_view text) noexcept {
  int width = 0;
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    width += std::max(0, utf8proc_charwidth(static_cast<utf8proc_int32_t>(point.value)));
    text.remove_prefix(point.length);
  }
  return width;
}

void EditBuffer::set(std::string text) {
  text_ = std::move(text);
  cursor_ = text_.size();
}

void EditBuffer::insert(std::string_view text) {
  text_.insert(cursor_, text);
  cursor_ += text.size();
}

size_t EditBuffer::previous(size_t at) const noexcept {
  if (at == 0) return 0;
  do {
    --at;
  } while (at > 0 && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80);
  return at;
}

size_t EditBuffer::next(size_t at) const noexcept {
  return at >= text_.size() ? at : at + utf8::decode(std::string_view(text_).substr(at)).length;
}

void EditBuffer::left() { cursor_ = previous(cursor_); }
void EditBuffer::right() { cursor_ = next(cursor_); }

void EditBuffer::home() {
  const size_t newline = cursor_ == 0 ? text_.npos : text_.rfind('\n', cursor_ - 1);
  cursor_ = newline == text_.npos ? 0 : newline + 1;
}

void EditBuffer::end() { cursor_ = std::min(text_.find('\n', cursor_), text_.size()); }

void EditBuffer::word_left() {
  while (cursor_ > 0 && text_[previous(cursor_)] == ' ') left();
  while (cursor_ > 0 && text_[previous(cursor_)] != ' ' && text_[previous(cursor_)] != '\n') left();
}

void EditBuffer::word_right() {
  while (cursor_ < text_.size() && text_[cursor_] == ' ') right();
  while (cursor_ < text_.size() && text_[cursor_] != ' ' && text_[cursor_] != '\n') right();
}

void EditBuffer::erase_left() {
  const size_t from = previous(cursor_);
  text_.erase(from, cursor_ - from);
  cursor_ = from;
}

void EditBuffer::erase_right() { text_.erase(cursor_, next(cursor_) - cursor_); }

void EditBuffer::erase_word_left() {
  const size_t end = cursor_;
  word_left();
  text_.erase(cursor_, end - cursor_);
}

void EditBuffer::erase_to_end() {
  const size_t from = cursor_;
  end();
  text_.erase(from, cursor_ - from);
  cursor_ = from;
}

void EditBuffer::erase_to_start() {
  const size_t to = cursor_;
  home();
  text_.erase(cursor_, to - cursor_);
}

LineEditor::LineEditor(fs::path history) : history_file_(std::move(history)) {
  std::ifstream file(history_file_);
  for (std::string line; std::getline(file, line);) {
    if (utf8::is_valid(line)) history_.push_back(unescaped(line));
  }
  if (history_.size() > kMaxHistory) {
    history_.erase(history_.begin(), history_.end() - static_cast<int64_t>(kMaxHistory));
  }
}

void LineEditor::remember(const std::string& entry) {
  if (entry.empty() || (!history_.empty() && history_.back() == entry)) return;
  history_.push_back(entry);
  if (history_file_.empty()) return;
  std::error_code ignored;
  fs::create_directories(history_file_.parent_path(), ignored);
  // What was typed is for its user's eyes alone. A history that cannot be written is no reason to
  // stop.
  const int file = ::open(history_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  const std::string line = escaped(entry) + "\n";
  [[maybe_unused]] const ssize_t written = ::write(file, line.data(), line.size());
  ::close(file);
}

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) return read_plain();
  auto entry = edit(prompt);
  if (entry) remember(*entry);
  return entry;
}

std::optional<std::string> LineEditor::read_plain() {
  std::string entry;
  for (std::string line; std::getline(std::cin, line);) {
    if (line.ends_with('\r')) line.pop_back();
    const bool more = line.ends_with('\\');
    if (more) line.pop_back();
    entry += line;
    if (!more) return entry;
    entry += '\n';
  }
  if (entry.empty()) return std::nullopt;
  return entry;
}

// Applies a key other than those that end the entry.
bool LineEditor::handle(int key, EditBuffer& buffer, size_t& place, std::string& draft) {
  const auto recall = [&](size_t to) {
    if (place == history_.size()) draft = buffer.text();
    place = to;
    buffer.set(place == history_.size() ? draft : history_[place]);
  };
  switch (key) {
    case kLeft:
    case control('b'):
      buffer.left();
      return true;
    case kRight:
    case control('f'):
      buffer.right();
      return true;
    case kHome:
    case control('a'):
      buffer.home();
      return true;
    case kEnd:
    case control('e'):
      buffer.end();
      return true;
    case kWordLeft:
      buffer.word_left();
      return true;
    case kWordRight:
      buffer.word_right();
      return true;
    case 0x7F:
    case control('h'):
      buffer.erase_left();
      return true;
    case kDelete:
    case control('d'):
      buffer.erase_right();
      return true;
    case control('w'):
      buffer.erase_word_left();
      return true;
    case control('k'):
      buffer.erase_to_end();
      return true;
    case control('u'):
      buffer.erase_to_start();
      return true;
    case control('l'):
      RawTerminal::put("\x1b[2J\x1b[H");
      return true;
    case kNewLine:
      buffer.insert("\n");
      return true;
    case '\t':
      buffer.insert("  ");
      return true;
    case kUp:
    case control('p'):
      if (place > 0) recall(place - 1);
      return true;
    case kDown:
    case control('n'):
      if (place < history_.size()) recall(place + 1);
      return true;
    default:
      break;
  }
  if (key < 0x20 || key >= kUp) return false;
  std::string character;
  utf8::append(character, static_cast<char32_t>(key));
  buffer.insert(character);
  return true;
}

std::optional<std::string> LineEditor::edit(const std::string& prompt) {
  const RawTerminal terminal;
  EditBuffer buffer;
  size_t place = history_.size();
  std::string draft;
  bool pasting = false;
  int row = draw(prompt, buffer, 0);
  while (true) {
    const int key = read_key();
    if (key == kEndOfInput || (key == control('d') && buffer.text().empty())) {
      RawTerminal::put("\r\n");
      return std::nullopt;
    }
    if (key == kPasteBegin || key == kPasteEnd) {
      pasting = key == kPasteBegin;
    } else if (key == '\r' || key == '\n') {
      if (pasting) {
        buffer.insert("\n");
      } else if (buffer.text().ends_with('\\') && buffer.cursor() == buffer.text().size()) {
        buffer.erase_left();
        buffer.insert("\n");
      } else {
        break;
      }
    } else if (key == control('c')) {
      buffer.end();
      draw(prompt, buffer, row);
      RawTerminal::put("^C\r\n");
      buffer.set("");
      place = history_.size();
      row = 0;
    } else if (!handle(key, buffer, place, draft)) {
      continue;
    } else if (key == control('l')) {
      row = 0;
    }
    // A long paste is drawn once it is in, not key by key.
    if (!pasting || !byte_waiting()) row = draw(prompt, buffer, row);
  }
  const std::string text = buffer.text();
  buffer.set(text);
  draw(prompt, buffer, row);
  RawTerminal::put("\r\n");
  return text;
}

}  // namespace quern::cli
