#include "cli/terminal/word_wrap.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/terminal/edit_buffer.h"
#include "core/console.h"
#include "core/utf8.h"

namespace quern::cli {

WordWrap::WordWrap()
    : columns_(console::is_terminal(STDOUT_FILENO) ? console::columns(STDOUT_FILENO) : 0) {}

std::string WordWrap::put(std::string_view piece) {
  if (columns_ <= 0) return std::string(piece);
  std::string out;
  while (!piece.empty()) {
    const std::string_view character = piece.substr(0, utf8::decode(piece).length);
    piece.remove_prefix(character.size());
    const int width = character == "\t" ? 8 - column_ % 8 : display_width(character);
    if (character == "\n") {
      column_ = 0;
      word_.clear();
      out += character;
      continue;
    }
    const bool space = character == " " || character == "\t";
    if (column_ + width > columns_) {
      const int back = display_width(word_);
      if (space) {  // it ends the line unseen
        out += '\n';
        column_ = 0;
        word_.clear();
        continue;
      }
      if (width == 1 && back > 0 && back < column_) {
        out += fmt::format("\x1b[{}D\x1b[K\n{}", back, word_);
        column_ = back;
      } else {
        out += '\n';
        column_ = 0;
        word_.clear();
      }
    }
    out += character;
    column_ += width;
    // Wide characters may be parted anywhere.
    if (space || width == 2) {
      word_.clear();
    } else {
      word_ += character;
    }
  }
  return out;
}

}  // namespace quern::cli
