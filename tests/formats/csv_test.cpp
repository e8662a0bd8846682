// CSV as RFC 4180 has it, and as pandas reads what the standard leaves open.
#include "formats/csv.h"

#include "support/support.h"

namespace quern {
namespace {

using Rows = std::vector<CsvRow>;

TEST(Csv, QuotedCellsKeepCommasQuotesAndLineEnds) {
  EXPECT_EQ(parse_csv("a,\"b,\"\"c\"\"\"\r\n\"x\r\ny\",\"\n\"\r\n", "t"),
            (Rows{{"a", "b,\"c\""}, {"x\r\ny", "\n"}}));
}

TEST(Csv, RowsEndWithAnyLineEndAndBlankLinesAreNone) {
  EXPECT_EQ(parse_csv("a,b\n\n1,2\r3,4\r\n5,6", "t"),
            (Rows{{"a", "b"}, {"1", "2"}, {"3", "4"}, {"5", "6"}}));
}

TEST(Csv, AByteOrderMarkIsDropped) {
  EXPECT_EQ(parse_csv("\xEF\xBB\xBF"
                      "a,b\n",
                      "t"),
            (Rows{{"a", "b"}}));
}

TEST(Csv, EmptyCellsAreCells) {
  EXPECT_EQ(parse_csv(",x,\n\"\",,\n", "t"), (Rows{{"", "x", ""}, {"", "", ""}}));
}

TEST(Csv, AQuoteInsideAPlainCellIsText) {
  EXPECT_EQ(parse_csv("5\" pipe,\"a\"b\n", "t"), (Rows{{"5\" pipe", "ab"}}));
}

TEST(Csv, WhatIsNeverClosedOrNoTextIsRefused) {
  test::expect_error([] { parse_csv("a\n\"b", "t.csv"); }, Kind::BadInput, {"t.csv", "row 2"});
  test::expect_error([] { parse_csv("a\xff", "t.csv"); }, Kind::BadInput, {"t.csv", "byte 1"});
}

}  // namespace
}  // namespace quern
