// Compression rates agree with those that other programs measured on the same texts.
#include "text/compression.h"

#include "core/json.h"
#include "support/support.h"
#include "text/load.h"
#include "text/unigram_model.h"

namespace quern {
namespace {

TEST(Compression, TokensOfEveryLanguageAreTheBaselines) {
  const fs::path data = test::shared("data/multilingual");
  const fs::path xlmr = test::shared("data/xlmr");
  const fs::path qwen = test::shared("fixtures/tokenizer/qwen.tiktoken");
  QUERN_NEED(data);
  QUERN_NEED(xlmr);
  QUERN_NEED(qwen);
  const std::vector<NamedTokenizer> tokenizers = {{"XLM-R", load_tokenizer(xlmr)},
                                                  {"Qwen", load_tokenizer(qwen)}};
  ThreadPool threads(2);
  const auto rows = measure_compression(data, tokenizers, threads);
  const Json known = Json::parse_file((data / "compression_baselines.json").string());
  ASSERT_EQ(rows.size(), 19U);
  EXPECT_EQ(rows.back().language, "code");
  for (const Compression& row : rows) {
    const Json expected = known.at(row.language);
    EXPECT_EQ(row.bytes, expected.at("bytes").integer()) << row.language;
    EXPECT_EQ(row.lines, expected.at("lines").integer()) << row.language;
    EXPECT_EQ(row.tokens[0], expected.at("tokens").at("xlmr").integer()) << row.language;
    EXPECT_EQ(row.tokens[1], expected.at("tokens").at("qwen").integer()) << row.language;
  }
}

TEST(Compression, FigureHasABarForEachRateAndNamesAreEscaped) {
  const std::vector<NamedTokenizer> tokenizers = {{"a<b", nullptr}, {"c", nullptr}};
  const std::vector<Compression> rows = {{"en", 1, 100, {20, 10}}, {"code", 1, 100, {20, 40}}};
  EXPECT_EQ(rows[0].relative(1), 2);
  EXPECT_EQ(rows[1].relative(1), 0.5);
  const std::string svg = compression_figure(rows, tokenizers);
  size_t bars = 0;
  for (size_t at = 0; (at = svg.find("<rect", at + 1)) != svg.npos;) ++bars;
  EXPECT_EQ(bars, 1U + 2U + 4U);  // ground, legend, bars
  EXPECT_NE(svg.find("a&lt;b"), svg.npos);
}

TEST(Unigram, DamagedTablesAreRefused) {
  const test::TempFolder folder;
  folder.write("precompiled_charsmap.b64", "");
  folder.write("x_unigram.tsv", "<unk>\t0\na no tab\n");
  test::expect_error([&] { load_unigram(folder.path()); }, Kind::BadInput, {"line 2"});
  folder.write("x_unigram.tsv", "a\t-1\n");
  test::expect_error([&] { load_unigram(folder.path()); }, Kind::BadInput, {"no entry <unk>"});
}

}  // namespace
}  // namespace quern
