#include "cli/terminal/line_editor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "core/utf8.h"

namespace quern::cli {
namespace {

constexpr size_t kMaxHistory = 1000;

// An entry of several lines takes one in the history's file.
std::string escaped(const std::string& entry) {
  std::string out;
  for (const char c : entry) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
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

bool is_character(int key) { return key >= 0x20 && key < kUp && key != 0x7F; }

void insert_character(EditBuffer& buffer, int key) {
  std::string character;
  utf8::append(character, static_cast<char32_t>(key));
  buffer.insert(character);
}

// A key inside a paste: text and nothing else, whatever it would do when typed.
void paste(EditBuffer& buffer, int key, int previous) {
  if (key == '\r' || (key == '\n' && previous != '\r')) {
    buffer.insert("\n");
  } else if (key == '\t') {
    buffer.insert("  ");
  } else if (is_character(key)) {
    insert_character(buffer, key);
  }
}

}  // namespace

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
  if (!at_terminal()) return read_plain();
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

void LineEditor::show(size_t place, EditBuffer& buffer, Recall& recall) {
  if (recall.place == history_.size()) recall.draft = buffer.text();
  recall.place = place;
  buffer.set(place == history_.size() ? recall.draft : history_[place]);
}

// Applies a key that neither ends the entry nor belongs to a paste.
void LineEditor::handle(int key, EditBuffer& buffer, Recall& recall) {
  switch (key) {
    case kLeft:
    case control('b'):
      return buffer.left();
    case kRight:
    case control('f'):
      return buffer.right();
    case kHome:
    case control('a'):
      return buffer.home();
    case kEnd:
    case control('e'):
      return buffer.end();
    case kWordLeft:
      return buffer.word_left();
    case kWordRight:
      return buffer.word_right();
    case 0x7F:
    case control('h'):
      return buffer.erase_left();
    case kDelete:
    case control('d'):
      return buffer.erase_right();
    case kDeleteWordLeft:
    case control('w'):
      return buffer.erase_word_left();
    case kDeleteWordRight:
      return buffer.erase_word_right();
    case control('k'):
      return buffer.erase_to_end();
    case control('u'):
      return buffer.erase_to_start();
    case control('y'):
      return buffer.yank();
    case kNewLine:
      return buffer.insert("\n");
    case '\t':
      return buffer.insert("  ");
    case kUp:
    case control('p'):
      if (!buffer.up() && recall.place > 0) show(recall.place - 1, buffer, recall);
      return;
    case kDown:
    case control('n'):
      if (!buffer.down() && recall.place < history_.size()) show(recall.place + 1, buffer, recall);
      return;
    default:
      if (is_character(key)) insert_character(buffer, key);
  }
}

// Ctrl-R: shows the latest entry that holds what is typed. Returns the key that ended it, which is
// then handled as usual; Ctrl-G and Ctrl-C bring back what was there before.
int LineEditor::search(EditBuffer& buffer, int& row) {
  const std::string before = buffer.text();
  std::string query;
  size_t from = history_.size();  // entries before this one are looked at
  const auto look = [&] {
    for (size_t i = from; i-- > 0;) {
      if (history_[i].find(query) == std::string::npos) continue;
      from = i;
      buffer.set(history_[i]);
      return;
    }
  };
  while (true) {
    row = draw(fmt::format("search '{}': ", query), buffer, row);
    const int key = keys_.next();
    if (key == control('r')) {
      if (!query.empty()) look();
    } else if (key == 0x7F || key == control('h')) {
      EditBuffer shorter;
      shorter.set(query);
      shorter.erase_left();
      query = shorter.text();
      from = history_.size();
      look();
    } else if (key == control('g') || key == control('c')) {
      buffer.set(before);
      return kNoKey;
    } else if (is_character(key)) {
      utf8::append(query, static_cast<char32_t>(key));
      // The entry on show stays if it holds the longer word, too.
      from = std::min(from + 1, history_.size());
      look();
    } else {
      return key;
    }
  }
}

std::optional<std::string> LineEditor::edit(const std::string& prompt) {
  const RawMode raw(RawMode::CtrlC::Key);
  EditBuffer buffer;
  Recall recall{.place = history_.size(), .draft = {}};
  bool pasting = false;
  int previous = kNoKey;
  int row = draw(prompt, buffer, 0);
  while (true) {
    int key = keys_.next();
    if (key == control('r') && !pasting) key = search(buffer, row);
    if (key == kEndOfInput || (key == control('d') && !pasting && buffer.text().empty())) {
      put("\r\n");
      return std::nullopt;
    }
    if (key == kPasteBegin || key == kPasteEnd) {
      pasting = key == kPasteBegin;
    } else if (pasting) {
      paste(buffer, key, previous);
    } else if (key == '\r' || key == '\n') {
      if (!buffer.text().ends_with('\\') || buffer.cursor() != buffer.text().size()) break;
      buffer.erase_left();
      buffer.insert("\n");
    } else if (key == control('c')) {
      buffer.set(buffer.text());
      draw(prompt, buffer, row);
      put("^C\r\n");
      buffer.set("");
      recall.place = history_.size();
      row = 0;
    } else if (key == control('l')) {
      put("\x1b[2J\x1b[H");
      row = 0;
    } else {
      handle(key, buffer, recall);
    }
    previous = key;
    // A long paste is drawn once it is in, not key by key.
    if (!pasting || !keys_.waiting()) row = draw(prompt, buffer, row);
  }
  buffer.set(buffer.text());  // the answer begins below the whole entry
  draw(prompt, buffer, row);
  put("\r\n");
  return buffer.text();
}

}  // namespace quern::cli
