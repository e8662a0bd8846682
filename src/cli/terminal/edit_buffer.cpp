#include "cli/terminal/edit_buffer.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/utf8.h"

namespace quern::cli {

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
  while (cursor_ > 0 && (text_[cursor_ - 1] == ' ' || text_[cursor_ - 1] == '\n')) left();
  while (cursor_ > 0 && text_[cursor_ - 1] != ' ' && text_[cursor_ - 1] != '\n') left();
}

void EditBuffer::word_right() {
  const size_t size = text_.size();
  while (cursor_ < size && (text_[cursor_] == ' ' || text_[cursor_] == '\n')) right();
  while (cursor_ < size && text_[cursor_] != ' ' && text_[cursor_] != '\n') right();
}

void EditBuffer::move_to_column(int column) {
  while (cursor_ < text_.size() && text_[cursor_] != '\n') {
    const size_t after = next(cursor_);
    column -= display_width(std::string_view(text_).substr(cursor_, after - cursor_));
    if (column < 0) return;
    cursor_ = after;
  }
}

bool EditBuffer::up() {
  const size_t was = cursor_;
  home();
  const size_t start = cursor_;
  cursor_ = was;
  if (start == 0) return false;
  const int column = display_width(std::string_view(text_).substr(start, was - start));
  cursor_ = start - 1;
  home();
  move_to_column(column);
  return true;
}

bool EditBuffer::down() {
  const size_t newline = text_.find('\n', cursor_);
  if (newline == text_.npos) return false;
  const size_t was = cursor_;
  home();
  const int column = display_width(std::string_view(text_).substr(cursor_, was - cursor_));
  cursor_ = newline + 1;
  move_to_column(column);
  return true;
}

void EditBuffer::erase_left() {
  const size_t from = previous(cursor_);
  text_.erase(from, cursor_ - from);
  cursor_ = from;
}

void EditBuffer::erase_right() { text_.erase(cursor_, next(cursor_) - cursor_); }

void EditBuffer::kill(size_t from, size_t to) {
  if (from == to) return;
  killed_ = text_.substr(from, to - from);
  text_.erase(from, to - from);
  cursor_ = from;
}

void EditBuffer::erase_word_left() {
  const size_t to = cursor_;
  word_left();
  kill(cursor_, to);
}

void EditBuffer::erase_word_right() {
  const size_t from = cursor_;
  word_right();
  kill(from, cursor_);
}

void EditBuffer::erase_to_end() {
  const size_t from = cursor_;
  end();
  // At a line's end the line break itself goes, so that the key joins lines.
  if (cursor_ == from) right();
  kill(from, cursor_);
}

void EditBuffer::erase_to_start() {
  const size_t to = cursor_;
  home();
  kill(cursor_, to);
}

void EditBuffer::yank() { insert(killed_); }

}  // namespace quern::cli
