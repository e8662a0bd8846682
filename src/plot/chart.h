// Line charts as SVG: panels in a grid, each with axes, a legend and its series.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern {

struct Series {
  std::string name;  // empty: not in the legend
  std::vector<double> x, y;
  int color = 0;         // of the palette, from 0; it repeats after eight
  bool faint = false;    // what a smoothed series stands for, drawn thin behind it
  bool markers = false;  // a dot at each point, for series of few
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool log_y = false;  // values that are not positive are left out
};

// The charts in rows of `columns`. Points that are not finite break their line.
std::string draw_svg(std::span<const Chart> charts, int columns);

// A value as axes show it: 1.5 M, 0.02, 3e-05.
std::string tick_label(double value);

// Values at which to put ticks, about `count` of them, in [low, high]: 1, 2 or 5 times a power of
// ten apart.
std::vector<double> ticks(double low, double high, int count);

// Writes a picture under the name it should have: .svg as it is, .png by rsvg-convert (Debian's
// librsvg2-bin). Throws Misused for another ending, Unsupported where that program is missing.
void write_picture(const fs::path& path, const std::string& svg);

}  // namespace quern
