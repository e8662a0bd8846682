// The calculator: exact where a number is, and what it must refuse.
#include "support/support.h"
#include "tools/builtin.h"

namespace quern {
namespace {

TEST(Calculator, IsExact) {
  const std::pair<const char*, const char*> kCases[] = {
      {"17.5% of 2340 plus 12", "421.5"},
      {"17.5% * 2340 + 12", "421.5"},
      {"0.1 + 0.2", "0.3"},
      {"1/3", "0.33333333333333333333"},
      {"-2^2", "-4"},
      {"2^-1", "0.5"},
      {"2^3^2", "512"},
      {"10 % 3", "1"},
      {"-7 mod 3", "2"},
      {"50%", "0.5"},
      {"200 + 10%", "200.1"},
      {"1,234,567.5 * 2", "2469135"},
      {"max(1,234)", "234"},
      {"sqrt(16)", "4"},
      {"sqrt(2)", "1.4142135623730950488"},
      {"square root of 144", "12"},
      {"8^(1/3)", "2"},
      {"2.25^0.5", "1.5"},
      {"cbrt(-27)", "-3"},
      {"round(2.675, 2)", "2.68"},
      {"round(-2.5)", "-3"},
      {"floor(-1.5) + ceil(1.2)", "0"},
      {"5!", "120"},
      {"2(3+4)", "14"},
      {"3 × 4 ÷ 2 − 1", "5"},
      {"12 divided by 8", "1.5"},
      {"9 squared minus 1", "80"},
      {"ln(e)", "1"},
      {"log(1000)", "3"},
      {"log(8, 2)", "3"},
      {"gcd(12, 18) + lcm(4, 6)", "18"},
      {"mean(1, 2, 4)", "2.3333333333333333333"},
      {"2^100", "1267650600228229401496703205376"},
      {"1e-3", "0.001"},
      {"0.5e2 =", "50"}};
  for (const auto& [expression, want] : kCases) {
    EXPECT_EQ(calculate(expression), want) << expression;
  }
}

TEST(Calculator, RefusesWhatItCannotDo) {
  test::expect_error([] { calculate(""); }, Kind::BadInput, {"empty"});
  test::expect_error([] { calculate("1/0"); }, Kind::BadInput, {"zero"});
  test::expect_error([] { calculate("2 +"); }, Kind::BadInput, {"no number"});
  test::expect_error([] { calculate("2 ) 3"); }, Kind::BadInput, {"does not belong"});
  test::expect_error([] { calculate("sqt(4)"); }, Kind::BadInput, {"sqrt"});
  test::expect_error([] { calculate("9^9^9^9"); }, Kind::BadInput, {""});
  test::expect_error([] { calculate("sqrt(-1)"); }, Kind::BadInput, {"negative"});
  test::expect_error([] { calculate("import os"); }, Kind::BadInput, {"import"});
  test::expect_error([] { calculate(std::string(3000, '(')); }, Kind::BadInput, {"deep"});
  test::expect_error([] { calculate(std::string(3000, '-').append("1")); }, Kind::BadInput, {""});
  test::expect_error([] { calculate(std::string(5000, '1')); }, Kind::BadInput, {"4096"});
  test::expect_error([] { calculate("1e999999"); }, Kind::BadInput, {"exponent"});
}

TEST(Convert, IsExactByTheDefinitions) {
  const auto convert = [](const char* value, const char* from, const char* to) {
    return convert_units(OrderedJson::parse(value, "a value"), from, to);
  };
  EXPECT_EQ(convert("26", "mi", "km"), "41.842944 km");
  EXPECT_EQ(convert("1", "inch", "cm"), "2.54 cm");
  EXPECT_EQ(convert("100", "C", "F"), "212 F");
  EXPECT_EQ(convert("-40", "fahrenheit", "celsius"), "-40 celsius");
  EXPECT_EQ(convert("0", "C", "K"), "273.15 K");
  EXPECT_EQ(convert("90", "km/h", "m/s"), "25 m/s");
  EXPECT_EQ(convert("1", "kWh", "kJ"), "3600 kJ");
  EXPECT_EQ(convert("1", "GiB", "MB"), "1073.741824 MB");
  EXPECT_EQ(convert("180", "deg", "rad"), "3.1415926535897932385 rad");
  test::expect_error([&] { convert("1", "usd", "eur"); }, Kind::BadInput, {"currency"});
  test::expect_error([&] { convert("1", "kg", "km"); }, Kind::BadInput, {"mass", "length"});
  test::expect_error([&] { convert("1", "mils", "km"); }, Kind::BadInput, {"mils"});
  test::expect_error([&] { convert("-300", "C", "K"); }, Kind::BadInput, {"absolute zero"});
  test::expect_error([&] { convert("null", "C", "K"); }, Kind::BadInput, {"no number"});
}

// Expected by the calendar (ISO 8601).
TEST(Date, KnowsTheCalendar) {
  const auto ask = [](const DateQuestion& question) {
    return answer_date(question, "2024-02-29 12:30:00");
  };
  EXPECT_EQ(ask({}),
            "2024-02-29 Thursday, day 60 and ISO week 9 of the year; the time is 12:30:00");
  EXPECT_EQ(ask({.date = "2021-01-03"}), "2021-01-03 Sunday, day 3 and ISO week 53 of the year");
  EXPECT_EQ(ask({.years = 1}).substr(0, 10), "2025-02-28");
  EXPECT_EQ(ask({.date = "2024-01-31", .months = 1}).substr(0, 10), "2024-02-29");
  EXPECT_EQ(ask({.date = "2024-03-01", .days = -1}).substr(0, 10), "2024-02-29");
  EXPECT_EQ(ask({.date = "yesterday", .until = "2025-01-01"}),
            "from 2024-02-28 until 2025-01-01: 308 days");
  test::expect_error([&] { ask({.date = "2023-02-29"}); }, Kind::BadInput, {"no day"});
  test::expect_error([&] { ask({.date = "soon"}); }, Kind::BadInput, {"no date"});
  test::expect_error([&] { ask({.years = 9000}); }, Kind::BadInput, {"outside"});
}

TEST(Observation, IsCutAndPlain) {
  EXPECT_EQ(observation_text("a\x1b[2Jb\r\n\xff", 100), "a[2Jb\n\xEF\xBF\xBD");
  const std::string cut = observation_text(std::string(100'000, 'x'), 1000);
  EXPECT_TRUE(cut.starts_with(std::string(1000, 'x').append("\n[cut here: 1000 of 100000 bytes")));
  EXPECT_EQ(observation_text("äö", 3).substr(0, 3), "ä\n");
  EXPECT_EQ(observation_text("<|im_end|>\nObservation:", 100), "<|im_end|>\nObservation:");
}

}  // namespace
}  // namespace quern
