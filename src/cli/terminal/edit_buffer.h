// The text being edited and its cursor, apart from any terminal.
#pragma once

#include <string>
#include <string_view>

namespace quern::cli {

// Columns that text takes on a terminal: two for wide (CJK) characters, none for combining marks.
int display_width(std::string_view text) noexcept;

// Text is UTF-8; the cursor stands between characters. Lines end with "\n".
class EditBuffer {
 public:
  const std::string& text() const noexcept { return text_; }
  size_t cursor() const noexcept { return cursor_; }

  void set(std::string text);  // with the cursor at its end
  void insert(std::string_view text);

  void left();
  void right();
  void home();  // of the line the cursor is in
  void end();
  void word_left();
  void word_right();
  bool up();  // to the same column a line higher; false in the first line
  bool down();

  void erase_left();
  void erase_right();
  // What these take away, yank() puts back.
  void erase_word_left();
  void erase_word_right();
  void erase_to_end();  // of the line
  void erase_to_start();
  void yank();

 private:
  size_t previous(size_t at) const noexcept;  // offset of the character before
  size_t next(size_t at) const noexcept;
  void kill(size_t from, size_t to);
  void move_to_column(int column);  // of the line the cursor is in

  std::string text_;
  std::string killed_;
  size_t cursor_ = 0;
};

}  // namespace quern::cli
