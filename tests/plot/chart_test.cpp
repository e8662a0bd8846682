#include "plot/chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "core/error.h"
#include "support/support.h"

namespace quern::test {
namespace {

Chart chart_of(std::vector<double> x, std::vector<double> y) {
  return {"Loss", "tokens", "nats", {{"one", std::move(x), std::move(y)}}};
}

// The points of the only line that has the full stroke.
std::vector<std::pair<double, double>> drawn_points(const std::string& svg) {
  std::smatch found;
  const std::regex line("<path d=\"([^\"]*)\" fill=\"none\"");
  EXPECT_TRUE(std::regex_search(svg, found, line)) << svg;
  const std::string path = found[1];
  std::vector<std::pair<double, double>> points;
  const std::regex point("[ML]([0-9.]+) ([0-9.]+)");
  for (std::sregex_iterator at(path.begin(), path.end(), point), end; at != end; ++at) {
    points.emplace_back(std::stod((*at)[1]), std::stod((*at)[2]));
  }
  return points;
}

TEST(Ticks, AreOneTwoOrFiveTimesAPowerOfTen) {
  EXPECT_EQ(ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(ticks(0, 1e6, 4), (std::vector<double>{0, 5e5, 1e6}));
  const auto small = ticks(0.0101, 0.0149, 5);
  ASSERT_EQ(small.size(), 4u);
  EXPECT_NEAR(small[0], 0.011, 1e-12);
  EXPECT_NEAR(small[3], 0.014, 1e-12);
}

TEST(Ticks, HaveShortNames) {
  EXPECT_EQ(tick_label(0), "0");
  EXPECT_EQ(tick_label(2500), "2500");
  EXPECT_EQ(tick_label(25000), "25 k");
  EXPECT_EQ(tick_label(1.5e6), "1.5 M");
  EXPECT_EQ(tick_label(-3e9), "-3 G");
  EXPECT_EQ(tick_label(3e-5), "3e-05");
}

TEST(Chart, EqualStepsAreEquallyFarApartAndHigherIsUp) {
  const Chart chart = chart_of({0, 50, 100}, {1, 2, 3});
  const auto points = drawn_points(draw_svg({&chart, 1}, 1));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].first - points[0].first, points[2].first - points[1].first, 0.11);
  EXPECT_NEAR(points[0].second - points[1].second, points[1].second - points[2].second, 0.11);
  EXPECT_GT(points[0].second, points[2].second);  // in SVG y grows downwards
}

TEST(Chart, OnALogarithmicAxisEqualRatiosAreEquallyFarApart) {
  Chart chart = chart_of({0, 50, 75, 100}, {1, 10, -1, 100});
  chart.log_y = true;
  const auto points = drawn_points(draw_svg({&chart, 1}, 1));
  ASSERT_EQ(points.size(), 3u);  // what is not positive is left out
  EXPECT_NEAR(points[0].second - points[1].second, points[1].second - points[2].second, 0.11);
}

TEST(Chart, ALongSeriesKeepsItsPeaksInASmallFile) {
  std::vector<double> x, y;
  for (int i = 0; i < 200'000; ++i) {
    x.push_back(i);
    y.push_back(i == 123'456 ? 50 : 1 + 0.01 * (i % 7));
  }
  const Chart chart = chart_of(x, y);
  const std::string svg = draw_svg({&chart, 1}, 1);
  EXPECT_LT(svg.size(), 60'000u);
  double highest = 1e9;
  for (const auto& [left, top] : drawn_points(svg)) highest = std::min(highest, top);
  const Chart low = chart_of({0, 1}, {50, 1});  // where 50 lies, with the same room around
  EXPECT_NEAR(highest, drawn_points(draw_svg({&low, 1}, 1))[0].second, 0.2);
}

TEST(Chart, EmptyAndConstantAndBrokenSeriesDraw) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Chart& chart :
       {chart_of({}, {}), chart_of({1}, {5}), chart_of({1, 2}, {5, 5}), chart_of({1, 2}, {0, 0}),
        chart_of({1, 2, 3}, {1, nan, 2}), chart_of({1, 2}, {nan, nan})}) {
    const std::string svg = draw_svg({&chart, 1}, 2);
    EXPECT_EQ(svg.find("nan"), svg.npos) << svg;
    EXPECT_EQ(svg.find("inf"), svg.npos) << svg;
  }
}

TEST(Chart, NamesCannotBecomeMarkup) {
  Chart chart = chart_of({0, 1}, {0, 1});
  chart.series[0].name = "<script>&\"\n";
  const std::string svg = draw_svg({&chart, 1}, 1);
  EXPECT_NE(svg.find("&lt;script&gt;&amp;&quot; "), svg.npos);
  EXPECT_EQ(svg.find("<script"), svg.npos);
}

TEST(Picture, PngIsMadeWhereItsProgramIs) {
  if (std::system("rsvg-convert --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "skipped: rsvg-convert is not installed";
  }
  const TempFolder temp;
  const Chart chart = chart_of({0, 1}, {0, 1});
  const fs::path png = temp.path() / "a.png";
  write_picture(png, draw_svg({&chart, 1}, 1));
  EXPECT_EQ(read_file(png).substr(0, 8), "\x89PNG\r\n\x1a\n");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(temp.path())) ++files;
  EXPECT_EQ(files, 1);  // nothing temporary is left
}

TEST(Picture, AnotherEndingIsRefused) {
  const TempFolder temp;
  try {
    write_picture(temp.path() / "a.jpg", "<svg/>");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Kind::Misused);
    EXPECT_NE(std::string(error.what()).find("a.jpg"), std::string::npos);
  }
}

}  // namespace
}  // namespace quern::test
