// What standard output and standard error are written to, as far as it shapes what is written.
#pragma once

#include <string_view>

namespace quern::console {

// A terminal whose cursor can be moved: one named "dumb" is none.
bool is_terminal(int descriptor);

// Columns of the terminal behind `descriptor`: what it says itself, else $COLUMNS, else `fallback`.
int columns(int descriptor, int fallback = 80);

// Whether characters beyond ASCII may be drawn: the locale's character set is UTF-8.
bool utf8();

// Whether block characters and colours are wanted: UTF-8, and no NO_COLOR (no-color.org).
bool decorated();

// Columns that text takes, by ranges of code points: two for East Asian wide ones and pictographs,
// none for combining marks.
int width(std::string_view text);

}  // namespace quern::console
