// Pages, charsets, web archives: main text against what a person marked, records against the truth.
#include "data/stages/extract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "core/base64.h"
#include "core/error.h"
#include "core/utf8.h"
#include "data/extract/charset.h"
#include "data/extract/html_page.h"
#include "data/extract/page_text.h"
#include "data/extract/warc.h"
#include "records.h"
#include "support/support.h"

namespace quern {
namespace {

using test::at;

// Words as \w+ takes them; Han and kana characters are words of their own where `singly`.
std::vector<std::string> words_of(std::string_view text, bool singly) {
  std::vector<std::string> out;
  std::string word;
  const auto end = [&] {
    if (!word.empty()) out.push_back(std::move(word));
    word.clear();
  };
  while (!text.empty()) {
    const utf8::Point point = utf8::decode(text);
    const char32_t c = point.value;
    const bool ascii_word = c < 0x80 && (std::isalnum(static_cast<int>(c)) != 0 || c == '_');
    const bool mark = (c >= 0x2000 && c < 0x2070) || (c >= 0x3000 && c < 0x3005) ||
                      (c >= 0x3008 && c < 0x3012) || (c >= 0xFF01 && c < 0xFF10) ||
                      (c >= 0xFF1A && c < 0xFF21) || (c >= 0xA0 && c < 0xC0) ||
                      (c >= 0x20A0 && c < 0x20D0);
    const bool single = (c >= 0x3040 && c < 0x3100) || (c >= 0x3400 && c < 0xA000) || c >= 0x20000;
    if (singly && single) {
      end();
      word.assign(text.substr(0, point.length));
      end();
    } else if (ascii_word || (c >= 0x80 && !mark)) {
      word += text.substr(0, point.length);
    } else {
      end();
    }
    text.remove_prefix(point.length);
  }
  end();
  return out;
}

struct Score {
  double precision = 0, recall = 0;
  double f1() const { return 2 * precision * recall / (precision + recall); }
};

Score four_grams(std::string_view found, std::string_view marked, bool singly) {
  const auto grams = [&](std::string_view text) {
    std::map<std::string, int> out;
    const auto words = words_of(text, singly);
    for (size_t i = 0; i + 4 <= std::max<size_t>(words.size(), 4) && !words.empty(); ++i) {
      std::string gram;
      for (size_t j = i; j < std::min(i + 4, words.size()); ++j) gram += words[j] + " ";
      ++out[gram];
    }
    return out;
  };
  const auto a = grams(found), b = grams(marked);
  double both = 0, of_a = 0, of_b = 0;
  for (const auto& [gram, count] : a) {
    of_a += count;
    if (const auto other = b.find(gram); other != b.end()) both += std::min(count, other->second);
  }
  for (const auto& [gram, count] : b) of_b += count;
  return {of_a == 0 ? 0 : both / of_a, of_b == 0 ? 1 : both / of_b};
}

PageText extract(std::string_view html) { return extract_page(HtmlPage(html)); }

TEST(ExtractPage, FindsTheTextThatAPersonMarked) {
  const fs::path file = test::shared("data/filter/web_pages.jsonl.gz");
  QUERN_NEED(file);
  Score mean;
  const auto pages = test::read_records(file);
  for (const OrderedJson& page : pages) {
    const Score one =
        four_grams(extract(at(page, "html").text).text, at(page, "main_text").text, false);
    mean.precision += one.precision / static_cast<double>(pages.size());
    mean.recall += one.recall / static_cast<double>(pages.size());
  }
  EXPECT_GE(mean.f1(), 0.95) << "precision " << mean.precision << ", recall " << mean.recall;
}

TEST(ExtractPage, DecodesAndReadsPagesInEveryCharset) {
  const fs::path file = test::shared("data/filter/web_pages_intl.jsonl.gz");
  QUERN_NEED(file);
  Score mean;
  const auto pages = test::read_records(file);
  for (const OrderedJson& page : pages) {
    std::string bytes;
    ASSERT_TRUE(base64_decode(at(page, "html_base64").text, bytes));
    const DecodedText decoded = decode_text(bytes, at(page, "content_type").text, true);
    const std::string charset = at(page, "charset").text;
    EXPECT_EQ(decoded.charset, charset == "gbk" ? "gb18030" : charset) << at(page, "id").text;
    const PageText text = extract(decoded.utf8);
    EXPECT_EQ(text.title, at(page, "title").text) << at(page, "id").text;
    const Score one = four_grams(text.text, at(page, "main_text").text, true);
    mean.precision += one.precision / static_cast<double>(pages.size());
    mean.recall += one.recall / static_cast<double>(pages.size());
  }
  EXPECT_GE(mean.f1(), 0.95) << "precision " << mean.precision << ", recall " << mean.recall;
}

TEST(ExtractPage, KeepsParagraphsListsTablesAndCode) {
  const PageText page = extract(
      "<html lang=en-GB><head><title>Mills - Site</title><meta property='article:published_time' "
      "content='2024-05-03T10:00:00Z'><script>if (1 < 2) {}</script></head><body>"
      "<nav><a href=/>Home</a></nav><article><h1>Mills</h1>"
      "<p>The mill by the river has stood empty since the flood, and nobody goes there now.</p>"
      "<ul><li>wheel</li><li>stone &amp; &#x4e2d; &#150;</li></ul>"
      "<table><tr><td>year</td><td>1820</td></tr></table><pre>int a;\n  int b;</pre>"
      "<p>Every spring the children of the village walk down to look at the wheel.</p></article>"
      "<footer>Contact</footer><!-- gone --></body></html>");
  EXPECT_EQ(page.text,
            "The mill by the river has stood empty since the flood, and nobody goes there now.\n"
            "- wheel\n- stone & 中 –\nyear | 1820\nint a;\n  int b;\n"
            "Every spring the children of the village walk down to look at the wheel.\n");
  EXPECT_EQ(page.title, "Mills");
  EXPECT_EQ(page.date, "2024-05-03");
  EXPECT_EQ(page.language, "en-GB");
}

// Pages made to be slow: each is read in time that grows with its length.
TEST(ExtractPage, HostilePagesAreReadInLinearTime) {
  const auto repeated = [](std::string_view part, size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += part;
    return out;
  };
  const std::string prose = "<p>The mill by the river has stood empty since the flood of 1820.</p>";
  const std::vector<std::string> pages = {
      repeated("<div>", 100'000) + prose,
      repeated("<b>", 100'000) + repeated("</i>", 100'000) + prose,
      repeated("<table><tr><td>", 30'000) + prose,
      repeated("<ul><li>", 50'000) + repeated("</td>", 100'000) + prose,
      "<p " + repeated("a=b ", 500'000) + ">x</p>" + prose,
      "<p class='" + std::string(10'000'000, 'x') + "'>x</p>" + prose,
      repeated("<!--", 200'000) + prose,
      repeated("<![CDATA[", 200'000) + prose,
      repeated("&amp", 500'000) + prose,
      repeated("<", 500'000) + prose,
      "&#x110000;&#0;&#xd800;" + prose,
      "<script>" + prose,
      std::string("<p>a\0b</p>", 10) + prose,
      "<title>" + prose,
      prose + "<p",
      "",
  };
  for (size_t i = 0; i < pages.size(); ++i) {
    SCOPED_TRACE(i);
    const PageText text = extract(pages[i]);
    EXPECT_LE(text.text.size(), pages[i].size() * 2 + 100);
    EXPECT_TRUE(utf8::is_valid(text.text));
  }
}

TEST(Charset, TheBytesDecideWhereTheDeclarationIsWrong) {
  EXPECT_EQ(decode_text("\xEF\xBB\xBF\xD0\x96", "text/html; charset=koi8-r", true).utf8, "Ж");
  EXPECT_EQ(decode_text(std::string_view("\xFF\xFE<\0p\0>\0", 8), "", true).utf8, "<p>");
  EXPECT_EQ(decode_text(std::string_view("\xFF\xFE\0\0<\0\0\0", 8), "", true).charset, "utf-32le");
  EXPECT_EQ(decode_text("caf\xE9 na\xEFve", "text/html; charset=ISO-8859-1", true).utf8,
            "café naïve");
  EXPECT_EQ(decode_text("", "", true).utf8, "");
  EXPECT_EQ(charset_parameter("text/html; Charset = \"GBK\""), "gbk");
}

class Extraction : public testing::Test {
 protected:
  StageReport run(const fs::path& input) {
    StageOptions options;
    options.inputs = {input};
    options.out = folder_.path() / "out";
    options.workers = 2;
    StageSettings settings({});
    return run_stage(*make_extract_stage(settings, ""), options);
  }
  std::vector<OrderedJson> kept() const {
    return test::read_records(folder_.path() / "out/shard-00000.jsonl.zst");
  }
  test::TempFolder folder_;
};

TEST_F(Extraction, WebArchiveGivesItsPages) {
  const fs::path file = test::shared("data/filter/tiny.warc.gz");
  QUERN_NEED(file);
  const auto truth =
      OrderedJson::parse(read_file(test::shared("data/filter/tiny.warc.truth.json")), "truth");
  EXPECT_EQ(run(file).bad, 0);
  const auto pages = kept();
  const auto& wanted = at(truth, "pages").items;
  ASSERT_EQ(pages.size(), wanted.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(at(pages[i], "id").text, at(wanted[i], "record_id").text);
    EXPECT_EQ(at(pages[i], "url").text, at(wanted[i], "uri").text);
    EXPECT_EQ(at(pages[i], "lang").text, at(wanted[i], "lang").text);
    EXPECT_EQ(at(pages[i], "title").text, at(wanted[i], "title").text);
    EXPECT_EQ(at(pages[i], "text").text, at(wanted[i], "main_text").text + "\n");
  }
  size_t records = 0;
  WarcReader reader(file);
  while (reader.next()) ++records;
  EXPECT_EQ(records, std::stoull(at(truth, "records").text));
}

TEST_F(Extraction, AFolderGivesADocumentForEachPage) {
  const std::string page =
      "<html><title>T</title><body><article><p>One long paragraph of text, so "
      "that it counts as what the page says.</p></article></body></html>";
  folder_.write("pages/b/two.html", page);
  folder_.write("pages/a.md", "# A\n\nShort.\n");
  folder_.write("pages/b/one.TXT", "plain\r\ntext");
  folder_.write("pages/picture.png", "\x89PNG");
  folder_.write("pages/.git/x.html", page);
  EXPECT_EQ(run(folder_.path() / "pages").out, 3);
  const auto documents = kept();
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(at(documents[0], "id").text, "a.md");
  EXPECT_EQ(at(documents[0], "text").text, "# A\n\nShort.\n");
  EXPECT_EQ(at(documents[1], "id").text, "b/one.TXT");
  EXPECT_EQ(at(documents[1], "text").text, "plain\ntext");
  EXPECT_EQ(at(documents[2], "id").text, "b/two.html");
  EXPECT_EQ(at(documents[2], "title").text, "T");
  EXPECT_TRUE(at(documents[2], "text").text.starts_with("One long paragraph"));
}

TEST_F(Extraction, WetGivesItsTextsAsTheyAre) {
  const fs::path file = test::shared("data/filter/tiny.warc.wet.gz");
  QUERN_NEED(file);
  const auto truth =
      OrderedJson::parse(read_file(test::shared("data/filter/tiny.wet.truth.json")), "truth");
  run(file);
  const auto texts = kept();
  const auto& wanted = at(truth, "documents").items;
  ASSERT_EQ(texts.size(), wanted.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(at(texts[i], "url").text, at(wanted[i], "uri").text);
    EXPECT_EQ(at(texts[i], "text").text, at(wanted[i], "text").text);
  }
}

TEST_F(Extraction, DamagedArchiveGivesTheWholeRecordsAndNamesTheOthers) {
  const fs::path file = test::shared("data/filter/damaged.warc.gz");
  QUERN_NEED(file);
  const auto truth =
      OrderedJson::parse(read_file(test::shared("data/filter/damaged.warc.truth.json")), "truth");
  const StageReport report = run(file);
  const auto pages = kept();
  const auto& good = at(truth, "good").items;
  ASSERT_EQ(pages.size(), good.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(at(pages[i], "url").text, at(good[i], "uri").text);
  }
  const auto bad = test::read_records(folder_.path() / "out/bad/shard-00000.jsonl.zst");
  const auto& damaged = at(truth, "damaged").items;
  EXPECT_EQ(report.bad, static_cast<int64_t>(damaged.size()));
  ASSERT_EQ(bad.size(), damaged.size());
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(at(bad[i], "offset").text, at(damaged[i], "offset").text);
  }
}

TEST_F(Extraction, LengthsThatLieAreNamed) {
  const auto record = [](const std::string& length) {
    return "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: u" + length +
           "\r\nContent-Length: " + length + "\r\n\r\nabc\r\n\r\n";
  };
  const fs::path file = folder_.write("a.warc", record("3") + record("-1") + record("3") +
                                                    record("99999999999999999999") + record("2") +
                                                    record("4096") + record("3"));
  const StageReport report = run(file);
  EXPECT_EQ(report.out, 3);
  EXPECT_EQ(report.bad, 4);
  test::expect_error([&] { WarcReader(folder_.write("b.warc", "no archive")); }, Kind::BadInput,
                     {"b.warc"});
}

TEST(HttpBody, ChunksThatLieAreRefused) {
  for (const std::string body :
       {"-2\r\nab", "5\r\nab", "ffffffffffffffffff\r\n", "2\r\nabc\r\n0\r\n", ""}) {
    test::expect_error(
        [&] { read_http_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body); },
        Kind::BadInput, {"chunk"});
  }
  EXPECT_EQ(read_http_response("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                               "3;x=y\r\nabc\r\n0\r\n\r\n")
                .body,
            "abc");
}

}  // namespace
}  // namespace quern
