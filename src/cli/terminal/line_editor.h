// Editing an entry at a terminal: one line or several, UTF-8 with wide characters, history with
// search, bracketed paste, the keys of Emacs and of arrows. Without a terminal it reads plain
// lines.
//
// (libedit, the usual library, knows neither bracketed paste nor entries of several lines.)
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/terminal/terminal.h"
#include "core/file.h"

namespace quern::cli {

class LineEditor {
 public:
  // History is read from and added to `history`; empty: it is not kept.
  explicit LineEditor(fs::path history = {});

  // One entry without its final newline; nothing at the end of input (Ctrl-D on an empty line).
  // Alt-Enter, or a backslash before Enter, begins a new line; a paste keeps its line breaks.
  // Ctrl-C clears what is being edited, Ctrl-R searches the history.
  std::optional<std::string> read(const std::string& prompt);

 private:
  // Where in the history the entry being edited comes from.
  struct Recall {
    size_t place = 0;   // history_.size() for a new entry
    std::string draft;  // the new entry, while an old one is shown
  };

  std::optional<std::string> read_plain();
  std::optional<std::string> edit(const std::string& prompt);
  void handle(int key, EditBuffer& buffer, Recall& recall);
  void show(size_t place, EditBuffer& buffer, Recall& recall);
  int search(EditBuffer& buffer, int& row);
  void remember(const std::string& entry);

  fs::path history_file_;
  std::vector<std::string> history_;
  KeyReader keys_;
};

}  // namespace quern::cli
