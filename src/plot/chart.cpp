#include "plot/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/markup.h"

namespace quern {
namespace {

constexpr double kWidth = 520, kHeight = 320;  // of a panel, in pixels
constexpr double kLeft = 66, kRight = 16, kTop = 36, kBottom = 48;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

// Okabe and Ito's colours, which colour-blind readers tell apart; black and yellow last.
constexpr std::array<const char*, 8> kPalette = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#56b4e9", "#e69f00", "#222222", "#b8a800"};

// XML has no control characters, not even as entities.
std::string escaped(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return escape_markup(out);
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // Makes room around what was added, and something to show where nothing was.
  void settle(double share) {
    if (!(low <= high)) low = 0, high = 1;
    if (low == high) low -= low == 0 ? 1 : std::abs(low) / 2, high += high == 0 ? 1 : high / 2;
    const double room = share * (high - low);
    low -= room;
    high += room;
  }
};

class Panel {
 public:
  explicit Panel(const Chart& chart) : chart_(chart) {
    for (const Series& series : chart.series) {
      for (size_t i = 0; i < series.x.size(); ++i) {
        if (!shown(series, i)) continue;
        x_.add(series.x[i]);
        y_.add(height_of(series.y[i]));
      }
    }
    x_.settle(0);
    y_.settle(0.04);
  }

  std::string draw() const {
    std::string out = axes();
    for (const bool faint : {true, false}) {
      for (const Series& series : chart_.series) {
        if (series.faint == faint) out += line(series);
      }
    }
    return out + legend();
  }

 private:
  double height_of(double y) const { return chart_.log_y ? std::log10(y) : y; }
  bool shown(const Series& series, size_t i) const {
    return std::isfinite(series.x[i]) && std::isfinite(series.y[i]) &&
           !(chart_.log_y && series.y[i] <= 0);
  }
  double left(double x) const { return kLeft + kPlotWidth * (x - x_.low) / (x_.high - x_.low); }
  double top(double height) const {
    return kTop + kPlotHeight * (y_.high - height) / (y_.high - y_.low);
  }

  // Where the y axis has its ticks, as heights. A logarithmic axis that spans little has too few
  // powers of ten: there 2 and 5 times them, too.
  std::vector<double> y_ticks() const {
    if (!chart_.log_y) return ticks(y_.low, y_.high, 6);
    std::vector<double> out;
    const bool few = y_.high - y_.low < 2.5;
    for (double power = std::floor(y_.low); power <= y_.high; ++power) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double at = power + std::log10(factor);
        if ((factor == 1 || few) && at >= y_.low && at <= y_.high) out.push_back(at);
      }
    }
    return out.size() < 2 ? ticks(y_.low, y_.high, 4) : out;
  }

  std::string axes() const {
    std::string out = fmt::format(
        "<text x=\"{:.0f}\" y=\"20\" class=\"title\">{}</text>\n"
        "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n"
        "<text transform=\"translate(15 {:.0f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        kLeft, escaped(chart_.title), kLeft + kPlotWidth / 2, kHeight - 10, escaped(chart_.x_label),
        kTop + kPlotHeight / 2, escaped(chart_.y_label));
    for (const double at : y_ticks()) {
      out += fmt::format(
          "<path d=\"M{:.0f} {:.1f}h{:.0f}\" class=\"grid\"/>"
          "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
          kLeft, top(at), kPlotWidth, kLeft - 6, top(at) + 4,
          tick_label(chart_.log_y ? std::pow(10, at) : at));
    }
    for (const double at : ticks(x_.low, x_.high, 6)) {
      out += fmt::format(
          "<path d=\"M{:.1f} {:.0f}v5\" class=\"axis\"/>"
          "<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n",
          left(at), kTop + kPlotHeight, left(at), kTop + kPlotHeight + 18, tick_label(at));
    }
    return out + fmt::format("<path d=\"M{:.0f} {:.0f}v{:.0f}h{:.0f}\" class=\"axis\"/>\n", kLeft,
                             kTop, kPlotHeight, kPlotWidth);
  }

  // Of the points that share a column of pixels the lowest and the highest are drawn: no peak is
  // lost, and a long run makes no large file.
  std::string line(const Series& series) const {
    const char* color = kPalette[static_cast<size_t>(series.color) % kPalette.size()];
    std::string path, dots;
    bool open = false;
    const auto put = [&](size_t i) {
      const double x = left(series.x[i]), y = top(height_of(series.y[i]));
      path += fmt::format("{}{:.1f} {:.1f}", open ? 'L' : 'M', x, y);
      open = true;
      if (series.markers) {
        dots +=
            fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>", x, y, color);
      }
    };
    for (size_t i = 0; i < series.x.size();) {
      if (!shown(series, i)) {
        open = false;
        ++i;
        continue;
      }
      const double column = std::floor(left(series.x[i]));
      size_t lowest = i, highest = i, end = i;
      for (;
           end < series.x.size() && shown(series, end) && std::floor(left(series.x[end])) == column;
           ++end) {
        if (series.y[end] < series.y[lowest]) lowest = end;
        if (series.y[end] > series.y[highest]) highest = end;
      }
      put(std::min(lowest, highest));
      if (lowest != highest) put(std::max(lowest, highest));
      i = end;
    }
    if (path.empty()) return "";
    return fmt::format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
        "stroke-linejoin=\"round\"/>{}\n",
        path, color, series.faint ? 0.8 : 1.8, series.faint ? 0.3 : 1, dots);
  }

  // How much of the lines lies in a box: points on them, some pixels apart.
  int64_t covered(double box_left, double box_top, double width, double height) const {
    constexpr int kSteps = 16;  // between two neighbours
    int64_t count = 0;
    for (const Series& series : chart_.series) {
      for (size_t i = 0; i + 1 < series.x.size(); ++i) {
        if (!shown(series, i) || !shown(series, i + 1)) continue;
        const double x = left(series.x[i]), dx = left(series.x[i + 1]) - x;
        const double y = top(height_of(series.y[i])), dy = top(height_of(series.y[i + 1])) - y;
        for (int step = 0; step <= kSteps; ++step) {
          const double px = x + dx * step / kSteps - box_left,
                       py = y + dy * step / kSteps - box_top;
          count += px >= 0 && px <= width && py >= 0 && py <= height;
        }
      }
    }
    return count;
  }

  // The names, in the corner where they hide least.
  std::string legend() const {
    size_t names = 0, letters = 0;
    for (const Series& series : chart_.series) {
      names += !series.name.empty();
      letters = std::max(letters, series.name.size());
    }
    if (names == 0) return {};
    constexpr double kLine = 16, kLetter = 7.5, kMargin = 6;
    const double width = kLetter * static_cast<double>(letters) + kMargin;
    const double height = kLine * static_cast<double>(names) + kMargin;
    const double right = kWidth - kRight - width, below = kTop + kPlotHeight - height;
    struct Corner {
      double x, y;
    };
    const Corner corners[] = {{right, kTop}, {kLeft, kTop}, {right, below}, {kLeft, below}};
    const Corner* best = std::ranges::min_element(corners, {}, [&](const Corner& corner) {
      return covered(corner.x, corner.y, width, height);
    });
    const bool at_right = best->x == right;
    std::string out;
    double y = best->y + 14;
    for (const Series& series : chart_.series) {
      if (series.name.empty()) continue;
      out += fmt::format(
          "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"{}\" class=\"legend\" "
          "fill=\"{}\">{}</text>\n",
          at_right ? kWidth - kRight - kMargin : kLeft + kMargin, y, at_right ? "end" : "start",
          kPalette[static_cast<size_t>(series.color) % kPalette.size()], escaped(series.name));
      y += kLine;
    }
    return out;
  }

  const Chart& chart_;
  Range x_, y_;
};

}  // namespace

std::vector<double> ticks(double low, double high, int count) {
  if (!(low < high)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double ratio = rough / power;
  const double step = power * (ratio > 5 ? 10 : ratio > 2 ? 5 : ratio > 1 ? 2 : 1);
  std::vector<double> out;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) {
    out.push_back(i * step);
  }
  return out;
}

std::string tick_label(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  constexpr std::pair<double, const char*> kUnits[] = {
      {1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e4, " k"}};
  for (const auto& [from, unit] : kUnits) {
    if (size >= from) return fmt::format("{:.4g}{}", value / (from == 1e4 ? 1e3 : from), unit);
  }
  return fmt::format("{:.4g}", value);
}

std::string draw_svg(std::span<const Chart> charts, int columns) {
  const auto count = static_cast<int>(charts.size());
  const int across = std::clamp(count, 1, columns), down = (count + columns - 1) / columns;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" "
      "font-size=\"11\" fill=\"#444\">\n"
      "<style>.title{{font-size:14px;font-weight:bold;fill:#222}}.grid{{stroke:#e4e4e4}}"
      ".axis{{stroke:#888;fill:none}}.legend{{font-weight:bold;paint-order:stroke;stroke:#fff;"
      "stroke-width:3px}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      across * kWidth, down * kHeight);
  for (int i = 0; i < count; ++i) {
    out += fmt::format("<g transform=\"translate({:.0f} {:.0f})\">\n", i % columns * kWidth,
                       i / columns * kHeight);
    out += Panel(charts[static_cast<size_t>(i)]).draw() + "</g>\n";
  }
  return out + "</svg>\n";
}

}  // namespace quern
