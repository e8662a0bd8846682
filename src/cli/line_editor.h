// Editing a line, or several, at a terminal: UTF-8 with wide characters, history, bracketed paste.
// (libedit does neither bracketed paste nor several lines.) Without a terminal it reads plain
// lines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern::cli {

// The text being edited and its cursor, apart from any terminal.
class EditBuffer {
 public:
  const std::string& text() const noexcept { return text_; }
  size_t cursor() const noexcept { return cursor_; }
  void set(std::string text);
  void insert(std::string_view text);
  void left();
  void right();
  void home();  // of the line the cursor is in
  void end();
  void word_left();
  void word_right();
  void erase_left();
  void erase_right();
  void erase_word_left();
  void erase_to_end();  // of the line
  void erase_to_start();

 private:
  size_t previous(size_t at) const noexcept;  // offset of the character before
  size_t next(size_t at) const noexcept;
  std::string text_;
  size_t cursor_ = 0;
};

// Columns that text takes on a terminal.
int display_width(std::string_view text) noexcept;

class LineEditor {
 public:
  // History is read from and added to `history`; empty: it is not kept.
  explicit LineEditor(fs::path history = {});

  // One entry without its final newline; nothing at the end of input (Ctrl-D on an empty line).
  // Alt-Enter, or a backslash before Enter, begins a new line; a paste keeps its line breaks.
  // Ctrl-C clears what is being edited.
  std::optional<std::string> read(const std::string& prompt);

 private:
  std::optional<std::string> read_plain();
  std::optional<std::string> edit(const std::string& prompt);
  bool handle(int key, EditBuffer& buffer, size_t& place, std::string& draft);
  void remember(const std::string& entry);

  fs::path history_file_;
  std::vector<std::string> history_;
};

}  // namespace quern::cli
