// A terminal as a line editor needs it: raw mode, keys, drawing.
#pragma once

#include <termios.h>

#include <string>
#include <string_view>

#include "cli/terminal/edit_buffer.h"

namespace quern::cli {

// Keys beyond characters. Characters, and control keys such as control('a'), are their code points.
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
  kDeleteWordLeft,
  kDeleteWordRight,
  kNewLine,
  kPasteBegin,
  kPasteEnd,
};

constexpr int control(char letter) { return letter & 0x1F; }

void put(std::string_view text);  // to standard output, at once

bool at_terminal();  // both standard input and output are one

// While it lives the terminal passes every key on at once, shows none itself, and marks pastes
// (mode 2004). Without a terminal it does nothing.
class RawMode {
 public:
  enum class CtrlC { Key, Signal };
  explicit RawMode(CtrlC ctrl_c);
  ~RawMode();
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

 private:
  bool active_;
  termios saved_{};
};

// Standard input, key by key. What was typed ahead stays for the next line.
class KeyReader {
 public:
  int next();  // waits for a key; kNoKey for one without a meaning here
  bool waiting();

 private:
  int read_byte();
  int read_escape();

  std::string bytes_;
  size_t used_ = 0;
};

// Draws prompt and text anew, the cursor being in row `cursor_row` below the prompt's first;
// returns the row where it is now.
int draw(std::string_view prompt, const EditBuffer& buffer, int cursor_row);

}  // namespace quern::cli
